"""The gateway's one idempotent producer, made anew when it has failed for good."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from headrace_core.runtime.kafka_clients import COMPRESSION, connection
from headrace_core.settings import KafkaSettings

from headrace_gateway.essential import essential_task

log = logging.getLogger(__name__)

#: Below the broker's message.max.bytes (1 MiB), so that a full batch is always taken.
MAX_BATCH_BYTES: Final = 960 * 1024

#: What one record may hold, so that it fits in a batch with its overhead.
MAX_RECORD_BYTES: Final = MAX_BATCH_BYTES - 1024

_RETRY_SECONDS: Final = 0.5
_PROBE_SECONDS: Final = 1.0
_PROBE_TIMEOUT_SECONDS: Final = 3.0
_STOP_SECONDS: Final = 5.0
_SILENT: Final = "no broker answers"


class KafkaAwayError(Exception):
    """Kafka can't be written to; the message says why."""


class ProducerHost:
    """Holds the producer of the moment.

    aiokafka sends again by itself whatever a broker that went away did not acknowledge, under the same sequence numbers. A
    fatal error (fenced, sequence out of order) instead ends its sender for good and every later batch fails: then the
    producer is thrown away and a new one, with a new producer id, takes its place.

    Args:
        settings: where Kafka is.
        topics: those that must exist before anything is sent.
        request_timeout_ms: longest wait for a broker's answer.
    """

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], request_timeout_ms: int) -> None:
        self._settings, self._topics, self._request_timeout_ms = settings, topics, request_timeout_ms
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, list[int]] = {}
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: set[asyncio.Task[None]] = set()
        self.away: str | None = "not connected yet"

    def start(self) -> None:
        """Connect in the background, for as long as it takes."""
        self._changed.set()
        self._tasks = [
            essential_task(self._keep_one(), "kafka producer"),
            essential_task(self._keep_asking(), "kafka probe"),
        ]

    async def connected(self) -> None:
        """Wait until Kafka has answered once; from then on `partitions` knows every topic."""
        await self._connected.wait()

    async def stop(self) -> None:
        """Close the producer; what it holds is sent if Kafka answers in time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            self._retire(self._producer)
            self._producer = None
        if self._retired:
            await asyncio.wait(self._retired, timeout=2 * _STOP_SECONDS)

    def current(self) -> AIOKafkaProducer:
        """The producer.

        Raises:
            KafkaAwayError: none is connected.
        """
        if self._producer is None:
            raise KafkaAwayError(self.away or "not connected")
        return self._producer

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic, in order.

        Raises:
            KafkaAwayError: nothing is known of it yet.
        """
        try:
            return self._partitions[topic]
        except KeyError:
            raise KafkaAwayError(self.away or "not connected") from None

    def replace(self, failed: AIOKafkaProducer, error: BaseException) -> None:
        """Throw away a producer that failed; told twice of the same one, do it once."""
        if failed is not self._producer:
            return
        log.error("the producer failed and is replaced", extra={"fields": {"error": repr(error)}})
        self._retire(failed)
        self._producer, self.away = None, repr(error)
        self._changed.set()

    def _retire(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.get_running_loop().create_task(_close(producer))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _keep_one(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._producer is None:
                try:
                    self._producer = await self._connect()
                except (KafkaError, OSError, TimeoutError) as error:
                    if repr(error) != self.away:
                        log.warning("Kafka is away", extra={"fields": {"error": repr(error)}})
                    self.away = repr(error)
                    await asyncio.sleep(_RETRY_SECONDS)
            self.away = None
            self._connected.set()

    async def _keep_asking(self) -> None:
        """Ask for metadata now and then, so that `away` is true also while nobody writes."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            producer = self._producer
            if producer is None:
                continue
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                    answered = await producer.client.force_metadata_update()
            except TimeoutError:
                answered = False
            if producer is not self._producer:
                continue
            if answered and self.away is not None:
                log.info("Kafka is back")
            elif not answered and self.away is None:
                log.warning("Kafka is away", extra={"fields": {"error": _SILENT}})
            self.away = None if answered else _SILENT

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **connection(self._settings),
            client_id="headrace-gateway",
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            linger_ms=0,
            compression_type=COMPRESSION,
            request_timeout_ms=self._request_timeout_ms,
            # An outage must not be followed by minutes with yesterday's leaders.
            metadata_max_age_ms=30_000,
        )
        try:
            async with asyncio.timeout(self._request_timeout_ms / 1000):
                await producer.start()
                for topic in self._topics:
                    self._partitions[topic] = sorted(await producer.partitions_for(topic))
        except BaseException:
            await _close(producer)
            raise
        return producer


async def _close(producer: AIOKafkaProducer) -> None:
    # One whose broker is away never ends flushing.
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _STOP_SECONDS)
