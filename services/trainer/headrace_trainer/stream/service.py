"""The incremental trainer: from the newest validated base along the change stream, a version every so often."""

import asyncio
import contextlib
import fcntl
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace_core.control.client import ControlClient, ControlError, ModelVersion
from headrace_core.definitions.models import Model
from headrace_core.runtime.dead_letters import DeadLetterWriter
from headrace_core.runtime.operator import Rejected

from headrace_trainer.export import Exporter
from headrace_trainer.metrics import LEARNED, LEARNED_SEQ
from headrace_trainer.settings import TrainerSettings
from headrace_trainer.store.artifacts import Artifacts, Graphs
from headrace_trainer.store.scan import read_history
from headrace_trainer.store.states import load, write_atomically
from headrace_trainer.stream.feed import TOPIC, Feed, GoneError
from headrace_trainer.stream.line import Line, Outcome, SampleRecord
from headrace_trainer.stream.plan import BatchPlan, PlannedBatch
from headrace_trainer.stream.publisher import VersionPublisher

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_CHECKPOINT: Final = "checkpoint.npz"
#: Batches that are planned with one sync while catching up.
_TOGETHER: Final = 8
#: A record before those that are there has to come within this time.
_STUCK_SECONDS: Final = 60.0


class InUseError(Exception):
    """Another trainer works in the same folder."""


class RewoundError(GoneError):
    """A restore of the sample store made void what the line has learned; the next start begins again with the base."""


#: What a trainer waits for that has not begun.
STARTING: Final = "start"


