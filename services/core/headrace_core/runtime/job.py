"""What a worker runs."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace_core.runtime.operator import Operator
from headrace_core.runtime.sink import Sink


@dataclass(frozen=True, slots=True)
class Outbox:
    """A Kafka output with a dense sequence per source partition.

    Attributes:
        table: append-only table (day, source, seq, key, value, created_at), partitioned by day.
        topic: where the rows are published.
    """

    table: str
    topic: str


@dataclass(frozen=True, slots=True)
class Job:
    """One operator over co-partitioned inputs.

    Attributes:
        name: names its checkpoints and metrics; unique in the platform.
        inputs: topics with equal partition counts; partition n of all of them feeds operator n.
        operator: makes the operator of a partition, without state.
        sink: where its effects go.
        outbox: where messages of the sink go, if it makes any.
        lateness_ms: how much later than the newest an event may come.
        drift_ms: in catch-up, how far one input may lead another; the settings may allow less.
        lacking: asked at a claim, for a job without state whose inputs are compacted: the partitions whose values are
            gone from the store outside, so that their inputs are read from the beginning again.
    """

    name: str
    inputs: tuple[str, ...]
    operator: Callable[[int], Operator]
    sink: Sink
    outbox: Outbox | None = None
    lateness_ms: int = 10_000
    drift_ms: int | None = None
    lacking: Callable[[Sequence[int]], Awaitable[set[int]]] | None = None
