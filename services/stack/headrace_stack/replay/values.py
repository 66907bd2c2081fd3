"""Values as people's logs write them."""

import math
from datetime import UTC, date, datetime
from typing import Any, Final

_YES: Final = frozenset({"1", "1.0", "true", "t", "yes", "y"})
_NO: Final = frozenset({"0", "0.0", "false", "f", "no", "n", "", "none", "nan"})
_ID_LENGTH: Final = 256
_TEXT_LENGTH: Final = 4_096
#: Numbers below each are seconds, ms, µs; above, ns. All are of the years 1973 to 5138 in their unit.
_UNITS: Final = ((1e11, 1_000.0), (1e14, 1.0), (1e17, 1e-3), (math.inf, 1e-6))


def moment_ms(value: Any) -> int:
    """A time: ISO 8601 (UTC unless told), or a number since the epoch in s, ms, µs or ns, by its size.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, datetime):
        return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(value, date):
        return moment_ms(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return moment_ms(datetime.fromisoformat(value.strip()))
    else:
        number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no time")
    return round(next(number * factor for bound, factor in _UNITS if number < bound))


def yes(value: Any) -> bool:
    """A click or none: 1, 0, true, false, yes, no; empty is none.

    Raises:
        ValueError: it is something else.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise ValueError(f"{value!r} is neither a click (1) nor none (0)")


def identifier(value: Any) -> str:
    """An id.

    Raises:
        ValueError: it is empty or too long, or has a control character.
    """
    text = "" if value is None else str(value)
    if not text:
        raise ValueError("is empty")
    if len(text) > _ID_LENGTH or (not text.isprintable() and any(c < " " or c == "\x7f" for c in text)):
        raise ValueError(f"is longer than {_ID_LENGTH} characters, or has a control character")
    return text


def word(value: Any) -> str:
    """Text of an attribute, cut at what the gateway takes; empty where there is none."""
    return "" if value is None else str(value).replace("\0", "")[:_TEXT_LENGTH]


def place(value: Any) -> int:
    """A position, from 0.

    Raises:
        ValueError: it is none.
    """
    number = float(value)
    if number < 0 or number != int(number):
        raise ValueError(f"{value!r} is no position")
    return int(number)


def probability(value: Any) -> float | None:
    """A propensity; None where it is empty.

    Raises:
        ValueError: it is not in (0, 1].
    """
    if value is None or value == "":
        return None
    number = float(value)
    if not 0 < number <= 1:
        raise ValueError(f"{value!r} is no probability above 0")
    return number
