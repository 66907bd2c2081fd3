"""Rows of samples.requests in memory, while a checkpoint changes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from headrace_core.contracts import Millis, Operation, Sample, SampleChange
from headrace_core.runtime.sink import OutboxMessage

from headrace_sample_joiner.joiner.effects import Version
from headrace_sample_joiner.store.served import Served

#: Columns of a row, in the order of `Row.values`.
COLUMNS: Final = (
    "day", "request_id", "user_id", "page_id", "source", "model", "model_version", "feature_set_version", "items",
    "label", "version", "event_time", "position", "score", "propensity", "impression_offset", "joined_at",
    "log_offset", "log",
)  # fmt: skip
ARRAYS: Final = (
    "items", "label", "version", "event_time", "position", "score", "propensity", "impression_offset", "joined_at",
)  # fmt: skip


#: Read once: protobuf looks a name up in every use.
_INSERT: Final = Operation.OPERATION_INSERT
_CORRECT: Final = Operation.OPERATION_CORRECT

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000


def day_of(request_id: str) -> date:
    """The day of a UUIDv7 in its canonical form, whose first 48 bits are ms since the epoch."""
    return date.fromordinal(_EPOCH_DAY + int(request_id[:8] + request_id[9:13], 16) // _DAY_MS)


@dataclass(slots=True)
class Row:
    """One request; lists run in parallel, one entry per published item."""

    request_id: str
    user_id: str
    page_id: str
    source: int
    log_offset: int
    served: Served
    is_new: bool
    items: list[str] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    event_time: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    propensity: list[float] = field(default_factory=list)
    impression_offset: list[int] = field(default_factory=list)
    joined_at: list[int] = field(default_factory=list)
    changed: bool = False
    _change: SampleChange | None = None

    @classmethod
    def opened(cls, version: Version, source: int) -> "Row":
        """A new row for the request of a version whose log is there."""
        return cls(
            version.request_id, version.user_id, version.page_id, source, version.log_offset,
            Served.from_log(version.log), is_new=True,
        )  # fmt: skip

    @classmethod
    def loaded(cls, record: Any) -> "Row":
        """A row as it is in the database."""
        served = Served.from_row(record["log"], record["model"], record["model_version"], record["feature_set_version"])
        row = cls(
            str(record["request_id"]), record["user_id"], record["page_id"], record["source"], record["log_offset"], served,
            is_new=False,
        )  # fmt: skip
        for name in ARRAYS:
            setattr(row, name, list(record[name]))
        return row

    def add(self, version: Version, now: Millis) -> OutboxMessage:
        """A first version of an item."""
        item = version.item_id
        score, propensity = self.served.scores.get(item, (0.0, 0.0))
        self.items.append(item)
        self.label.append(version.label)
        self.version.append(1)
        self.event_time.append(version.event_time)
        self.position.append(version.position)
        self.score.append(score)
        self.propensity.append(propensity)
        self.impression_offset.append(version.offset)
        self.joined_at.append(now)
        self.changed = True
        return self._message(len(self.items) - 1, _INSERT, 0, now)

    def correct(self, index: int, label: int, now: Millis) -> OutboxMessage:
        """The next version of an item."""
        previous = self.label[index]
        self.label[index] = label
        self.version[index] += 1
        self.joined_at[index] = now
        self.changed = True
        return self._message(index, _CORRECT, previous, now)

    def values(self) -> tuple[Any, ...]:
        """For COPY, in the order of COLUMNS."""
        s = self.served
        return (
            day_of(self.request_id), self.request_id, self.user_id, self.page_id, self.source, s.model,
            s.model_version, s.feature_set_version, self.items, self.label, self.version, self.event_time,
            self.position, self.score, self.propensity, self.impression_offset, self.joined_at, self.log_offset,
            s.stored(),
        )  # fmt: skip

    def _message(self, index: int, operation: Operation, previous: int, now: Millis) -> OutboxMessage:
        change = self._change
        if change is None:
            change = self._change = SampleChange(sample=self._shared())
        item = self.items[index]
        sample = change.sample
        sample.item_id = item
        sample.event_time = self.event_time[index]
        sample.label = self.label[index]
        sample.features = self.served.features(item)
        sample.propensity = self.propensity[index]
        sample.position = self.position[index]
        sample.score = self.score[index]
        sample.version = self.version[index]
        sample.impression_offset = self.impression_offset[index]
        change.operation = operation
        change.previous_label = previous
        change.change_time = now
        return OutboxMessage(self.source, f"{self.request_id}:{item}".encode(), change.SerializeToString())

    def _shared(self) -> Sample:
        """What all samples of the request have in common; setting the rest anew costs half of making them anew."""
        return Sample(
            request_id=self.request_id,
            user_id=self.user_id,
            page_id=self.page_id,
            feature_set_version=self.served.feature_set_version,
            model=self.served.model,
            model_version=self.served.model_version,
            log_offset=self.log_offset,
        )


def array_literal(values: Sequence[Any]) -> str:
    """A list as PostgreSQL's text form of an array, since arrays of arrays of unequal lengths can't be parameters."""
    if values and isinstance(values[0], str):
        quoted = ('"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
        return "{" + ",".join(quoted) + "}"
    return "{" + ",".join(map(repr, values)) + "}"
