"""The log of what served: one message per answer, sent in the background.

An answer does not wait for Kafka. What is buffered when the process is killed is lost: at most the last flush interval, and the
joiner counts its impressions as orphans. While Kafka is away logs wait, up to the bound; then the oldest are dropped and counted.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from headrace_core.contracts import Fallback, FeatureLog, LoggedItem, Millis
from headrace_core.telemetry import DEGRADED, EVENTS, STAGE_SECONDS

from headrace_gateway.essential import essential_task
from headrace_gateway.ranking.features import Features
from headrace_gateway.ranking.schema import WITHOUT_MODEL, RankedAnswer
from headrace_gateway.stores.kafka_producer import MAX_RECORD_BYTES
from headrace_gateway.stores.kafka_writer import KafkaWriter, NotAcknowledgedError, OverloadedError, Record

log = logging.getLogger(__name__)

TOPIC: Final = "feature-logs.v1"

_CHUNK: Final = 200
_RETRY_SECONDS: Final = 0.5
_JSON: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Served:
    """All that an answer came from.

    Attributes:
        answer: as it was sent.
        user_id: who asked.
        page_id: for which page.
        event_time: when it was answered, ms since the epoch.
        features: of the user, the request and the items.
        missing: (what, why) that had to be replaced by defaults.
        propensities: by item, of those that chance had a hand in.
    """

    answer: RankedAnswer
    user_id: str
    page_id: str
    event_time: Millis
    features: Features
    missing: Sequence[tuple[str, str]] = ()
    propensities: Mapping[str, float] = field(default_factory=dict)


def encode(served: Served) -> Record:
    """The message; its features are JSON objects (docs/adr/0003)."""
    answer, features = served.answer, served.features
    fallbacks = [("model", reason) for reason in answer.degraded if reason in WITHOUT_MODEL]
    fallbacks += served.missing
    message = FeatureLog(
        request_id=answer.request_id,
        user_id=served.user_id,
        event_time=served.event_time,
        page_id=served.page_id,
        model=answer.model,
        model_version=answer.model_version,
        feature_set_version=answer.feature_set_version,
        user_features=_JSON.encode(features.user),
        context_features=_JSON.encode(features.context),
        items=[
            LoggedItem(
                item_id=item.item_id,
                position=item.position,
                score=item.score,
                propensity=served.propensities.get(item.item_id, 1.0),
                source=item.source,
                features=_JSON.encode(features.item(item.item_id)),
            )
            for item in answer.items
        ],
        fallbacks=[Fallback(what=what, reason=reason) for what, reason in fallbacks],
    )
    return Record(served.user_id.encode(), message.SerializeToString())


class FeatureLogger:
    """Sends feature logs in the background.

    Args:
        writer: of feature-logs.v1.
        max_buffered: logs that may wait.
        flush_seconds: longest wait before they are sent.
    """

    def __init__(self, writer: KafkaWriter, *, max_buffered: int, flush_seconds: float) -> None:
        self._writer, self._max, self._flush_seconds = writer, max_buffered, flush_seconds
        self._buffer: deque[Served | Record] = deque()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send from now on."""
        self._task = essential_task(self._run(), "feature logs")

    def offer(self, served: Served) -> None:
        """Log an answer; never waits."""
        if len(self._buffer) >= self._max:
            self._buffer.popleft()
            DEGRADED.labels("feature_log_dropped").inc()
        self._buffer.append(served)
        self._wake.set()

    async def stop(self, grace_seconds: float) -> None:
        """Send what is left, for so long at most; what can't be sent by then is counted."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=grace_seconds)
            if not done:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
        if self._buffer:
            DEGRADED.labels("feature_log_dropped").inc(len(self._buffer))
            log.error("feature logs were dropped at the stop", extra={"fields": {"logs": len(self._buffer)}})

    async def _run(self) -> None:
        while self._buffer or not self._stopping.is_set():
            await self._wake.wait()
            if not self._stopping.is_set():
                self._wake.clear()
                # A few answers share a request to Kafka; nothing waits longer than the interval.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._flush_seconds / 2)
            while self._buffer:
                await self._send_chunk()

    async def _send_chunk(self) -> None:
        chunk = [self._buffer.popleft() for _ in range(min(_CHUNK, len(self._buffer)))]
        records: list[Record] = []
        started = time.perf_counter()
        for n, served in enumerate(chunk):
            record = served if isinstance(served, Record) else encode(served)
            if len(record.value) > MAX_RECORD_BYTES - len(record.key):
                DEGRADED.labels("feature_log_too_large").inc()
                log.error("a feature log is too large for Kafka", extra={"fields": {"bytes": len(record.value)}})
            else:
                records.append(record)
            if n % 20 == 19:
                await asyncio.sleep(0)  # requests go first
        STAGE_SECONDS.labels("encode_feature_logs").observe(time.perf_counter() - started)
        unsent: list[Record] = records
        try:
            await self._writer.write(records)
            unsent = []
        except NotAcknowledgedError as error:
            acknowledged = set(error.acknowledged)
            unsent = [r for n, r in enumerate(records) if n not in acknowledged]
        except OverloadedError:
            pass
        finally:  # also when the process stops meanwhile: what is left is counted
            EVENTS.labels("gateway", TOPIC).inc(len(records) - len(unsent))
            self._put_back(unsent)
        if unsent:
            await asyncio.sleep(_RETRY_SECONDS)

    def _put_back(self, records: list[Record]) -> None:
        dropped = max(0, len(records) + len(self._buffer) - self._max)
        if dropped:
            DEGRADED.labels("feature_log_dropped").inc(dropped)
        self._buffer.extendleft(reversed(records[dropped:]))
