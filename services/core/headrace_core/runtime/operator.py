"""What a stream operator is: pure logic over one partition, without I/O, clock or randomness.

The runtime feeds it, persists its changes together with offsets and outputs, and gives its effects to a sink. The same
operator runs in tests, in the worker and in backfill.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace_core.contracts.time import Millis


class Record(Protocol):
    """A Kafka record, as aiokafka's ConsumerRecord has it; values stay bytes until the operator decodes them."""

    @property
    def offset(self) -> int:
        """Offset in its partition."""

    @property
    def timestamp(self) -> Millis:
        """Time the producer or broker gave it."""

    @property
    def key(self) -> bytes | None:
        """Key as written."""

    @property
    def value(self) -> bytes | None:
        """Value as written; None is a tombstone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one input partition.

    Attributes:
        topic: which input they come from.
        partition: number of the partition, the same for all inputs of an operator.
        records: at least one, offsets ascending.
    """

    topic: str
    partition: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that nobody can use, on its way to the dead-letter topic.

    Attributes:
        topic: where it came from.
        record: the record itself.
        reason: why, as a person would say it.
    """

    topic: str
    record: Record
    reason: str


@dataclass(slots=True)
class Output:
    """What an operator gives out between two checkpoints.

    Attributes:
        effects: values that the job's sink understands, in the order they were emitted.
        rejected: records for the dead-letter topic.
        observed: highest min(event_time, ingest_time) of the batch being processed; the runtime makes the
            watermark of the input from it.
    """

    effects: list[Any] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    observed: Millis | None = None

    def emit(self, effect: object) -> None:
        """Hand one effect to the sink of the job."""
        self.effects.append(effect)

    def reject(self, topic: str, record: Record, reason: str) -> None:
        """Set a record aside that cannot be used; the partition goes on."""
        self.rejected.append(Rejected(topic, record, reason))

    def observe(self, time: Millis) -> None:
        """Tell the time of a record: min(event_time, ingest_time), so that one wrong clock closes no window."""
        if self.observed is None or time > self.observed:
            self.observed = time


class Operator(Protocol):
    """Logic of one partition. Deterministic: the same calls give the same effects and state."""

    def process(self, batch: Batch, out: Output) -> None:
        """Take the next records of one input; call `out.observe` with their times."""

    def advance(self, watermark: Millis, out: Output) -> None:
        """No earlier event is expected on any input: fire the timers that are due."""

    def flush(self, out: Output) -> None:
        """A checkpoint is about to drain the effects: emit what was only marked as changed until now."""

    def changes(self) -> bytes | None:
        """State changed since the last call of `changes` or `snapshot`, None if nothing did."""

    def snapshot(self) -> bytes:
        """The whole state; replaces everything before it."""

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        """Take over the state of a snapshot and the changes after it, oldest first. Called once, before `process`."""
