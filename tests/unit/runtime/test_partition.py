from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace_core.runtime.operator import Batch, Output
from headrace_core.runtime.partition import Partition, Position


@dataclass(frozen=True)
class ARecord:
    offset: int
    time: int = 0
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""


@dataclass
class Recorder:
    """An operator that notes what it is told."""

    processed: list[tuple[str, int]] = field(default_factory=list)
    advanced: list[int] = field(default_factory=list)

    def process(self, batch: Batch, out: Output) -> None:
        for record in batch.records:
            assert isinstance(record, ARecord)
            self.processed.append((batch.topic, record.offset))
            out.observe(record.time)
            out.emit(record.offset)

    def advance(self, watermark: int, out: Output) -> None:
        self.advanced.append(watermark)
        out.emit(f"timer {watermark}")

    def flush(self, out: Output) -> None:
        out.emit("flushed")

    def changes(self) -> bytes | None:
        return b"changes"

    def snapshot(self) -> bytes:
        return b"snapshot"

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        raise AssertionError


def a_partition(operator: Recorder, offsets: dict[str, int] | None = None) -> Partition:
    return Partition(3, ["a", "b"], operator, Position(1, 0, offsets or {}, {}, None), lateness_ms=10)


def test_records_that_the_state_holds_already_are_skipped() -> None:
    operator = Recorder()
    partition = a_partition(operator, {"a": 5})

    partition.feed("a", [ARecord(3), ARecord(4), ARecord(5), ARecord(6)])
    partition.feed("a", [ARecord(4)])

    assert operator.processed == [("a", 5), ("a", 6)]
    assert partition.offsets["a"] == 7


def test_operator_advances_with_its_slowest_input() -> None:
    operator = Recorder()
    partition = a_partition(operator)

    partition.feed("a", [ARecord(0, time=100)])
    partition.feed("b", [ARecord(0, time=50)])
    partition.feed("b", [ARecord(1, time=200)])

    assert operator.advanced == [40, 90]


def test_input_without_any_event_holds_back_until_it_is_idle() -> None:
    operator = Recorder()
    partition = a_partition(operator)
    partition.feed("a", [ARecord(0, time=100)])

    def only_b_is_caught_up(topic: str, _partition: int, _offset: int) -> bool:
        return topic == "b"

    partition.tick(only_b_is_caught_up, idle_after_ms=1_000, monotonic_ms=0, now=10_000)
    before = list(operator.advanced)
    partition.tick(only_b_is_caught_up, idle_after_ms=1_000, monotonic_ms=1_000, now=10_000)

    assert before == []
    assert operator.advanced == [90]


def test_drain_hands_everything_over_once_and_counts_checkpoints() -> None:
    partition = a_partition(Recorder())
    partition.feed("a", [ARecord(0, time=100)])

    first = partition.drain(whole=False)
    partition.feed("a", [ARecord(1, time=100)])
    second = partition.drain(whole=True)

    assert first.snapshot.effects == [0, "flushed"]
    assert second.snapshot.effects == [1, "flushed"]
    assert (first.snapshot.number, second.snapshot.number) == (1, 2)
    assert second.snapshot.version > first.snapshot.version
    assert (first.state, second.state) == (b"changes", b"snapshot")
    assert second.snapshot.offsets == {"a": 2}
    assert not partition.has_changes()
