"""Waiting for a condition of another process."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, within_s: float = 120.0) -> T:
    """What `look` finds, when it is neither None nor empty nor False.

    Raises:
        TimeoutError: it found nothing in time.
    """
    end = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s} s")
        time.sleep(0.05)
    return found
