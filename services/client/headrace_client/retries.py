"""How long and how often a call is tried again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_MOST_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True)
class Retries:
    """Pauses grow by doubling and are drawn from between nothing and their size ("full jitter"): clients do not come together.

    Attributes:
        patience_s: from the first try, a call is tried again for so long at most; 0 never.
        first_pause_s: largest pause before the first repetition.
        longest_pause_s: no pause is longer, a Retry-After apart, which is waited out whole and jittered beyond.
        chance: in [0, 1), for the pauses.
        clock: monotonic, seconds.
    """

    patience_s: float = 30.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def begin(self) -> "Backoff":
        """The pauses of one call."""
        return Backoff(self, self.clock() + self.patience_s)


@dataclass(slots=True)
class Backoff:
    """Pauses of one call.

    Attributes:
        retries: the rules.
        until: by their clock, when patience is over.
    """

    retries: Retries
    until: float
    _tries: int = field(default=0, init=False)

    def pause(self, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the next try; None when it would begin after patience is over."""
        rules = self.retries
        size = min(rules.longest_pause_s, rules.first_pause_s * 2 ** min(self._tries, _MOST_DOUBLINGS))
        self._tries += 1
        pause = rules.chance() * size + (retry_after_s or 0.0)
        return pause if rules.clock() + pause < self.until else None

    def progressed(self) -> None:
        """Begin anew with short pauses and full patience: a part was done."""
        self._tries = 0
        self.until = self.retries.clock() + self.retries.patience_s
