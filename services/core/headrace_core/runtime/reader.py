"""Reads a sequenced topic exactly once and in order: only the next seq of each source is taken."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace_core.runtime.incarnation import Incarnations


class SequencedRecord(Protocol):
    """A record as our publisher wrote it."""

    @property
    def key(self) -> bytes | None:
        """Key of the message."""

    @property
    def value(self) -> bytes | None:
        """Value of the message."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Holds incarnation, source and seq."""


@dataclass(slots=True)
class SequenceReader:
    """Filters records of a sequenced topic. Keep `positions` with what you made of the records.

    Attributes:
        positions: per source, the (incarnation, seq) taken last.
        history: what restores made void, so that it is not taken in the first place.
        repeated: records dropped because their seq was taken before.
        early: records dropped because one before them is still to come; the publisher sends them again.
        foreign: records without our headers, which somebody else wrote.
        void: records dropped because a restore took them back.
        rewound: (source, incarnation, seq) where a restore made void what was taken of lower incarnations from that
            seq on.
    """

    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    history: Incarnations = field(default_factory=Incarnations)
    repeated: int = 0
    early: int = 0
    foreign: int = 0
    void: int = 0
    rewound: list[tuple[int, int, int]] = field(default_factory=list)

    def take(self, records: Iterable[SequencedRecord]) -> list[Any]:
        """The records whose turn it is, in order.

        A source that was never seen starts at seq 1. A higher incarnation starts anew at whatever seq it begins with,
        since everything after the backup it was restored from is void; a lower one is a leftover and dropped. Who keeps
        the newest change of each key need not undo what is void: all of it is told again, perhaps in other steps.
        """
        taken = []
        for record in records:
            headers = dict(record.headers)
            try:
                incarnation, source, seq = (int(headers[k]) for k in ("incarnation", "source", "seq"))
            except (KeyError, ValueError):
                self.foreign += 1
                continue
            if self.history.current > 1 and self.history.is_void(source, incarnation, seq):
                self.void += 1
                continue
            known, last = self.positions.get(source, (incarnation, 0))
            if incarnation > known:
                if seq <= last:
                    self.rewound.append((source, incarnation, seq))
                last = seq - 1
            if incarnation < known or seq <= last:
                self.repeated += 1
            elif seq > last + 1:
                self.early += 1
            else:
                self.positions[source] = (incarnation, seq)
                taken.append(record)
        return taken
