"""Whether the sample store and samples.v1 hold exactly what a world's truth says."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg
from aiokafka import AIOKafkaConsumer
from headrace_core.contracts import Operation, SampleChange
from headrace_core.runtime.progress import read_progress
from headrace_core.runtime.reader import SequenceReader

from load_tests.streams.world import World

Key = tuple[str, str]


@dataclass(slots=True)
class Folded:
    """samples.v1 as our reader folds it.

    Attributes:
        rows: {(request_id, item_id): (label, version)} after the last change of each.
        faults: changes that do not follow from what came before.
        repeated: records that were dropped because they came again.
        undone: changes that a restore took back.
    """

    rows: dict[Key, tuple[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    repeated: int = 0
    undone: int = 0
    _done: dict[int, list[tuple[int, Key, tuple[int, int] | None]]] = field(default_factory=dict)

    def take(self, source: int, seq: int, change: SampleChange) -> None:
        """Apply the next change of a source."""
        sample = change.sample
        key = (sample.request_id, sample.item_id)
        before = self.rows.get(key)
        label, version = before or (0, 0)
        if sample.version != version + 1:
            self.faults.append(f"{key}: version {sample.version} after {version}")
        if change.operation != (Operation.OPERATION_CORRECT if version else Operation.OPERATION_INSERT):
            self.faults.append(f"{key}: {Operation.Name(change.operation)} at version {sample.version}")
        if change.previous_label != label:
            self.faults.append(f"{key}: previous label {change.previous_label}, was {label}")
        self._done.setdefault(source, []).append((seq, key, before))
        self.rows[key] = (sample.label, sample.version)

    def undo(self, source: int, first: int) -> None:
        """Take back what a source told from a seq on."""
        done = self._done.get(source, [])
        while done and done[-1][0] >= first:
            _, key, before = done.pop()
            self.undone += 1
            if before is None:
                del self.rows[key]
            else:
                self.rows[key] = before


async def fold(kafka: str, until: Mapping[int, tuple[int, int]], deadline_s: float = 120.0) -> Folded:
    """Read samples.v1 from its beginning until our reader has taken the (incarnation, seq) `until` of each source.

    Raises:
        TimeoutError: it did not come; the message tells how far each source got.
    """
    folded, reader = Folded(), SequenceReader()
    consumer = AIOKafkaConsumer("samples.v1", bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    stop = time.monotonic() + deadline_s

    def reached() -> dict[int, tuple[int, int]]:
        return {source: reader.positions.get(source, (0, 0)) for source in until}

    try:
        while any(reached()[source] < position for source, position in until.items() if position[1]):
            if time.monotonic() > stop:
                raise TimeoutError(f"samples.v1 holds seqs up to {reached()}, the table {dict(until)}")
            for records in (await consumer.getmany(timeout_ms=500, max_records=10_000)).values():
                for record in records:
                    taken = reader.take([record])
                    while reader.rewound:
                        source, _, first = reader.rewound.pop()
                        folded.undo(source, first)
                    for r in taken:
                        told = dict(r.headers)
                        folded.take(int(told["source"]), int(told["seq"]), SampleChange.FromString(r.value))
    finally:
        await consumer.stop()
    folded.repeated = reader.repeated
    return folded


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong; everything is empty or zero when the joiner was exact.

    Attributes:
        missing, unexpected: (request_id, item_id) that the table lacks, or has though it should not.
        mislabelled: those with another label than the truth.
        unfolded: those whose fold of samples.v1 differs from the table.
        faults: of the fold.
        open_accounts: partitions whose accounting does not close.
        totals: sums of samples.accounting.
        undone: changes of samples.v1 that a restore took back; none of them is wrong.
    """

    missing: list[Key]
    unexpected: list[Key]
    mislabelled: list[Key]
    unfolded: list[Key]
    faults: list[str]
    open_accounts: list[str]
    totals: dict[str, int]
    undone: int

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return not (
            self.missing or self.unexpected or self.mislabelled or self.unfolded or self.faults or self.open_accounts
        )


async def totals(postgres: str) -> dict[str, int]:
    """Sums of samples.accounting over all partitions."""
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch("SELECT * FROM samples.accounting")
    finally:
        await connection.close()
    sums: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if name != "source_partition":
                sums[name] = sums.get(name, 0) + value
    return sums


async def check(world: World, postgres: str, kafka: str) -> Report:
    """Compare table, change stream and truth; what the table says must come to samples.v1 while this waits."""
    connection = await asyncpg.connect(postgres)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await connection.fetch("SELECT request_id::text, item_id, label, version FROM samples.current")
            accounts = await connection.fetch("SELECT * FROM samples.accounting ORDER BY source_partition")
            progress = await read_progress(connection, "sample-joiner")
    finally:
        await connection.close()
    table = {(r["request_id"], r["item_id"]): (r["label"], r["version"]) for r in rows}
    folded = await fold(kafka, progress.seqs)
    return Report(
        missing=sorted(world.labels.keys() - table.keys()),
        unexpected=sorted(table.keys() - world.labels.keys()),
        mislabelled=sorted(k for k, (label, _) in table.items() if label != world.labels.get(k, label)),
        unfolded=sorted(k for k in table.keys() | folded.rows.keys() if table.get(k) != folded.rows.get(k)),
        faults=folded.faults,
        open_accounts=[
            str(dict(a))
            for a in accounts
            if a["impressions"] != a["joined"] + a["orphaned"] + a["duplicate"] + a["pending"]
            or a["joined"] != a["positive"] + a["negative"]
        ],
        totals=await totals(postgres),
        undone=folded.undone,
    )
