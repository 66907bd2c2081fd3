"""A stream worker as small as can be: joins two topics by key, so that the runtime is tested without a service.

Pairs are emitted when both sides are there; a left side that waits longer than the window is emitted alone.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from headrace_core.runtime.job import Job, Outbox
from headrace_core.runtime.operator import Batch, Output
from headrace_core.runtime.sink import OutboxMessage, Snapshot
from headrace_core.runtime.worker import WorkerSettings, run_worker

WINDOW_MS = 5_000


@dataclass(frozen=True)
class Names:
    """What one run of the probe calls its own."""

    name: str

    @property
    def left(self) -> str:
        return f"probe-left.{self.name}"

    @property
    def right(self) -> str:
        return f"probe-right.{self.name}"

    @property
    def out(self) -> str:
        return f"probe-out.{self.name}"

    @property
    def schema(self) -> str:
        return f"probe_{self.name}"

    @property
    def job(self) -> str:
        return f"probe-{self.name}"

    @property
    def ddl(self) -> str:
        """Tables; rows have no primary key, since what comes twice must show."""
        return f"""
            CREATE SCHEMA {self.schema};
            CREATE TABLE {self.schema}.rows (key text, kind text, partition int);
            CREATE TABLE {self.schema}.changes (day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date, source int,
                seq bigint, key bytea, value bytea, PRIMARY KEY (source, seq, day)) PARTITION BY RANGE (day);
        """


class PairOperator:
    """Pairs left and right sides of a key."""

    def __init__(self, names: Names) -> None:
        self.left, self.right = names.left, names.right
        self.waiting: dict[str, dict[str, int]] = {self.left: {}, self.right: {}}

    def process(self, batch: Batch, out: Output) -> None:
        mine, other = self.waiting[batch.topic], self.waiting[self.right if batch.topic == self.left else self.left]
        for record in batch.records:
            try:
                message = json.loads(record.value or b"")
            except ValueError as error:
                out.reject(batch.topic, record, f"not JSON: {error}")
                continue
            out.observe(message["t"])
            if "k" not in message:  # moves time only
                continue
            if other.pop(message["k"], None) is not None:
                out.emit((message["k"], "pair"))
            else:
                mine[message["k"]] = message["t"]

    def advance(self, watermark: int, out: Output) -> None:
        left = self.waiting[self.left]
        for key in [k for k, t in left.items() if t + WINDOW_MS <= watermark]:
            del left[key]
            out.emit((key, "alone"))

    def flush(self, out: Output) -> None:
        """Everything was emitted at once."""

    def changes(self) -> bytes | None:
        return msgspec.msgpack.encode(self.waiting)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.waiting)

    def restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> None:
        for data in ([snapshot] if snapshot else []) + list(changes):
            self.waiting = msgspec.msgpack.decode(data)


class RowSink:
    """Rows into Postgres, and one message each."""

    def __init__(self, names: Names) -> None:
        self.schema = names.schema

    async def open(self) -> None:
        """Nothing of its own to connect."""

    async def close(self) -> None:
        """Nothing of its own to let go."""

    async def before_commit(self, snapshots: Sequence[Snapshot]) -> None:
        """Nothing outside of the transaction."""

    async def in_transaction(self, connection: Any, snapshots: Sequence[Snapshot]) -> Sequence[OutboxMessage]:
        rows = [(key, kind, s.partition) for s in snapshots for key, kind in s.effects]
        await connection.copy_records_to_table("rows", schema_name=self.schema, records=rows)
        return [OutboxMessage(partition, key.encode(), kind.encode()) for key, kind, partition in rows]


def main() -> None:
    settings = WorkerSettings()
    names = Names(os.environ["PROBE"])
    job = Job(
        name=names.job,
        inputs=(names.left, names.right),
        operator=lambda _: PairOperator(names),
        sink=RowSink(names),
        outbox=Outbox(f"{names.schema}.changes", names.out),
        lateness_ms=settings.lateness_ms,
    )
    run_worker(job.name, settings, [job])


if __name__ == "__main__":
    main()
