"""API keys: how one is made, how it is written down, and who holds which.

A key is 256 bits of chance, so its plain SHA-256 is what is kept. A slow hash (Argon2, bcrypt) buys time against the guessing of
passwords that people chose; here is nothing to guess, and it would cost every request some 50 ms. Whoever reads the entries can
not make a key of them.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from headrace_core.contracts import Millis

#: What a key may be for. The last one holds the others.
SCOPES: Final = ("events", "recommend", "catalog", "admin")
ADMIN: Final = "admin"

#: Tells a key at sight, also to scanners of repositories and to the filter of logs.
PREFIX: Final = "hr_"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_FORM: Final = "NAME SCOPE[,SCOPE…] sha256:HEX [expires=2027-01-31 or 2027-01-31T12:00:00Z]"


class KeysError(Exception):
    """Entries that can't be; the message tells where and what, and never what stood there, which may be a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key.

    Attributes:
        name: of who holds it; two keys of one name are one caller, which is how a key is replaced.
        digest: SHA-256 of the key.
        scopes: all that it may be used for, what `admin` holds included.
        expires: it is good before this moment; None for ever.
    """

    name: str
    digest: bytes
    scopes: frozenset[str]
    expires: Millis | None = None


def new_key() -> str:
    """A key, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return sha256(key).digest()


def entry(name: str, scopes: Iterable[str], key: str, expires: datetime | None = None) -> str:
    """The line that makes a key known.

    Raises:
        KeysError: it could not be read again.
    """
    until = f" expires={expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if expires is not None else ""
    line = f"{name} {','.join(scopes)} sha256:{digest_of(key.encode()).hex()}{until}"
    parse(line, "entry")
    return line


def parse(text: str, where: str) -> list[Key]:
    """Read entries: one a line, or several separated by semicolons; what begins with # is for people.

    Args:
        text: the entries.
        where: they stand, for messages.

    Raises:
        KeysError: one is wrong.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in line.split(";"):
            told = part.strip()
            if told.startswith("#"):
                break
            if told:
                found.append(_read(told.split(), f"{where}, line {number}"))
    return found


def _read(words: list[str], where: str) -> Key:
    if not 3 <= len(words) <= 4:
        raise KeysError(f"{where}: want {_FORM}")
    name, told, digest = words[:3]
    if not _NAME.fullmatch(name):
        raise KeysError(f"{where}: a name has up to 64 letters, digits, dots, dashes and underscores")
    scopes = frozenset(told.split(","))
    if not scopes <= set(SCOPES):
        raise KeysError(f"{where}: scopes are {', '.join(SCOPES)}, separated by commas")
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise KeysError(f"{where}: want sha256: and 64 hexadecimal digits; `headrace keys new` prints such a line")
    expires = _moment(words[3], where) if len(words) == 4 else None
    return Key(name, bytes.fromhex(match[1]), frozenset(SCOPES) if ADMIN in scopes else scopes, expires)


def _moment(told: str, where: str) -> Millis:
    name, _, text = told.partition("=")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if name != "expires" or moment is None:
        raise KeysError(f"{where}: want expires= and a date or a time as 2027-01-31T12:00:00Z")
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
