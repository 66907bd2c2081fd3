"""A line of increments: what a base became by learning the change stream. Nothing here knows Kafka, time or files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from headrace_core.contracts import Millis, Operation, Sample, SampleChange
from headrace_core.control.client import Parent
from headrace_core.definitions.models import Model
from headrace_core.learning.inputs import Columns, InputColumns, held_out
from headrace_core.runtime.incarnation import Incarnations
from headrace_core.runtime.operator import Record
from headrace_core.runtime.reader import SequencedRecord, SequenceReader

from headrace_trainer.export import Learned
from headrace_trainer.network.learner import Learner
from headrace_trainer.quality import RollingQuality
from headrace_trainer.store.states import State
from headrace_trainer.stream.delay import DelayedFeedback
from headrace_trainer.stream.plan import PlannedBatch
from headrace_trainer.stream.recent import RecentScores
from headrace_trainer.stream.waiting import Waiting

_CORRECT: Final = Operation.OPERATION_CORRECT
_GOLDEN: Final = 16
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError)


class SampleRecord(Record, SequencedRecord, Protocol):
    """A record of samples.v1."""


class Chosen(NamedTuple):
    """A change that is learned.

    Attributes:
        record: that told it; None for one that has waited.
        sample: after the change.
        positive: its label.
        corrects: whether it was learned with the other label before.
        time: when it was published, ms since the epoch.
    """

    record: SampleRecord | None
    sample: Sample
    positive: bool
    corrects: bool
    time: Millis


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        inserted, corrected: samples that were learned.
        rejected: records that can't be read, and why.
    """

    inserted: int = 0
    corrected: int = 0
    rejected: list[tuple[SampleRecord, str]] = field(default_factory=list)


