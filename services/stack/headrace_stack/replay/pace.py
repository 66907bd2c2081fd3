"""How fast the log's time passes."""

import math
from dataclasses import dataclass
from typing import Self

from headrace_stack.commands.terminal import WrongUsageError

#: As fast as it goes, a click is not waited for any longer.
_LONGEST_CLICK_S = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """So many seconds of the log pass in one; infinity is as fast as it goes."""

    factor: float

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `real`, a number or `max`.

        Raises:
            WrongUsageError: it is none of them.
        """
        if text in {"real", "max"}:
            return cls(1.0 if text == "real" else math.inf)
        try:
            factor = float(text)
        except ValueError:
            factor = 0.0
        if not 0 < factor < math.inf:
            raise WrongUsageError(f"--speed {text}: want real, max or how many times faster, e.g. 600")
        return cls(factor)

    @property
    def unbounded(self) -> bool:
        """Whether nothing is waited for."""
        return math.isinf(self.factor)

    def due_s(self, at_ms: int, first_ms: int) -> float:
        """Seconds after the start at which what the log has at `at_ms` is due; the log begins at `first_ms`."""
        return 0.0 if self.unbounded else (at_ms - first_ms) / 1000 / self.factor

    def click_after_ms(self, after_s: float) -> int:
        """How long a click comes after its impression; as fast as it goes clicks keep their delay up to a bound."""
        seconds = min(after_s, _LONGEST_CLICK_S) if self.unbounded else after_s / self.factor
        return max(1, round(seconds * 1000))
