"""The gateway's parts, put together; started and stopped in the order they need one another."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace_core.contracts import Millis
from headrace_core.control.client import ControlClient
from headrace_core.definitions.features import Feature
from headrace_core.definitions.models import Model
from headrace_core.serving.client import ModelServerClient
from headrace_core.stores.redis_views import ViewStore
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace_gateway.catalog.cache import MomentCache
from headrace_gateway.catalog.lookup import CatalogLookup
from headrace_gateway.catalog.snapshot import ItemSnapshot, SnapshotFeed
from headrace_gateway.catalog.write import ITEMS_TOPIC, USERS_TOPIC, CatalogWriter
from headrace_gateway.events.ingest import TOPIC as EVENTS_TOPIC
from headrace_gateway.events.ingest import Ingest
from headrace_gateway.events.judge import Bounds
from headrace_gateway.health import Health
from headrace_gateway.ranking.evidence import EvidenceReader
from headrace_gateway.ranking.feature_log import TOPIC as LOGS_TOPIC
from headrace_gateway.ranking.feature_log import FeatureLogger
from headrace_gateway.ranking.in_force import Current, InForce, in_force
from headrace_gateway.ranking.lists import ListedItems  # noqa: TC001  # names the type of a cache at run time
from headrace_gateway.ranking.recommend import Recommender
from headrace_gateway.scoring.deployed import DeployedModel
from headrace_gateway.scoring.scorer import Scorer
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.stores.kafka_producer import ProducerHost
from headrace_gateway.stores.kafka_writer import KafkaWriter
from headrace_gateway.stores.redis_reader import RedisReader

log = logging.getLogger(__name__)


def _ms(duration_seconds: float) -> int:
    return round(duration_seconds * 1000)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the routes use. Nothing is connected until `running`."""

    settings: GatewaySettings
    redis: RedisReader
    views: Redis
    host: ProducerHost
    writers: tuple[KafkaWriter, ...]
    feed: SnapshotFeed
    logger: FeatureLogger
    ingest: Ingest
    catalog: CatalogWriter
    scorer: Scorer | None
    recommender: Recommender
    health: Health
    current: Current
    now_ms: Callable[[], Millis]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, and at the end stop with everything acknowledged that can be.

        Routes answer at once; only /readyz waits for the first answer of Kafka and Redis, so that whoever waits for it does
        not meet a 503 that a second later would be none. When they stay away the gateway serves without them.
        """
        self.redis.start()
        self.host.start()
        self.feed.start()
        self.logger.start()
        if self.scorer is not None:
            self.scorer.start()
        first = asyncio.get_running_loop().create_task(self._first_tries(), name="first tries")
        try:
            yield
        finally:
            self.health.stopping = True
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            if self.scorer is not None:
                await self.scorer.stop()
            await self.logger.stop(self.settings.gateway_drain_ms / 1000)
            await self.feed.stop()
            for writer in self.writers:
                await writer.stop()
            await self.host.stop()
            await self.redis.stop()
            await self.views.aclose()
            log.info("stopped")

    def take_features(self, features: Sequence[Feature]) -> None:
        """Serve the values of these definitions from the next request on."""
        self.current.in_force = in_force(features)

    def take_models(self, models: Mapping[str, Model]) -> None:
        """Make the columns of versions that are deployed from now on by these definitions, where they do not tell their own."""
        if self.scorer is not None and (model := models.get(self.settings.model)) is not None:
            self.scorer.deployed.define(model)

    async def _first_tries(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.gateway_startup_wait_ms / 1000):
                await asyncio.gather(self.redis.connected(), self.host.connected())
                await self.feed.caught_up.wait()
        self.health.started = True
        log.info("started", extra={"fields": self.health.dependencies()})


def assemble(settings: GatewaySettings, defined: InForce, model: Model | None) -> Parts:
    """Put the parts together; needs a running event loop.

    Args:
        settings: of the gateway.
        defined: the feature definitions whose values are served at first.
        model: definition of the model that scores; None for popularity alone.
    """
    current = Current(defined)
    now_ms = lambda: time.time_ns() // 1_000_000  # noqa: E731  # one line, one clock
    url = settings.redis.get_secret_value()
    redis = RedisReader(url)
    timeout = settings.redis_timeout_ms / 1000
    # Once more: a Redis that was restarted has left dead connections in the pool, and writes under a version can be repeated.
    again = Retry(NoBackoff(), 1)
    views = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=again)
    host = ProducerHost(
        settings, (EVENTS_TOPIC, LOGS_TOPIC, USERS_TOPIC, ITEMS_TOPIC), request_timeout_ms=settings.produce_deadline_ms
    )

    def writer(topic: str, max_records: int) -> KafkaWriter:
        deadline = settings.produce_deadline_ms / 1000
        return KafkaWriter(host, topic, deadline_seconds=deadline, max_records=max_records)

    events = writer(EVENTS_TOPIC, settings.max_events_in_flight)
    users = writer(USERS_TOPIC, settings.max_events_in_flight)
    items = writer(ITEMS_TOPIC, settings.max_events_in_flight)
    logs = writer(LOGS_TOPIC, settings.feature_log_buffer)

    keep, entries = settings.catalog_cache_ms / 1000, settings.catalog_cache_entries
    lookup = CatalogLookup(redis, keep, entries)
    lists: MomentCache[ListedItems] = MomentCache(keep, entries)
    snapshot = ItemSnapshot(settings.snapshot_items)
    reader = EvidenceReader(redis, lookup, lists, settings.read_deadline_ms / 1000)
    logger = FeatureLogger(
        logs, max_buffered=settings.feature_log_buffer, flush_seconds=settings.feature_log_flush_ms / 1000
    )
    scorer = None if model is None else _scorer(settings, model)
    bounds = Bounds(
        max_age_ms=_ms(settings.max_event_age.total_seconds()),
        max_ahead_ms=_ms(settings.max_event_ahead.total_seconds()),
        max_skew_ms=_ms(settings.max_clock_skew.total_seconds()),
    )
    return Parts(
        settings=settings,
        redis=redis,
        views=views,
        host=host,
        writers=(events, users, items, logs),
        feed=SnapshotFeed(snapshot, host, settings, ITEMS_TOPIC),
        logger=logger,
        ingest=Ingest(
            events,
            lookup,
            bounds,
            max_event_bytes=settings.max_event_bytes,
            enrich_deadline_seconds=settings.enrich_deadline_ms / 1000,
        ),
        catalog=CatalogWriter(
            users,
            items,
            ViewStore(views),
            lookup,
            snapshot,
            redis_deadline_seconds=settings.catalog_write_deadline_ms / 1000,
        ),
        scorer=scorer,
        recommender=Recommender(
            reader,
            snapshot,
            logger,
            current,
            scorer=scorer,
            explore=settings.explore,
            chance=random.Random(),  # noqa: S311  # what is shown, no secret
        ),
        health=Health(events, redis, snapshot),
        current=current,
        now_ms=now_ms,
    )


def _scorer(settings: GatewaySettings, model: Model) -> Scorer:
    deployed = DeployedModel(ControlClient(settings.control, "gateway", patience_seconds=2.0), model)
    return Scorer(deployed, ModelServerClient(settings.model_server), settings.predict_deadline_ms / 1000)
