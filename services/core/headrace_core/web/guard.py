"""Who may make a request: the key that it brings, what that is for, and how many requests there may be."""

import logging
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter
from starlette.types import Scope

from headrace_core.settings import ApiSettings, is_loopback
from headrace_core.web.keyring import Keyring
from headrace_core.web.keys import Key, KeysError
from headrace_core.web.limits import Buckets, headers
from headrace_core.web.problem import ProblemError

log = logging.getLogger(__name__)

REFUSED: Final = Counter(
    "headrace_refused_total",
    "Requests refused before their body was read: no_key, unknown_key, expired_key, narrow_scope, rate, too_many.",
    ["reason"],
)
_CHALLENGE: Final = 'Bearer realm="headrace"'
_WORDS_SECONDS: Final = 1.0


class Guard:
    """Lets requests in.

    Args:
        keyring: the keys; None lets everyone in.
        buckets: how many requests a key, or without keys an address, may make; None for any number.
    """

    def __init__(
        self,
        keyring: Keyring | None = None,
        buckets: Buckets | None = None,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keyring, self._buckets = keyring, buckets
        self._clock_ms, self._steady = clock_ms, steady
        self._said_at, self._unsaid = float("-inf"), 0
        self._own: frozenset[str] = frozenset()

    def mint(self, name: str) -> str:
        """A key for calls of this process to itself, without a limit; empty when nobody needs one."""
        if self.keyring is None:
            return ""
        self._own |= {name}
        return self.keyring.mint(name)

    def admit(self, scope: Scope, needs: str) -> str:
        """Let a request in; the name of its key, empty where there are no keys.

        Raises:
            ProblemError: 401 without a good key, 403 with one that is for something else, 429 over the limit.
        """
        if self.keyring is None:
            if self._buckets is not None:
                client = scope.get("client")
                self._take(client[0] if client else "unknown", scope)
            return ""
        key = self._key(scope)
        if needs not in key.scopes:
            self._note("narrow_scope", scope, key.name)
            raise ProblemError(
                403,
                f"the key {key.name} is for {', '.join(sorted(key.scopes))}; this needs the scope {needs}",
                headers={"www-authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{needs}"'},
                scope=needs,
            )
        if self._buckets is not None and key.name not in self._own:
            self._take(key.name, scope)
        return key.name

    def good(self, presented: bytes, needs: str) -> Key | None:
        """The key, if it is known, has not expired, and is for this."""
        found = self.keyring.find(presented) if self.keyring is not None else None
        return found if found is not None and self.is_good(found, needs) else None

    def is_good(self, key: Key, needs: str) -> bool:
        """Whether it has not expired and is for this."""
        return needs in key.scopes and (key.expires is None or self._clock_ms() < key.expires)

    async def watch(self) -> None:
        """Follow changes of the keys' files, for ever; back at once when there are none."""
        if self.keyring is not None:
            await self.keyring.watch()

    def _key(self, scope: Scope) -> Key:
        assert self.keyring is not None  # noqa: S101  # told by who calls
        told = authorization(scope)
        if told is None:
            self._note("no_key", scope)
            raise ProblemError(
                401, "a key is needed: send `Authorization: Bearer KEY`", headers={"www-authenticate": _CHALLENGE}
            )
        key = self.keyring.find(told)
        if key is None:
            self._note("unknown_key", scope)
            raise _unauthorised("this key is not known")
        if key.expires is not None and self._clock_ms() >= key.expires:
            self._note("expired_key", scope, key.name)
            raise _unauthorised(f"the key {key.name} has expired")
        return key

    def _take(self, caller: str, scope: Scope) -> None:
        assert self._buckets is not None  # noqa: S101  # told by who calls
        refused = self._buckets.take(caller, self._steady())
        if refused is not None:
            self._note("rate", scope, caller)
            raise ProblemError(
                429,
                f"more than {refused.rate:g} requests a second, {refused.burst} at once: {caller} is over its limit",
                retry_after_seconds=refused.wait_seconds,
                headers=headers(refused),
            )

    def _note(self, reason: str, scope: Scope, caller: str = "") -> None:
        """Count it, and say so at most once a second: a flood of requests must not become one of lines."""
        REFUSED.labels(reason).inc()
        now = self._steady()
        if now - self._said_at < _WORDS_SECONDS:
            self._unsaid += 1
            return
        client = scope.get("client")
        fields = {"reason": reason, "caller": caller, "from": client[0] if client else "", "more_since": self._unsaid}
        self._said_at, self._unsaid = now, 0
        log.warning("a request was refused", extra={"fields": fields})


def authorization(scope: Scope) -> bytes | None:
    """What a request brings as its bearer token; None without one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, told = value.partition(b" ")
            return told.strip() if kind.lower() == b"bearer" else None
    return None


def _unauthorised(detail: str) -> ProblemError:
    return ProblemError(401, detail, headers={"www-authenticate": f'{_CHALLENGE}, error="invalid_token"'})


def open_guard(settings: ApiSettings, host: str, service: str) -> Guard:
    """The guard that the settings ask for.

    Args:
        settings: of the service.
        host: where it is to listen.
        service: its name in words.

    Raises:
        KeysError: an entry is wrong, or there is no key and others than this machine could come.
    """
    told, source = settings.api_keys.get_secret_value(), settings.api_keys_file
    keyring = Keyring(told, source) if told.strip() or source is not None else None
    if not keyring and not is_loopback(host):
        where = f"{source} holds none, and " if source is not None else ""
        raise KeysError(f"{where}without API keys {service} listens on loopback only (127.0.0.1, ::1 or localhost)")
    buckets = Buckets(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    return Guard(keyring, buckets)
