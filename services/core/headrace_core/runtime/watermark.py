"""Watermarks: until when no earlier event is expected."""

from headrace_core.contracts.time import Millis


class InputWatermark:
    """Watermark of one input partition; it never goes back.

    Attributes:
        value: no event earlier than this is expected; None before the first event.
        idle_since: monotonic ms from which the input counts as idle, None while it does not.
    """

    __slots__ = ("_idle_mark", "_lateness", "idle_since", "value")

    def __init__(self, lateness_ms: int, value: Millis | None = None) -> None:
        """Allow events to come `lateness_ms` after the newest; go on from `value`."""
        self._lateness = lateness_ms
        self.value = value
        self.idle_since: int | None = None
        self._idle_mark = 0

    def observe(self, time: Millis) -> None:
        """An event of this time was read."""
        self.idle_since = None
        mark = time - self._lateness
        if self.value is None or mark > self.value:
            self.value = mark

    def tick(self, *, caught_up: bool, idle_after_ms: int, monotonic_ms: int, now: Millis) -> None:
        """Let time pass on a quiet input.

        It advances by the time elapsed and does not jump to now: after a pause of the broker in a replay nothing is
        late. It never passes now - lateness.

        Args:
            caught_up: a fetch succeeded since the last event, was empty, and the position is the end offset.
            idle_after_ms: how long it has to be so before it counts.
            monotonic_ms: a clock that never jumps.
            now: ms since the epoch.
        """
        if not caught_up:
            self.idle_since = None
            return
        if self.idle_since is None:
            self.idle_since = monotonic_ms
        start = self.idle_since + idle_after_ms
        if monotonic_ms < start:
            self._idle_mark = start
            return
        elapsed = monotonic_ms - max(self._idle_mark, start)
        self._idle_mark = monotonic_ms
        if self.value is not None and elapsed > 0:
            self.value = max(self.value, min(self.value + elapsed, now - self._lateness))

    def is_idle(self, idle_after_ms: int, monotonic_ms: int) -> bool:
        """Whether the input has been quiet for long enough."""
        return self.idle_since is not None and monotonic_ms >= self.idle_since + idle_after_ms
