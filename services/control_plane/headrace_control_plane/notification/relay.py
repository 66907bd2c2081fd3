"""Relays events in order to Kafka, each at least once."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from headrace_core.contracts import ControlEvent
from headrace_core.control.records import Event
from prometheus_client import Gauge

from headrace_control_plane.notification.bell import Bell
from headrace_control_plane.store import events
from headrace_control_plane.store.database import Pool

log = logging.getLogger(__name__)

TOPIC: Final = "control-events.v1"
BEHIND: Final = Gauge("headrace_control_relay_behind", "Events that are not in Kafka yet, as the leader sees it.")
_CHUNK: Final = 500
_GATHER_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 5.0


def to_message(event: Event) -> ControlEvent:
    """As it goes out; values of the context that are no text are told as JSON."""
    return ControlEvent(
        offset=event.offset,
        key=event.key,
        value=event.value,
        type=event.type,
        version=event.version,
        namespace=event.namespace,
        sender=event.sender,
        create_time=event.create_time,
        context={k: v if isinstance(v, str) else json.dumps(v) for k, v in event.context.items()},
    )


class Relay:
    """Sends what is behind the mark, then moves the mark: after a crash some events are sent again."""

    def __init__(
        self, pool: Pool, bell: Bell, new_producer: Callable[[], AIOKafkaProducer], look_again_seconds: float
    ) -> None:
        """Relay when the bell rings; a producer that failed is replaced by a new one."""
        self._pool, self._bell, self._new_producer, self._again = pool, bell, new_producer, look_again_seconds

    async def run(self) -> None:
        """Relay until cancelled; Kafka's outages are waited out, PostgreSQL's are raised."""
        pause = 0.1
        while True:
            producer = self._new_producer()
            try:
                await producer.start()
                while True:
                    ring = self._bell.next_ring()
                    if await self._chunk(producer):
                        pause = 0.1
                    else:
                        await self._bell.wait(ring, self._again, _GATHER_SECONDS)
            except KafkaError as error:
                log.warning("relaying failed, will go on from the mark", extra={"fields": {"error": repr(error)}})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            finally:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(producer.stop(), 5)

    async def _chunk(self, producer: AIOKafkaProducer) -> bool:
        """Send the next events; whether there were any."""
        mark = await events.published(self._pool)
        page = await events.read(self._pool, mark, limit=_CHUNK)
        BEHIND.set(await events.newest(self._pool) - mark)
        if not page.items:
            return False
        sent = [
            await producer.send(TOPIC, to_message(event).SerializeToString(), key=event.key.encode())
            for event in page.items
        ]
        for acknowledged in sent:
            await acknowledged
        await events.mark_published(self._pool, page.items[-1].offset)
        return True
