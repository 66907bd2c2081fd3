"""When a line publishes a version, and what it tells of it."""

import asyncio
import contextlib
import logging
import time
from typing import Final

from headrace_core.control.client import ControlClient, ControlError, ModelVersion, Parent
from headrace_core.telemetry import FRESHNESS_SECONDS

from headrace_trainer.export import Exporter, Prepared, prepare
from headrace_trainer.metrics import AUC, CALIBRATION, LOGLOSS, ROWS
from headrace_trainer.stream.line import Line

log = logging.getLogger(__name__)

_TELL_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 10.0


class VersionPublisher:
    """Publishes a line's versions in the background while it learns on.

    A line's first version comes at once when nothing is deployed, else when the line has learned all that there was when it began;
    the next ones every so often, if something was learned.

    Attributes:
        tidy: whether what former lines left was cleaned up.
    """

    def __init__(self, line: Line, exporter: Exporter, control: ControlClient, every_seconds: float) -> None:
        """Publish `line`, a version each `every_seconds`."""
        self._line, self._exporter, self._control, self._every = line, exporter, control, every_seconds
        self._target: dict[int, int] = {}
        self._at_once = False
        self._task: asyncio.Task[ModelVersion] | None = None
        self._pending = 0
        self._last = self._told = 0.0
        self._labels: tuple[str, str, str] | None = None
        self.tidy = False

    @property
    def published(self) -> bool:
        """Whether the line has a version of its own."""
        return self._line.parent.model == self._line.model.name

    async def start(self, ends: dict[int, int]) -> None:
        """Begin.

        Args:
            ends: per partition, the offset that the line has to reach before it publishes beside what is deployed.
        """
        self._target = ends
        self._last = time.monotonic()
        if not self.published:
            with contextlib.suppress(ControlError):
                self._at_once = await self._control.deployed(self._line.model.name) is None

    async def step(self) -> None:
        """Publish if it is time; tell metrics.

        Raises:
            Exception: whatever ended a publication, unless the control plane or the artifacts' place were away.
        """
        self._collect()
        if self._task is None and self._due():
            self._begin()
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            self._tell()
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait a little for what is under way."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_GRACE_SECONDS)
            self._collect()

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ControlError, OSError):
                await self._task

    def _due(self) -> bool:
        line = self._line
        if not self.published and self._at_once:
            return True
        caught_up = all(line.offsets.get(p, 0) >= end for p, end in self._target.items())
        if not caught_up:
            return False
        return not self.published or (line.fresh > 0 and time.monotonic() - self._last >= self._every)

    def _begin(self) -> None:
        line = self._line
        self._last, self._at_once = time.monotonic(), False
        self._pending, line.fresh = line.fresh, 0
        prepared = prepare(line.learner, line.learned, line.metrics(), line.golden, progressive=line.recent.kept)
        self._task = asyncio.create_task(self._publish(prepared, line.parent))

    async def _publish(self, prepared: Prepared, parent: Parent) -> ModelVersion:
        version = await self._exporter.publish(self._line.model.name, prepared, parent)
        now = int(time.time() * 1000)
        items = [
            {"name": name, "value": value, "time": now, "slice": "all"}
            for name, value in prepared.manifest["metrics"].items()
        ]
        await self._control.record_metrics(version.model, version.version, items)
        if prepared.manifest["samples"]["to"]:
            FRESHNESS_SECONDS.labels("model").observe((now - prepared.manifest["samples"]["to"]) / 1000)
        return version

    def _collect(self) -> None:
        """Take the result of a publication that has ended."""
        if self._task is None or not self._task.done():
            return
        task, self._task = self._task, None
        try:
            version = task.result()
        except (ControlError, OSError) as error:
            self._line.fresh += max(1, self._pending)
            log.warning("a version was not published", extra={"fields": {"error": str(error)}})
        else:
            self._line.parent = Parent(version.model, version.version)
            log.info("published", extra={"fields": {"model": version.model, "version": version.version}})

    def _tell(self) -> None:
        """Progressive quality, under the version that was published last."""
        line = self._line
        quality = next(iter(line.windows.values())).quality()
        labels = (line.model.name, str(line.parent.version if self.published else 0), "all")
        for gauge, value in ((AUC, quality.auc), (LOGLOSS, quality.logloss), (CALIBRATION, quality.calibration)):
            if self._labels is not None and self._labels != labels:
                gauge.remove(*self._labels)
            gauge.labels(*labels).set(value)
        self._labels = labels
        for bank, rows in line.learner.rows().items():
            ROWS.labels(line.model.name, bank).set(rows)
