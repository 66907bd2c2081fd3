"""What carries out runs."""

from typing import Protocol

from headrace_core.contracts import Millis


class ExecutorError(Exception):
    """It can't be used by these settings."""


class Executor(Protocol):
    """Carries out what was decided on runs; everything it has to know is read from the table, by whoever leads."""

    async def carry_out(self, now: Millis) -> bool:
        """Do what is due, without waiting for its end; whether a run changed by it."""
        ...
