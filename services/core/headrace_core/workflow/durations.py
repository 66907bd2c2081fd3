"""Durations as people write them."""

import re
from datetime import timedelta
from typing import Final

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

#: "1d", "12h", "30m", "10s", "500ms", or a timedelta.
Duration = str | timedelta


def milliseconds(duration: Duration) -> int:
    """A duration in ms.

    Raises:
        ValueError: it is none, or not above zero.
    """
    if isinstance(duration, timedelta):
        ms = duration // timedelta(milliseconds=1)
    elif match := re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration.strip()):
        ms = int(match[1]) * _UNITS_MS[match[2]]
    else:
        raise ValueError(f"{duration!r} is no duration: write 1d, 12h, 30m, 10s or 500ms")
    if ms <= 0:
        raise ValueError(f"{duration!r} must be longer than nothing")
    return ms
