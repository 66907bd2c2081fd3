"""Base training: one pass over everything that the store holds, in the order of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from headrace_core.definitions.models import Model
from headrace_core.learning.inputs import Columns, InputColumns, held_out

from headrace_trainer.export import Learned
from headrace_trainer.network.learner import Floats, Learner
from headrace_trainer.quality import Quality, quality, tally
from headrace_trainer.store.scan import Scan, ScannedRequest
from headrace_trainer.store.states import State

#: Held-out samples that are kept to be scored at the end, the newest.
_HELD: Final = 100_000
_GOLDEN: Final = 16


class NoSamplesError(Exception):
    """There is nothing to learn from."""


@dataclass(slots=True)
class _Part:
    """Requests that become one batch."""

    requests: list[ScannedRequest] = field(default_factory=list)
    samples: int = 0

    def add(self, request: ScannedRequest) -> None:
        self.requests.append(request)
        self.samples += len(request.labels)


@dataclass(slots=True)
class BaseTraining:
    """The result.

    Attributes:
        learner: weights.
        learned: what they come from.
        quality: on the held-out requests, the newest of them.
        golden: columns of some of these.
    """

    learner: Learner
    learned: Learned
    quality: Quality
    golden: Columns

    def state(self) -> State:
        """To begin a line with."""
        header = {
            "definition": self.learner.model.definition,
            "learned": self.learned.as_json(),
            "metrics": self.quality.as_metrics(),
        }
        golden = {f"golden/{name}": column for name, column in self.golden.items()}
        return State(header, self.learner.arrays() | golden)


async def train_base(model: Model, scan: Scan, progress: Callable[[int], None] = lambda _: None) -> BaseTraining:
    """Learn all that is not held out.

    Args:
        model: its definition.
        scan: an open snapshot.
        progress: told how many requests were read, chunk by chunk.

    Raises:
        NoSamplesError: the snapshot is empty, or all of it is held out.
    """
    trainer = _Trainer(model, scan)
    for _ in range(model.training.epochs):
        async for chunk in scan.read():
            for request in chunk:
                trainer.take(request)
            progress(len(chunk))
        trainer.finish_epoch()
    return trainer.result()


class _Trainer:
    def __init__(self, model: Model, scan: Scan) -> None:
        self._model, self._learner, self._columns = model, Learner(model), InputColumns(model.inputs)
        self._learned = Learned(seqs=dict(scan.resume), taken_at=scan.taken_at, until=scan.until, seen=dict(scan.seqs))
        self._part, self._held, self._epoch = _Part(), _Part(), 0
        self._kept: list[tuple[Columns, Floats]] = []
        self._last: Columns = {}

    def take(self, request: ScannedRequest) -> None:
        self._learned.feature_set_version = request.feature_set_version
        part = self._held if held_out(request.request_id, self._model.training.held_out) else self._part
        part.add(request)
        if part.samples >= self._model.training.batch:
            self._flush()

    def finish_epoch(self) -> None:
        self._flush(everything=True)
        self._epoch += 1

    def result(self) -> BaseTraining:
        if not self._learner.batches:
            raise NoSamplesError("the sample store holds nothing to learn from in that range")
        total = tally(np.zeros(0, np.float32), np.zeros(0, np.float32))
        golden: Columns | None = None
        for columns, labels in self._kept:
            total += tally(self._learner.score(columns), labels)
            golden = columns
        return BaseTraining(
            self._learner, self._learned, quality(total), {n: c[:_GOLDEN] for n, c in (golden or self._last).items()}
        )

    def _flush(self, *, everything: bool = False) -> None:
        batch = self._model.training.batch
        if self._part.samples >= batch or (everything and self._part.samples):
            self._learn(self._part.requests)
            self._part = _Part()
        if self._held.samples >= batch or (everything and self._held.samples):
            if self._epoch == 0:
                self._keep(self._held.requests)
            self._held = _Part()

    def _learn(self, requests: Sequence[ScannedRequest]) -> None:
        columns, labels = self._arrays(requests)
        times = [r.event_time for r in requests]
        if self._epoch == 0:
            self._learned.add(min(times), max(times), len(labels), int(labels.sum()))
        self._learner.learn(columns, labels, np.ones_like(labels), np.zeros_like(labels), self._learned.last)
        self._last = columns

    def _keep(self, requests: Sequence[ScannedRequest]) -> None:
        self._kept.append(self._arrays(requests))
        while sum(len(labels) for _, labels in self._kept[1:]) > _HELD:
            del self._kept[0]

    def _arrays(self, requests: Sequence[ScannedRequest]) -> tuple[Columns, Floats]:
        columns = self._columns.from_shown([r.shown for r in requests])
        bit = int(self._model.label)
        return columns, np.array([bool(mask & bit) for r in requests for mask in r.labels], np.float32)
