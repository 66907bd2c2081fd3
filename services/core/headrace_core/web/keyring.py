"""The keys in force: out of a setting and out of files, which are read again when they change."""

import asyncio
import hmac
import logging
from pathlib import Path
from typing import Final

from headrace_core.web.keys import SCOPES, Key, KeysError, digest_of, new_key, parse

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0

_Stamp = tuple[tuple[str, int, int, int], ...]


class Keyring:
    """Knows keys by their digests.

    Args:
        told: entries; they stay for the life of the process.
        source: a file of entries, or a folder of such files as a mounted secret is one.

    Raises:
        KeysError: an entry is wrong, or the source can't be read.
    """

    def __init__(self, told: str = "", source: Path | None = None) -> None:
        self._told = parse(told, "HEADRACE_API_KEYS")
        self._source = source
        self._minted: list[Key] = []
        self._from_files: list[Key] = []
        self._stamp: _Stamp = ()
        self._fault = ""
        self._by_digest: dict[bytes, Key] = {}
        try:
            self._read()
        except OSError as error:
            raise KeysError(f"{source}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._by_digest) - len(self._minted)

    def find(self, presented: bytes) -> Key | None:
        """The key that was presented, also when it has expired; None for one that nobody knows.

        What is looked up and compared is a digest: how long it takes tells nothing of a key that is not known already.
        """
        digest = digest_of(presented)
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def by_fingerprint(self, name: str, fingerprint: str) -> Key | None:
        """The key with this name and the beginning of this digest."""
        for key in self._by_digest.values():
            if key.name == name and hmac.compare_digest(fingerprint_of(key), fingerprint):
                return key
        return None

    def mint(self, name: str) -> str:
        """A key for calls of this process to itself: for everything, written nowhere, gone with the process."""
        key = new_key()
        self._minted.append(Key(name, digest_of(key.encode()), frozenset(SCOPES)))
        self._join(self._from_files)
        return key

    async def watch(self, every_seconds: float = _LOOK_SECONDS) -> None:
        """Read the files again whenever they change, for ever. Entries that are wrong leave those in force that were."""
        while self._source is not None:
            await asyncio.sleep(every_seconds)
            self.look()

    def look(self) -> None:
        """Read the files again if they changed."""
        try:
            if self._stamps() == self._stamp:
                return
            self._read()
        except (KeysError, OSError) as error:
            if (fault := str(error)) != self._fault:
                self._fault = fault
                log.error("the keys stay as they were", extra={"fields": {"error": fault}})  # noqa: TRY400  # no bug of ours
            return
        self._fault = ""
        log.info("the keys were read again", extra={"fields": {"keys": sorted({k.name for k in self._from_files})}})

    def _read(self) -> None:
        stamp = self._stamps()
        keys = [key for file in self._files() for key in parse(_text(file), str(file))]
        self._join(keys)
        self._from_files, self._stamp = keys, stamp

    def _join(self, from_files: list[Key]) -> None:
        joined: dict[bytes, Key] = {}
        for key in (*self._told, *from_files, *self._minted):
            if joined.setdefault(key.digest, key) != key:
                raise KeysError(f"{joined[key.digest].name} and {key.name} are one key: it has one entry")
        self._by_digest = joined

    def _files(self) -> list[Path]:
        if self._source is None:
            return []
        if not self._source.is_dir():
            return [self._source]
        return sorted(file for file in self._source.iterdir() if not file.name.startswith(".") and file.is_file())

    def _stamps(self) -> _Stamp:
        return tuple((str(file), s.st_mtime_ns, s.st_size, s.st_ino) for file in self._files() for s in (file.stat(),))


def fingerprint_of(key: Key) -> str:
    """Enough of a digest to tell one key from another."""
    return key.digest[:8].hex()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise KeysError(f"{file}: is not UTF-8") from None
