"""Drives jobs with Faust: it gives assignment, fetching, scheduling and signals; batches and checkpoints are ours.

What is overridden and why:
    ConsumerScheduler        folds raw records of a partition into one stream element; Faust's cost per message is paid
                             per batch.
    Consumer.perform_seek    claims and seeks. Recovery calls it after assignment and before the flow resumes; the
                             assigned signal comes too early for that.
    PartitionAssignor        a leader that does not see a topic, as right after a broker's restart, would assign nothing of it,
                             and the group would stand still in good health.
    _create_worker_consumer  Faust hard-codes a fetch wait of 1.5 s, which would delay a busy topic behind an idle one.
    _wait_next_records       Faust drops what was fetched of an input that is paused by now, though its position is past it.
    acks=False               no ack tracking: Faust acknowledges events whose handler failed. Offsets live in the
                             checkpoint; Kafka's are committed for lag monitors only.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import faust
from faust.assignor.partition_assignor import PartitionAssignor
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

from headrace_core.runtime.checkpoint_store import FencedError
from headrace_core.runtime.kafka_clients import tls_context
from headrace_core.runtime.kafka_identity import read_identity
from headrace_core.runtime.runner import JobRunner
from headrace_core.settings import KafkaSettings

log = logging.getLogger(__name__)

#: Records folded into one stream element.
BATCH_RECORDS: Final = 500
#: How often quiet inputs and due checkpoints are looked at.
TICK_SECONDS: Final = 0.1
#: Fetches older than this say nothing about being caught up.
_FETCH_FRESH_MS: Final = 5_000

EXIT_FENCED: Final = 3


def die(reason: str, error: BaseException | None = None) -> NoReturn:
    """End the process at once; whoever keeps it starts it again from the last checkpoint."""
    log.critical("worker stops: %s", reason, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_FENCED)


class Assignor(PartitionAssignor):
    """Faust's, but it assigns every topic or none."""

    @classmethod
    def _get_copartitioned_groups(cls, topics: set[str], cluster: Any, subscriptions: Any) -> Any:
        missing = sorted(t for t in topics if not cluster.partitions_for_topic(t))
        if missing:
            die(f"Kafka does not tell of {', '.join(missing)}")
        return super()._get_copartitioned_groups(topics, cluster, subscriptions)


class Folded:
    """Several records that pass through Faust as one message."""

    __slots__ = ("offset", "partition", "timestamp", "topic", "value")

    # What Faust's Consumer reads off an aiokafka record besides the slots.
    timestamp_type, headers, key, checksum, serialized_key_size, serialized_value_size = 0, (), None, None, 0, 0

    def __init__(self, tp: TP, records: Sequence[Any]) -> None:
        self.topic, self.partition, self.value = tp.topic, tp.partition, records
        self.offset, self.timestamp = records[-1].offset, records[-1].timestamp


class FoldingScheduler(DefaultSchedulingStrategy):
    """Round robin over topics and partitions, a batch at a time."""

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Fold, then schedule as Faust does."""
        folded = {
            tp: [Folded(tp, chunk[i : i + BATCH_RECORDS]) for i in range(0, len(chunk), BATCH_RECORDS)]
            for tp, chunk in records.items()
        }
        return super().iterate(folded)


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        app = cast("HeadraceApp", self.app)
        consumer._fetch_max_wait_ms = app.kafka_settings.kafka_fetch_wait_ms  # noqa: SLF001  # no other way in
        return consumer


class _Consumer(driver.Consumer):
    """Starts reading where the checkpoints say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seek_lock = asyncio.Lock()
        self.must_claim = False

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Claim and seek once per assignment."""
        async with self._seek_lock:
            if not self.must_claim:  # also called in the middle of a fetch while a rebalance is on its way
                return
            self.must_claim = False
            try:
                await cast("HeadraceApp", self.app).claim()
            except asyncio.CancelledError:  # the next rebalance is here already; it claims anew
                self.must_claim = True
                raise
            except Exception as error:  # noqa: BLE001  # Recovery would swallow it: a member that never reads
                die(f"claim failed: {error}", error)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, None]:  # noqa: ASYNC109  # Faust's signature
        """Fetch from active inputs, and deliver everything that was fetched: None stands for all inputs."""
        records, _ = await super()._wait_next_records(timeout)
        return records, None

    def caught_up(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a recent fetch confirmed that `offset` is the end of the partition."""
        consumer = cast("_Thread", self._thread)._consumer  # noqa: SLF001  # Faust hides what aiokafka tells
        if consumer is None:
            return False
        tp = TP(topic, partition)
        try:
            highwater, polled = consumer.highwater(tp), consumer.last_poll_timestamp(tp)
        except (AssertionError, KeyError):  # not assigned at this moment
            return False
        if highwater is None or polled is None:
            return False
        return bool(offset >= highwater and time.time() * 1000 - polled < _FETCH_FRESH_MS)

    def balance(self, pause: set[TP], resume: set[TP]) -> None:
        """Pause inputs that lead too far, resume those that no longer do."""
        if pause:
            self.pause_partitions(pause)
        if back := resume & self._paused_partitions:
            self.resume_partitions(back)

    async def report(self, offsets: Mapping[TP, int]) -> None:
        """Commit offsets to Kafka, for lag monitors and so that the broker keeps the group; nobody reads from there."""
        await self._commit(offsets)


