"""When a click came, for logs that do not tell."""

import random
from collections.abc import Callable
from typing import Final

#: Clicks come within a few seconds: exponential with this mean, no later than five times it.
MEAN_S: Final = 2.0
_LONGEST_MEANS: Final = 5.0


def drawn_delay(seed: int, mean_s: float = MEAN_S) -> Callable[[str, int], float]:
    """Seconds between the impression in a row of a source and its click; the same seed draws the same."""

    def draw(source: str, row: int) -> float:
        chance = random.Random(f"{seed}:{source}:{row}")  # noqa: S311  # seeded
        return min(chance.expovariate(1.0), _LONGEST_MEANS) * mean_s

    return draw
