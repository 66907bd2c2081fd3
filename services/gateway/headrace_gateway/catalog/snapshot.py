"""The items that may be recommended, kept in memory: candidates when no ranked list has enough.

It is built from items.v1 read from the beginning (compacted, so as long as the catalog, not as its history), and follows it. So it
needs no index in Redis that could go out of step, and survives restarts of everything.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from google.protobuf.message import DecodeError
from headrace_core.contracts import Item
from headrace_core.runtime.kafka_clients import connection
from headrace_core.settings import KafkaSettings
from headrace_core.telemetry import DEAD_LETTERS
from prometheus_client import Gauge

from headrace_gateway.catalog.entries import ItemEntry
from headrace_gateway.essential import essential_task
from headrace_gateway.stores.kafka_producer import ProducerHost

log = logging.getLogger(__name__)

_ITEMS: Final = Gauge("headrace_gateway_snapshot_items", "Items kept as candidates of last resort.")
_LEFT_OUT: Final = Gauge("headrace_gateway_snapshot_left_out", "Items the catalog tells that did not fit in.")
_RETRY_SECONDS: Final = 1.0


class _Kept(NamedTuple):
    item_type: str
    category: str
    version: int


class ItemSnapshot:
    """Available items by type and category, newest last.

    Args:
        max_items: beyond it new items are left out and counted.
    """

    def __init__(self, max_items: int) -> None:
        self._max = max_items
        self._items: dict[str, _Kept] = {}
        self._gone: dict[str, int] = {}
        self._groups: dict[tuple[str, str], dict[str, None]] = {}
        self._left_out = 0

    def __len__(self) -> int:
        return len(self._items)

    def apply(self, item_id: str, item: Item | None, version: int) -> None:
        """Take an entry of items.v1; one older than what is known changes nothing, so both ways in may overlap.

        Args:
            item_id: the record's key.
            item: None removes it.
            version: its Kafka offset. Entries of one item share a partition, so offsets compare.
        """
        old = self._items.get(item_id)
        if version <= (old.version if old is not None else self._gone.get(item_id, -1)):
            return
        if item is None or not item.available:
            if old is not None:
                self._remove(item_id, old)
            self._remember_gone(item_id, version)
        elif old is not None and (old.item_type, old.category) == (item.item_type, item.category):
            self._items[item_id] = old._replace(version=version)
        elif old is None and len(self._items) >= self._max:
            self._left_out += 1
            _LEFT_OUT.set(self._left_out)
        else:
            if old is not None:
                self._remove(item_id, old)
            self._gone.pop(item_id, None)
            self._items[item_id] = _Kept(item.item_type, item.category, version)
            self._groups.setdefault((item.item_type, item.category), {})[item_id] = None
        _ITEMS.set(len(self._items))

    def standing(self, item_id: str) -> ItemEntry | None:
        """What is known of an item, without its attributes; None when nothing is."""
        if (kept := self._items.get(item_id)) is not None:
            return ItemEntry(kept.item_type, kept.category)
        return ItemEntry(available=False) if item_id in self._gone else None

    def may_be(self, item_id: str, item_type: str | None, categories: Collection[str] | None) -> bool:
        """Whether an item is available and fits, or nothing is known of it."""
        kept = self._items.get(item_id)
        if kept is None:
            return item_id not in self._gone
        return (item_type is None or item_type == kept.item_type) and (
            categories is None or kept.category in categories
        )

    def holds(self, item_id: str, item_type: str | None, categories: Collection[str] | None) -> bool:
        """Whether an item is known to be available and fits."""
        return item_id in self._items and self.may_be(item_id, item_type, categories)

    def count(self, item_type: str | None, categories: Collection[str] | None) -> int:
        """How many available items fit."""
        return sum(len(members) for members in self._fitting(item_type, categories))

    def nth(self, n: int, item_type: str | None, categories: Collection[str] | None) -> str:
        """One of the available items that fit, by its number from 0."""
        for members in self._fitting(item_type, categories):
            if n < len(members):
                return next(islice(members, n, None))
            n -= len(members)
        raise IndexError(n)

    def _fitting(self, item_type: str | None, categories: Collection[str] | None) -> Iterator[dict[str, None]]:
        for (kind, category), members in self._groups.items():
            if item_type in (None, kind) and (categories is None or category in categories):
                yield members

    def categories(self, item_type: str | None, limit: int) -> list[str]:
        """Categories with most items first."""
        sizes: dict[str, int] = {}
        for (kind, category), members in self._groups.items():
            if item_type is None or kind == item_type:
                sizes[category] = sizes.get(category, 0) + len(members)
        sizes.pop("", None)
        return sorted(sizes, key=lambda c: (-sizes[c], c))[:limit]

    def newest(self, item_type: str | None, categories: Collection[str] | None) -> Iterator[str]:
        """Available items that fit, newest of each group first, groups in turn so that none crowds out the others."""
        groups = [
            reversed(members)
            for (kind, category), members in self._groups.items()
            if (item_type is None or kind == item_type) and (categories is None or category in categories)
        ]
        while groups:
            going_on = []
            for group in groups:
                if (item_id := next(group, None)) is not None:
                    yield item_id
                    going_on.append(group)
            groups = going_on

    def _remove(self, item_id: str, kept: _Kept) -> None:
        del self._items[item_id]
        group = self._groups[kept.item_type, kept.category]
        del group[item_id]
        if not group:
            del self._groups[kept.item_type, kept.category]

    def _remember_gone(self, item_id: str, version: int) -> None:
        # Needed only while an older entry may still be on its way from Kafka: the newest ones are enough.
        self._gone.pop(item_id, None)
        self._gone[item_id] = version
        if len(self._gone) > self._max:
            del self._gone[next(iter(self._gone))]


class SnapshotFeed:
    """Follows items.v1 into a snapshot, from the beginning, for as long as the process lives."""

    def __init__(self, snapshot: ItemSnapshot, host: ProducerHost, settings: KafkaSettings, topic: str) -> None:
        """Fill `snapshot` from `topic`, whose partitions `host` knows."""
        self._snapshot, self._host, self._settings, self._topic = snapshot, host, settings, topic
        self._task: asyncio.Task[None] | None = None
        self.caught_up = asyncio.Event()

    def start(self) -> None:
        """Read in the background."""
        self._task = essential_task(self._run(), "items snapshot")

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._host.connected()
            consumer = AIOKafkaConsumer(
                **connection(self._settings),
                client_id="headrace-gateway-items",
                group_id=None,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                fetch_max_wait_ms=self._settings.kafka_fetch_wait_ms,
                request_timeout_ms=self._settings.kafka_request_timeout_ms,
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, OSError) as error:
                log.warning("items can't be read", extra={"fields": {"topic": self._topic, "error": repr(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        # Not subscribe: without a group each gateway reads every partition for itself.
        partitions = [TopicPartition(self._topic, n) for n in self._host.partitions(self._topic)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while True:
            for batch in (await consumer.getmany(timeout_ms=500, max_records=2_000)).values():
                for record in batch:
                    self._apply(record.key, record.value, record.offset)
                await asyncio.sleep(0)  # a long catalog must not hold up requests
            if not self.caught_up.is_set() and all([await consumer.position(p) >= ends[p] for p in partitions]):
                self.caught_up.set()
                log.info("items are loaded", extra={"fields": {"items": len(self._snapshot)}})

    def _apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        try:
            item_id = (key or b"").decode()
            item = Item.FromString(value) if value else None
        except (UnicodeDecodeError, DecodeError):
            # The catalog loader sets the record aside; here it is only passed over.
            DEAD_LETTERS.labels(self._topic, "undecodable").inc()
            return
        if item_id:
            self._snapshot.apply(item_id, item, offset)