def _credentials(settings: KafkaSettings) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """What Faust is told of the listener's protocol; it tells aiokafka."""
    context = tls_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_user, password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism, ssl_context=context,
        )  # fmt: skip
    return None if context is None else faust.SSLCredentials(context)


class HeadraceApp(faust.App):
    """A Faust app whose state and offsets are the runners'."""

    def __init__(self, name: str, runners: Sequence[JobRunner], settings: KafkaSettings, *, datadir: str) -> None:
        """Configure Faust for `runners`."""
        self.kafka_settings = settings
        self.runners = runners
        self._by_topic = {topic: runner for runner in runners for topic in runner.job.inputs}
        self._checkpoints: set[asyncio.Task[None]] = set()
        session = settings.kafka_session_timeout_ms / 1000
        super().__init__(
            f"{settings.group_prefix}.{name}",
            broker=[f"aiokafka://{server}" for server in settings.kafka.split(",")],
            broker_credentials=_credentials(settings),
            datadir=datadir,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            ConsumerScheduler=FoldingScheduler,
            PartitionAssignor=Assignor,
            stream_buffer_maxsize=16,
            stream_recovery_delay=0.0,
            stream_wait_empty=False,
            broker_session_timeout=session,
            broker_heartbeat_interval=session / 6,
            broker_request_timeout=max(settings.kafka_request_timeout_ms / 1000, session + 1),
            broker_rebalance_timeout=10,
            # Standby replicas > 0 make Faust use its own assignor, the only one here that co-partitions.
            table_standby_replicas=1,
            consumer_auto_offset_reset="earliest",
        )

    def _new_transport(self) -> Any:
        transport = driver.Transport(self.conf.broker_consumer, self)
        transport.Consumer = _Consumer  # type: ignore[misc]  # a class variable of Faust's, ours for this app
        return transport

    @property
    def reader(self) -> _Consumer:
        """The consumer, as what it is."""
        return cast("_Consumer", self.consumer)

    def assigned(self) -> set[TP]:
        """What is assigned to this worker by now; any thread may ask.

        It makes no consumer: one that is made by another thread belongs to that thread's loop, and the worker can't start it.
        """
        made = self._consumer
        try:
            return set(made.assignment()) if made is not None else set()
        except ConsumerNotStarted:
            return set()

    async def claim(self) -> None:
        """Claim what is assigned and seek to the checkpoints."""
        assigned = {tp for tp in self.consumer.assignment() if tp.topic in self._by_topic}
        targets: dict[TP, int] = {}
        for runner in self.runners:
            numbers = sorted({tp.partition for tp in assigned if tp.topic in runner.job.inputs})
            missing = {TP(t, n) for t in runner.job.inputs for n in numbers} - assigned
            if missing:
                raise RuntimeError(f"{runner.job.name}: not co-partitioned, {sorted(missing)} went elsewhere")
            identity = await read_identity(self.kafka_settings, runner.job.inputs)
            offsets = await runner.claim(numbers, identity)
            targets |= await self._targets({TP(t, n): offset for (t, n), offset in offsets.items()})
        await self.consumer.seek_wait(targets)

    async def _targets(self, offsets: Mapping[TP, int | None]) -> dict[TP, int]:
        """Where to read; an offset that the topic does not have stops the worker instead of starting over."""
        if not offsets:
            return {}
        first = await self.consumer.earliest_offsets(*offsets)
        end = await self.consumer.highwaters(*offsets)
        targets = {}
        for tp, offset in offsets.items():
            if offset is not None and not first[tp] <= offset <= end[tp]:
                raise RuntimeError(
                    f"{tp.topic}/{tp.partition}: next offset {offset} is outside of {first[tp]}..{end[tp]}; "
                    "see docs/operations/offset-out-of-range.md"
                )
            targets[tp] = first[tp] if offset is None else offset
        return targets

    async def work(self, stream: Any) -> None:
        """The agent: batches in, checkpoints in the background."""
        async for event in stream.events():
            message = event.message
            runner = self._by_topic[message.topic]
            try:
                runner.feed(message.topic, message.partition, message.value)
            except Exception as error:  # noqa: BLE001  # a defect of an operator: never skip the batch
                die(f"{message.topic}/{message.partition} at {message.offset}: {error!r}", error)
            self._kick(runner)
            while runner.overloaded and self._checkpoints:
                await asyncio.wait(self._checkpoints, return_when=asyncio.FIRST_COMPLETED)

    async def tick(self) -> None:
        """Let time pass on quiet inputs, make due checkpoints, hold back inputs that lead."""
        if self.rebalancing:
            return
        now = int(time.time() * 1000)
        reader = self.reader
        for runner in self.runners:
            runner.tick(reader.caught_up, now)
            self._kick(runner)
            pause, resume = runner.ahead(reader.caught_up)
            reader.balance({TP(*tp) for tp in pause}, {TP(*tp) for tp in resume})

    async def report_lag(self) -> None:
        """Tell Kafka how far we are."""
        offsets = {TP(t, n): o for r in self.runners for n, p in r.partitions.items() for t, o in p.offsets.items()}
        if offsets and not self.rebalancing:
            await self.reader.report(offsets)

    def _kick(self, runner: JobRunner) -> None:
        """Start a checkpoint if one is due and none is under way."""
        if runner.due and not runner.busy:
            task = asyncio.get_running_loop().create_task(self._checkpoint(runner))
            self._checkpoints.add(task)
            task.add_done_callback(self._checkpoints.discard)

    async def _checkpoint(self, runner: JobRunner) -> None:
        try:
            await runner.checkpoint()
        except FencedError as error:
            if not self.rebalancing:  # fenced though still a member: somebody works on our partitions
                die(str(error))
        except Exception as error:  # noqa: BLE001  # nothing may be skipped: start again from the last checkpoint
            die(str(error), error)


def build_app(name: str, runners: Sequence[JobRunner], settings: KafkaSettings, *, datadir: str) -> HeadraceApp:
    """The app with its agent, timers and signals connected."""
    app = HeadraceApp(name, runners, settings, datadir=datadir)
    # Values stay bytes; no acknowledgement is tracked, so Faust neither commits nor waits for one.
    source = app.topic(
        *[t for r in runners for t in r.job.inputs], acks=False, key_serializer="raw", value_serializer="raw"
    )

    async def revoked(*_: Any, **__: Any) -> None:  # the flow is stopped and the queues are clear here
        for runner in runners:
            await runner.release()

    async def assigned(*args: Any, **__: Any) -> None:  # (app, partitions)
        app.reader.must_claim = bool(args[1])

    async def stop(*_: Any, **__: Any) -> None:
        for runner in runners:
            await runner.close()

    app.agent(source)(app.work)
    app.timer(TICK_SECONDS)(app.tick)
    app.timer(5.0)(app.report_lag)
    app.on_partitions_revoked.connect(revoked, weak=False)
    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_before_shutdown.connect(stop, weak=False)
    return app
