"""How many requests a caller may make: token buckets in the process."""

import math
from typing import Final, NamedTuple

#: Callers that are remembered; beyond it, those whose bucket is full again are forgotten.
_CALLERS: Final = 10_000


class Refused(NamedTuple):
    """A request over the limit.

    Attributes:
        wait_seconds: until one more may come.
        rate: requests a second.
        burst: requests at once.
    """

    wait_seconds: float
    rate: float
    burst: int


class Buckets:
    """One bucket for each caller; each replica has its own.

    Args:
        rate: requests a second.
        burst: requests at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, now: float) -> Refused | None:
        """Take one token at a moment of a steady clock, s; None when there was one."""
        level, at = self._levels.get(caller, (float(self.burst), now))
        level = min(self.burst, level + (now - at) * self.rate)
        if level < 1:
            return Refused((1 - level) / self.rate, self.rate, self.burst)
        if len(self._levels) >= _CALLERS and caller not in self._levels:
            self._forget(now)
        self._levels[caller] = (level - 1, now)
        return None

    def _forget(self, now: float) -> None:
        """Forget who is back at a full bucket; when that is nobody, whoever came first."""
        full = [c for c, (level, at) in self._levels.items() if level + (now - at) * self.rate >= self.burst]
        for caller in full or [next(iter(self._levels))]:
            del self._levels[caller]


def headers(refused: Refused) -> dict[str, str]:
    """RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers has them."""
    window = max(1, math.ceil(refused.burst / refused.rate))
    wait = max(1, math.ceil(refused.wait_seconds))
    return {
        "ratelimit-policy": f'"requests";q={refused.burst};w={window}',
        "ratelimit": f'"requests";r=0;t={wait}',
    }