class Line:
    """Weights, what they come from, and how far it is.

    Attributes:
        base: number of the base's version.
        batch: number of the last batch that was learned.
        offsets: per partition, the next one to read.
        learned: samples behind the weights, the base's included.
        parent: version that was published last, of the base or of the line.
        windows: progressive quality by window, ms.
        recent: scores before learning of the newest samples.
        fresh: batches with samples since the last export.
        golden: columns of a few samples of the newest batch.
    """

    def __init__(self, model: Model, base: int, state: State) -> None:
        """A line that begins with a base's state."""
        self.model, self.base = model, base
        self.learner, self._columns = Learner(model), InputColumns(model.inputs)
        self.learner.restore(state.arrays)
        self.learned = Learned.from_json(state.header["learned"])
        self._reader = SequenceReader(dict(self.learned.seqs))
        self._delay, self._waiting = DelayedFeedback(), Waiting()
        self.batch = 0
        self.offsets: dict[int, int] = {}
        self.parent = Parent(model.base_name, base)
        self.windows = {ms: RollingQuality(ms) for ms in model.training.windows_ms}
        self.recent = RecentScores(model.validation.window_ms)
        self.fresh = 0
        self.golden: Columns | None = _part(state.arrays, "golden/") or None
        self._base_metrics: dict[str, float] = state.header["metrics"]
        self._clock: Millis = self.learned.last

    def know(self, history: Incarnations) -> bool:
        """Take what restores of the sample store made void; whether the line has learned nothing of it.

        A line that has can't unlearn it: another one has to begin with the base.
        """
        self._reader.history = history
        return not any(history.is_void(source, *position) for source, position in self.learned.seqs.items())

    @property
    def rewound(self) -> bool:
        """Whether a restore since `know` made void what was learned."""
        return bool(self._reader.rewound)

    @property
    def early(self) -> int:
        """Records dropped so far because one before them had not come."""
        return self._reader.early

    def learn(self, batch: PlannedBatch, records: Sequence[SampleRecord]) -> Outcome:
        """Learn the batch; `records` are all of its ranges, in their order."""
        outcome = Outcome()
        chosen = [c for r in self._reader.take(records) if (c := self._choose(r, outcome)) is not None]
        chosen += [self._chosen(None, change) for change in self._waiting.release()]
        self.learned.settled = dict(self._waiting.settled)
        self.learned.seqs = dict(self._reader.positions)
        for partition, _, end in batch.ranges:
            self.offsets[partition] = end
        self.batch = batch.number
        try:
            columns = self._columns.from_samples([c.sample for c in chosen])
        except _UNREADABLE:
            chosen = [c for c in chosen if self._is_readable(c, outcome)]
            columns = self._columns.from_samples([c.sample for c in chosen])
        if chosen:
            self._learn(chosen, columns, outcome)
        return outcome

    def _choose(self, record: SampleRecord, outcome: Outcome) -> Chosen | None:
        """What is to be learned now: not of a held-out request, not in the base, no positive whose window is open."""
        try:
            change = SampleChange.FromString(record.value or b"")
        except DecodeError as error:
            outcome.rejected.append((record, f"no SampleChange: {error}"))
            return None
        told = dict(record.headers)
        source, position = int(told["source"]), (int(told["incarnation"]), int(told["seq"]))
        if self._is_in_base(change.sample.request_id, source, position):
            return None
        bit, corrects = int(self.model.label), change.operation == _CORRECT
        positive = bool(change.sample.label & bit)
        if not corrects and not positive:
            self._waiting.settle(source, change.sample.event_time)
        if held_out(change.sample.request_id, self.model.training.held_out):
            return None
        if corrects:
            if self._waiting.correct(source, change) or positive == bool(change.previous_label & bit):
                return None
        elif positive:
            if self._is_readable(self._chosen(record, change), outcome):
                self._waiting.hold(source, change)
            return None
        return self._chosen(record, change)

    def _chosen(self, record: SampleRecord | None, change: SampleChange) -> Chosen:
        positive = bool(change.sample.label & int(self.model.label))
        return Chosen(record, change.sample, positive, change.operation == _CORRECT, change.change_time)

    def _is_in_base(self, request_id: str, source: int, position: tuple[int, int]) -> bool:
        """Whether the base has learned a change: its scan held the requests before `until` as of the seqs in `seen`."""
        learned = self.learned
        return (
            position <= learned.seen.get(source, (0, 0)) and int(request_id[:8] + request_id[9:13], 16) < learned.until
        )

    def _is_readable(self, chosen: Chosen, outcome: Outcome) -> bool:
        try:
            self._columns.from_samples([chosen.sample])
        except _UNREADABLE as error:
            if chosen.record is not None:  # one that has waited was read before
                outcome.rejected.append((chosen.record, f"features are no JSON objects: {error}"))
            return False
        return True

    def _learn(self, chosen: Sequence[Chosen], columns: Columns, outcome: Outcome) -> None:
        labels = np.array([c.positive for c in chosen], np.float32)
        first = np.array([not c.corrects for c in chosen], np.bool_)
        delay, times = self._delay, [c.sample.event_time for c in chosen]
        # A sample's first label may be taken back; what corrects it is what is known in the end.
        weights = np.where(first & (labels > 0), 1 - delay.cancelled_share, 1).astype(np.float32)
        late = np.where(first, delay.late_share, 0).astype(np.float32)
        self._clock = max(self._clock, *times)
        scores = self.learner.learn(columns, labels, weights, late, self._clock)
        if first.any():
            published = max(c.time for c in chosen)
            for window in self.windows.values():
                window.add(scores[first], labels[first], published)
            self.recent.add([c.sample for c in chosen if not c.corrects], scores[first])
        outcome.inserted, outcome.corrected = int(first.sum()), int((~first).sum())
        made, taken = labels[~first].sum(), (1 - labels[~first]).sum()
        delay.add(outcome.inserted, int(labels[first].sum()), int(made), int(taken))
        if outcome.inserted:
            self.learned.add(min(times), max(times), outcome.inserted, int(labels[first].sum()))
        self.learned.positives += int(made - taken)
        self.learned.feature_set_version = chosen[-1].sample.feature_set_version
        self.golden = {name: column[:_GOLDEN] for name, column in columns.items()}
        self.fresh += 1

    def metrics(self) -> dict[str, float]:
        """Progressive quality: the first window's by plain names, the others' with the window's minutes.

        While nothing was scored they are the base's own, on its held-out requests.
        """
        (first, *others) = self.windows.items()
        if not first[1].quality().count:
            return self._base_metrics
        found = first[1].quality().as_metrics()
        for ms, window in others:
            found |= {f"{name}_{ms // 60_000}m": value for name, value in window.quality().as_metrics().items()}
        return found

    def state(self) -> State:
        """Everything, to go on from bit for bit."""
        arrays = self.learner.arrays()
        for ms, window in self.windows.items():
            arrays |= {f"window/{ms}/{name}": a for name, a in window.arrays().items()}
        arrays |= {f"waiting/{name}": a for name, a in self._waiting.arrays().items()}
        arrays |= {f"recent/{name}": a for name, a in self.recent.arrays().items()}
        if self.golden is not None:
            arrays |= {f"golden/{name}": a for name, a in self.golden.items()}
        header = {
            "definition": self.model.definition,
            "base": self.base,
            "batch": self.batch,
            "offsets": {str(p): o for p, o in self.offsets.items()},
            "learned": self.learned.as_json(),
            "delay": self._delay.as_json(),
            "parent": [self.parent.model, self.parent.version],
            "fresh": self.fresh,
            "metrics": self._base_metrics,
            "clock": self._clock,
        }
        return State(header, arrays)

    @classmethod
    def restored(cls, model: Model, state: State) -> "Line":
        """What `state` gave."""
        header = state.header
        line = cls(model, header["base"], state)
        line.batch, line.fresh, line._clock = header["batch"], header["fresh"], header["clock"]
        line.offsets = {int(p): o for p, o in header["offsets"].items()}
        line.parent = Parent(*header["parent"])
        line._delay.restore(header["delay"])
        for ms, window in line.windows.items():
            window.restore(_part(state.arrays, f"window/{ms}/"))
        line._waiting.restore(_part(state.arrays, "waiting/"))
        line.recent.restore(_part(state.arrays, "recent/"))
        line.golden = _part(state.arrays, "golden/") or None
        return line


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
