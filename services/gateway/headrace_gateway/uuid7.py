"""Request ids: UUIDv7 as RFC 9562 section 5.7 tells it, growing within a process.

A millisecond of Unix time in the high 48 bits, then a 12-bit counter (method 1 of section 6.2, seeded with 11 random bits
per millisecond, so that it can grow), then 62 random bits.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final

_COUNTER_LIMIT: Final = 0x0FFF
_MASK_62: Final = (1 << 62) - 1


class RequestIds:
    """Makes ids, each greater than the one before, also when the clock stands still or goes back.

    Args:
        now_ms: the clock, ms since the epoch.
        random_bits: gives n random bits.
    """

    __slots__ = ("_counter", "_last_ms", "_now_ms", "_random_bits")

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._now_ms, self._random_bits = now_ms, random_bits
        self._last_ms, self._counter = -1, 0

    def next(self) -> str:
        """The next id in its usual text form."""
        now = self._now_ms()
        if now > self._last_ms:
            self._last_ms, self._counter = now, self._random_bits(11)
        elif self._counter < _COUNTER_LIMIT:
            self._counter += 1
        else:  # the counter is used up within a millisecond: go ahead of the clock, as the RFC allows
            self._last_ms += 1
            self._counter = self._random_bits(11)
        tail = self._random_bits(62) & _MASK_62
        text = f"{self._last_ms:012x}7{self._counter:03x}{(0b10 << 62) | tail:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def time_of(request_id: str) -> int:
    """Time in the id, ms since the epoch.

    Raises:
        ValueError: it is no UUIDv7.
    """
    digits = request_id.replace("-", "")
    if len(digits) != 32 or digits[12] != "7":
        raise ValueError(f"{request_id!r} is no UUIDv7")
    return int(digits[:12], 16)