class IncrementalTrainer:
    """One model's increments.

    Attributes:
        waiting_for: what is missing before it can learn; None while it learns.
    """

    def __init__(self, model: Model, settings: TrainerSettings, control: ControlClient, dead: DeadLetterWriter) -> None:
        """Nothing is read yet."""
        self._model, self._settings, self._control, self._dead = model, settings, control, dead
        self._folder = settings.train_state / model.name
        self._artifacts = Artifacts(settings.models)
        self._stopping = asyncio.Event()
        self._newest: ModelVersion | None = None
        self.waiting_for: str | None = STARTING

    def stop(self) -> None:
        """Learn what is planned, keep it, end."""
        self._stopping.set()

    async def run(self) -> None:
        """Learn until told to stop; a newer validated base is switched to.

        Raises:
            InUseError: another trainer is at work here.
            GoneError: the change stream no longer holds what the base needs.
            RewoundError: the sample store was restored meanwhile.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / "lock"):
            looking = asyncio.create_task(self._look_for_bases())
            try:
                self.waiting_for = f"a validated version of {self._model.base_name}"
                while not self._stopping.is_set():
                    if (base := self._newest) is None:
                        await self._pause(_LOOK_SECONDS / 4)
                    else:
                        await self._follow(base)
            finally:
                looking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await looking

    async def _look_for_bases(self) -> None:
        while True:
            try:
                found = await self._control.versions(self._model.base_name, stage="VALIDATED")
            except ControlError as error:
                log.warning("the control plane does not tell bases", extra={"fields": {"error": str(error)}})
            else:
                mine = [v for v in found if v.manifest.get("definition") == self._model.definition]
                newest = max(mine, key=lambda v: v.version, default=None)
                if newest is not None and (self._newest is None or newest.version > self._newest.version):
                    self._newest = newest
            await asyncio.sleep(_LOOK_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _follow(self, base: ModelVersion) -> None:
        """Learn along the line of a base until there is a newer one."""
        folder = self._folder / f"base-{base.version}"
        folder.mkdir(exist_ok=True)
        line = await self._line(base, folder)
        feed, plan = Feed(self._settings), BatchPlan(folder)
        await feed.open()
        exporter = Exporter(self._artifacts, Graphs(self._folder / "graphs"), self._control)
        every = (self._settings.train_every_ms or self._model.training.every_ms) / 1000
        publisher = VersionPublisher(line, exporter, self._control, every)
        try:
            run = _Run(line, feed, plan, folder, self._settings, self._dead)
            await run.replay()
            await publisher.start(await feed.ends())
            log.info("learning", extra={"fields": {"base": base.version, "batch": line.batch, "offsets": line.offsets}})
            self.waiting_for = None
            while not self._stopping.is_set() and self._newest is base:
                await run.learn_some()
                await publisher.step()
                self._drop_others(folder, publisher)
            await publisher.finish()
            run.checkpoint()
        finally:
            await publisher.close()
            await feed.close()
            plan.close()

    async def _line(self, base: ModelVersion, folder: Path) -> Line:
        """As of the last checkpoint, or as the base was where there is none that still holds."""
        history = await read_history(self._settings.postgres.get_secret_value())
        if (file := folder / _CHECKPOINT).exists():
            with file.open("rb") as opened:
                state = load(opened)
            if state.header["definition"] == self._model.definition:
                line = Line.restored(self._model, state)
                if line.know(history):
                    return line
                log.warning(
                    "the sample store was restored: begins again with the base",
                    extra={"fields": {"base": base.version}},
                )
                _empty(folder)
        architecture = base.manifest["architecture"]
        Graphs(self._folder / "graphs").adopt(architecture, lambda to: self._artifacts.fetch_graph(base.artifact, to))
        line = Line(self._model, base.version, self._artifacts.state(base.artifact))
        if not line.know(history):
            raise GoneError(
                f"{base.model} {base.version} learned what a restore of the sample store took back: train another base"
            )
        return line

    def _drop_others(self, folder: Path, publisher: VersionPublisher) -> None:
        """Once the line has a version of its own, what former bases left is of no use."""
        if publisher.published and not publisher.tidy:
            publisher.tidy = True
            for other in self._folder.glob("base-*"):
                if other != folder:
                    shutil.rmtree(other)


class _Run:
    """The loop over batches: planned, read, learned, kept."""

    def __init__(  # noqa: PLR0913, PLR0917  # what a run is made of
        self, line: Line, feed: Feed, plan: BatchPlan, folder: Path, settings: TrainerSettings, dead: DeadLetterWriter
    ) -> None:
        self._line, self._feed, self._plan, self._folder = line, feed, plan, folder
        self._settings, self._dead = settings, dead
        self._kept_at, self._kept_batch = time.monotonic(), -1
        self._early, self._moved = line.early, time.monotonic()

    async def replay(self) -> None:
        """Learn what was planned and is not in the checkpoint, from the very same records."""
        line, planned = self._line, self._plan.after(self._line.batch)
        starts: dict[int, int] = {}
        for batch in planned:
            for r in batch.ranges:
                starts.setdefault(r.partition, r.start)
        line.offsets = await self._feed.start(starts | line.offsets, line.learned.until or line.learned.taken_at)
        if not (self._folder / _CHECKPOINT).exists():
            self.checkpoint()  # where the line begins is not looked up a second time
        for batch in planned:
            await self._learn(batch, await self._feed.read(batch.ranges))
        if planned:
            log.info("learned again what was planned", extra={"fields": {"batches": len(planned)}})

    async def learn_some(self) -> None:
        """Learn what there is, a few batches at most; waits a moment when there is nothing."""
        line, settings, size = self._line, self._settings, self._line.model.training.batch
        together: list[tuple[PlannedBatch, list[SampleRecord]]] = []
        wait = settings.train_batch_wait_ms
        while len(together) < _TOGETHER:
            number = line.batch + 1 + len(together)
            ranges = await self._feed.next_ranges(size, wait, number)
            if not ranges:
                break
            together.append((PlannedBatch(number, ranges), await self._feed.read(ranges)))
            wait = 0
        if together:
            self._plan.append([batch for batch, _ in together])
        for batch, records in together:
            await self._learn(batch, records)
        if time.monotonic() - self._kept_at > settings.train_checkpoint_ms / 1000:
            self.checkpoint()
            self._plan.forget(settings.train_plans_ms)

    def checkpoint(self) -> None:
        """Keep the state, if there is a new one."""
        self._kept_at = time.monotonic()
        if self._line.batch != self._kept_batch:
            write_atomically(self._folder / _CHECKPOINT, self._line.state())
            self._kept_batch = self._line.batch

    async def _learn(self, batch: PlannedBatch, records: list[SampleRecord]) -> None:
        before = self._line.learned.seqs
        outcome = self._line.learn(batch, records)
        await self._dead.write([Rejected(TOPIC, record, why) for record, why in outcome.rejected])
        if self._line.rewound:
            raise RewoundError(f"{TOPIC} was rewound by a restore of the sample store after {before}")
        _tell(self._line, outcome)
        if self._line.learned.seqs != before or self._line.early == self._early:
            self._early, self._moved = self._line.early, time.monotonic()
        elif time.monotonic() - self._moved > _STUCK_SECONDS:
            raise GoneError(f"{TOPIC} lacks changes after {before}: the base is older than what the topic keeps")
        await asyncio.sleep(0)  # versions are written and bases looked for meanwhile


def _tell(line: Line, outcome: Outcome) -> None:
    LEARNED.labels(line.model.name, "insert").inc(outcome.inserted)
    LEARNED.labels(line.model.name, "correct").inc(outcome.corrected)
    for source, (_, seq) in line.learned.seqs.items():
        LEARNED_SEQ.labels(line.model.name, str(source)).set(seq)


def _empty(folder: Path) -> None:
    """Remove what a line left that does not hold any more: its plan names offsets that the next one batches anew."""
    for file in folder.iterdir():
        file.unlink()


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InUseError(f"another trainer works in {file.parent}") from error
        yield
