"""Waiting for a condition of another process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]], what: str, deadline_s: float = 60.0) -> T:
    """What `look` finds, when it is neither None nor empty nor False.

    Raises:
        TimeoutError: it found nothing in time.
    """
    async with asyncio.timeout(deadline_s) as limit:
        try:
            while not (found := await look()):
                await asyncio.sleep(0.05)
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"{what}: not within {deadline_s} s") from None
            raise
    return found
