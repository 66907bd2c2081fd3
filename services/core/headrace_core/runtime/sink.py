"""Where effects go: what a job does inside, before and after the transaction of a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from headrace_core.contracts.time import Millis

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: Bits of a packed version: claim epoch above, checkpoint number below; 63 bits in all, so it stays a positive int64.
NUMBER_BITS: Final = 40


def pack_version(epoch: int, number: int) -> int:
    """Version of everything one checkpoint writes outside of its transaction.

    It grows with every checkpoint and, across owners, with every claim. A counter per operator would not do: a replay
    batches differently and could end lower than what the dead run had written.
    """
    return epoch << NUMBER_BITS | number


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One partition's share of a checkpoint.

    Attributes:
        partition: number of the partition.
        epoch: the claim under which it was made.
        number: of the checkpoint within the claim, from 1.
        effects: what the operator emitted since the last checkpoint.
        watermark: of the operator, ms since the epoch.
        watermarks: of each input.
        offsets: next offset of each input.
    """

    partition: int
    epoch: int
    number: int
    effects: Sequence[Any]
    watermark: Millis
    watermarks: dict[str, Millis] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Version for absolute values written from this checkpoint."""
        return pack_version(self.epoch, self.number)


class OutboxMessage(msgspec.Struct, frozen=True, gc=False):
    """A Kafka message that must appear exactly once and in order for our reader.

    Attributes:
        partition: source partition, which is also the target partition.
        key: key of the record.
        value: value of the record.
    """

    partition: int
    key: bytes
    value: bytes


class Sink(Protocol):
    """Adapter between a job's effects and the stores. One per job and process."""

    async def open(self) -> None:
        """Connect; called once before the first claim."""

    async def close(self) -> None:
        """Let go of connections."""

    async def before_commit(self, snapshots: Sequence[Snapshot]) -> None:
        """Write absolute values that carry `Snapshot.version`; repeated after a crash, so it must be idempotent."""

    async def in_transaction(
        self, connection: "PoolConnectionProxy[Any]", snapshots: Sequence[Snapshot]
    ) -> Sequence[OutboxMessage]:
        """Write SQL rows that commit with the offsets; give back the messages for the outbox, in order.

        The whole transaction is tried again when the store fails, so nothing outside of it may change here.
        """
