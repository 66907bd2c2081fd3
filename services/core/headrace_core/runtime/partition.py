"""One partition at work: operator, offsets, watermarks and what came out since the last checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace_core.contracts.time import Millis
from headrace_core.runtime.operator import Batch, Operator, Output, Record, Rejected
from headrace_core.runtime.sink import Snapshot
from headrace_core.runtime.watermark import InputWatermark


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition stood at its last checkpoint.

    Attributes:
        epoch: of the claim.
        number: of the checkpoint within the claim, 0 before the first.
        offsets: next offset of each input; an input that is missing starts at its beginning.
        watermarks: of each input; an input that is missing has seen no event.
        watermark: the operator's, None before the first event.
    """

    epoch: int
    number: int
    offsets: dict[str, int]
    watermarks: dict[str, Millis]
    watermark: Millis | None


@dataclass(frozen=True, slots=True)
class Drained:
    """What a partition adds to a checkpoint.

    Attributes:
        snapshot: the part that sinks see.
        rejected: records for the dead-letter topic.
        state: new state, None if unchanged.
        whole: whether `state` replaces everything before it.
    """

    snapshot: Snapshot
    rejected: Sequence[Rejected]
    state: bytes | None
    whole: bool


class Partition:
    """Feeds one operator and remembers how far it is. No I/O."""

    def __init__(
        self, number: int, inputs: Sequence[str], operator: Operator, position: Position, lateness_ms: int
    ) -> None:
        """Go on from `position`; the operator's state is restored by the caller."""
        self.number = number
        self.operator = operator
        self.epoch = position.epoch
        self.checkpoint = position.number
        self.offsets = dict(position.offsets)
        self.clocks = {t: InputWatermark(lateness_ms, position.watermarks.get(t)) for t in inputs}
        self.watermark = position.watermark
        self.rows = 0
        self._out = Output()
        self._dirty = False

    def feed(self, topic: str, records: Sequence[Record]) -> None:
        """Process the next records of one input; those that the state holds already are skipped."""
        expected = self.offsets.get(topic, 0)
        if records[0].offset < expected:
            records = [r for r in records if r.offset >= expected]
            if not records:
                return
        out = self._out
        out.observed = None
        self.operator.process(Batch(topic, self.number, records), out)
        self.offsets[topic] = records[-1].offset + 1
        if out.observed is not None:
            self.clocks[topic].observe(out.observed)
        self.rows += len(records)
        self._dirty = True
        self._advance()

    def tick(
        self, caught_up: Callable[[str, int, int], bool], *, idle_after_ms: int, monotonic_ms: int, now: Millis
    ) -> None:
        """Let time pass on quiet inputs and fire the timers that are due.

        Args:
            caught_up: tells for (topic, partition, next offset) whether an empty fetch confirmed that it is the end.
            idle_after_ms: how long an input has to be quiet.
            monotonic_ms: a clock that never jumps.
            now: ms since the epoch.
        """
        for topic, clock in self.clocks.items():
            end = caught_up(topic, self.number, self.offsets.get(topic, 0))
            clock.tick(caught_up=end, idle_after_ms=idle_after_ms, monotonic_ms=monotonic_ms, now=now)
        self._advance(lambda clock: clock.is_idle(idle_after_ms, monotonic_ms))

    def pending(self) -> int:
        """Effects waiting for a checkpoint."""
        return len(self._out.effects)

    def has_changes(self) -> bool:
        """Whether a checkpoint would say anything new."""
        return self._dirty

    def touch(self) -> None:
        """Ask for a checkpoint though nothing came."""
        self._dirty = True

    def drain(self, *, whole: bool) -> Drained:
        """Hand over what came out and what changed since the last call.

        Args:
            whole: ask for the whole state instead of its changes.
        """
        out = self._out
        self.operator.flush(out)
        self._out, self._dirty, self.rows = Output(), False, 0
        self.checkpoint += 1
        snapshot = Snapshot(
            partition=self.number,
            epoch=self.epoch,
            number=self.checkpoint,
            effects=out.effects,
            watermark=self.watermark if self.watermark is not None else 0,
            watermarks={t: c.value for t, c in self.clocks.items() if c.value is not None},
            offsets=dict(self.offsets),
        )
        state = self.operator.snapshot() if whole else self.operator.changes()
        return Drained(snapshot, out.rejected, state, whole)

    def _advance(self, is_idle: Callable[[InputWatermark], bool] | None = None) -> None:
        """Move the operator's watermark to the minimum over its inputs, if that is forward.

        An input that never had an event holds the others back until it is known to be idle.
        """
        low: Millis | None = None
        for clock in self.clocks.values():
            if clock.value is None:
                if is_idle is not None and is_idle(clock):
                    continue
                return
            if low is None or clock.value < low:
                low = clock.value
        if low is not None and (self.watermark is None or low > self.watermark):
            self.watermark = low
            self._dirty = True
            self.operator.advance(low, self._out)
