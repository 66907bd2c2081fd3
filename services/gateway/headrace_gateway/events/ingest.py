"""POST /v1/events: judged, enriched, and in Kafka before it is answered."""

import time
from collections.abc import Callable
from typing import Final

from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent, Enrichment, Millis
from headrace_core.telemetry import DEGRADED, EVENTS, FRESHNESS_SECONDS, REJECTED, STAGE_SECONDS

from headrace_gateway.catalog.entries import NO_ITEM, NO_USER
from headrace_gateway.catalog.lookup import CatalogLookup, Known
from headrace_gateway.events.judge import Bounds, Judged, judge
from headrace_gateway.events.schema import EventIn, EventsAccepted, Rejected
from headrace_gateway.problem import ProblemError, invalid
from headrace_gateway.stores.kafka_writer import KafkaWriter, NotAcknowledgedError, OverloadedError, Record
from headrace_gateway.stores.redis_reader import RedisAwayError

TOPIC: Final = "behavior-events.v1"

# Bound once: finding a label anew costs as much as the observation.
_TAKEN: Final = EVENTS.labels("gateway", TOPIC)
_FRESHNESS: Final = FRESHNESS_SECONDS.labels("ingest")
_PRODUCE: Final = STAGE_SECONDS.labels("produce_events")
_ENCODE: Final = STAGE_SECONDS.labels("encode_events")
_ENRICH: Final = STAGE_SECONDS.labels("enrich")

_NO_CATALOG: Final = Known({}, {})


class Ingest:
    """Takes events.

    Args:
        writer: of behavior-events.v1.
        lookup: of the catalog.
        bounds: what events must keep to.
        max_event_bytes: largest event on the wire.
        enrich_deadline_seconds: how long the catalog may take.
        retry_after_seconds: what a caller is told when Kafka is away.
        now_ms: the clock.
    """

    def __init__(  # noqa: PLR0913  # each is a collaborator or a bound of its own
        self,
        writer: KafkaWriter,
        lookup: CatalogLookup,
        bounds: Bounds,
        *,
        max_event_bytes: int,
        enrich_deadline_seconds: float,
        retry_after_seconds: float = 2.0,
        now_ms: Callable[[], Millis] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._writer, self._lookup, self._bounds = writer, lookup, bounds
        self._max_event_bytes, self._enrich_deadline = max_event_bytes, enrich_deadline_seconds
        self._retry_after, self._now_ms = retry_after_seconds, now_ms

    async def take(self, body: bytes) -> EventsAccepted:
        """Write the good events of a body to Kafka.

        Raises:
            ProblemError: 422 and 413 as `judge` tells; 422 with the list of faults when no event is good; 429 when too many
                wait; 503 when Kafka did not acknowledge all, naming those it did.
        """
        now = self._now_ms()
        judged = judge(body, now, self._bounds)
        indices, records, newest = await self._encode(judged, now) if judged.taken else ([], [], 0)
        for kind in judged.kinds:
            REJECTED.labels(kind).inc()
        if not records:
            first = judged.rejected[0]
            raise invalid(
                f"no event was accepted; events[{first.index}].{first.reason}", accepted=0, rejected=judged.rejected
            )
        try:
            with _PRODUCE.time():
                await self._writer.write(records)
        except OverloadedError as error:
            raise ProblemError(429, f"{error}; nothing was sent", retry_after_seconds=1.0) from error
        except NotAcknowledgedError as error:
            acknowledged = [indices[n] for n in error.acknowledged]
            _TAKEN.inc(len(acknowledged))
            raise ProblemError(
                503,
                f"Kafka did not take every event ({error}); send those not in `acknowledged` again",
                retry_after_seconds=self._retry_after,
                acknowledged=acknowledged,
                rejected=judged.rejected,
            ) from error
        _TAKEN.inc(len(records))
        _FRESHNESS.observe(max(0, self._now_ms() - newest) / 1000)
        return EventsAccepted(len(records), judged.rejected)

    async def _encode(self, judged: Judged, now: Millis) -> tuple[list[int], list[Record], Millis]:
        """(index in the call of each record, records, newest event time)."""
        known, enrichment = await self._enrich([event for _, event in judged.taken])
        indices: list[int] = []
        records: list[Record] = []
        newest = 0
        with _ENCODE.time():
            for index, event in judged.taken:
                value = encode(event, now, known, enrichment)
                if len(value) > self._max_event_bytes:
                    reason = f"event: {len(value)} bytes on the wire, at most {self._max_event_bytes} are taken"
                    judged.rejected.append(Rejected(index, reason))
                    judged.kinds.append("too_large")
                    continue
                indices.append(index)
                records.append(Record(event.user_id.encode(), value))
                newest = max(newest, event.event_time)
        judged.rejected.sort(key=lambda r: r.index)
        return indices, records, newest

    async def _enrich(self, events: list[EventIn]) -> tuple[Known, "Enrichment"]:
        users = {e.user_id for e in events}
        items = {e.item_id for e in events if e.item_id and not (e.category and e.item_type)}
        try:
            with _ENRICH.time():
                return await self._lookup.find(users, items, self._enrich_deadline), Enrichment.ENRICHMENT_COMPLETE
        except RedisAwayError:
            DEGRADED.labels("enrichment_missing").inc(len(events))
            return _NO_CATALOG, Enrichment.ENRICHMENT_MISSING


def encode(event: EventIn, now: Millis, known: Known, enrichment: "Enrichment") -> bytes:
    """The event on the wire; what the client told goes before what the catalog says."""
    item = known.items.get(event.item_id, NO_ITEM)
    segment = known.users.get(event.user_id, NO_USER).segment
    if event.segment:
        segment = {**segment, **event.segment}
    return BehaviorEvent(
        event_id=event.event_id,
        user_id=event.user_id,
        event_time=event.event_time,
        ingest_time=now,
        action=ACTION_BY_NAME[event.action],  # type: ignore[arg-type]  # an enum's number, as protobuf takes it
        item_id=event.item_id,
        item_type=event.item_type or item.item_type,
        category=event.category or item.category,
        page_id=event.page_id,
        request_id=event.request_id,
        position=event.position,
        view_id=event.view_id,
        dwell_ms=event.dwell_ms,
        query=event.query,
        corrects=event.corrects,
        sent_at=event.sent_at,
        segment=segment or None,  # an empty map given costs as much as ten other fields
        attributes=event.attributes or None,
        enrichment=enrichment,
    ).SerializeToString()
