"""Time as the platform writes it."""

from typing import TypeAlias

#: Milliseconds since the epoch, UTC.
Millis: TypeAlias = int
