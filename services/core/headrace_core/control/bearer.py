"""The API key that calls bring: of a setting, or of a file that may be replaced at any time."""

import logging
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final

import httpx

from headrace_core.settings import CallerSettings

log = logging.getLogger(__name__)

_SENDABLE: Final = re.compile(r"[!-~]{1,500}")


class KeyUnreadableError(ValueError):
    """There is no key where one is told to be; the message does not tell what stood there."""


class BearerAuth(httpx.Auth):
    """Sends `Authorization: Bearer KEY`; nothing when there is no key.

    Args:
        key: to send.
        file: that holds it, when `key` is empty.

    Raises:
        KeyUnreadableError: it can't be sent.
    """

    def __init__(self, key: str = "", file: Path | None = None) -> None:
        self._file = None if key else file
        self._stamp = (0, 0, 0)
        self._key = _checked(key, "HEADRACE_API_KEY") if key else ""

    @classmethod
    def from_environment(cls) -> "BearerAuth":
        """With HEADRACE_API_KEY, or what HEADRACE_API_KEY_FILE names."""
        told = CallerSettings()
        return cls(told.api_key.get_secret_value().strip(), told.api_key_file)

    def key(self) -> str:
        """The key as it is now; empty when there is none.

        Raises:
            KeyUnreadableError: there is a file, and nothing was ever read of it.
        """
        if self._file is not None:
            self._look(self._file)
        return self._key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the key to a request."""
        try:
            key = self.key()
        except KeyUnreadableError as error:
            raise httpx.RequestError(str(error)) from None
        if key:
            request.headers["authorization"] = f"Bearer {key}"
        yield request

    def _look(self, file: Path) -> None:
        try:
            found = file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._stamp = stamp  # one that can't be read is told once
                self._key = _checked(file.read_text(encoding="utf-8").strip(), str(file))
        except (OSError, ValueError) as error:
            if not self._key:
                raise KeyUnreadableError(f"the API key can't be read: {_words(error, file)}") from None
            log.warning("the API key stays as it was", extra={"fields": {"error": _words(error, file)}})


def _checked(key: str, where: str) -> str:
    if not _SENDABLE.fullmatch(key):
        raise KeyUnreadableError(f"{where}: holds no key: one line of printable characters is expected")
    return key


def _words(error: Exception, file: Path) -> str:
    """What is wrong, without what stood there."""
    if isinstance(error, OSError):
        return f"{file}: {error.strerror}"
    return f"{file}: is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
