"""The joiner told plainly: what must become of a stream, and what any store must make of the joiner's effects."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash
from headrace_core.contracts import LABEL_OF_ACTION, Action, BehaviorEvent, FeatureLog
from headrace_sample_joiner.joiner.effects import Correction, Counts, Evidence, Revived, Version

Key = tuple[str, str]


def outcome(stream: Iterable[BehaviorEvent | FeatureLog]) -> dict[Key, int]:
    """Each shown item of a logged request; its label has the bits that an action backs which nobody cancelled."""
    messages = list(stream)
    logged = {m.request_id for m in messages if isinstance(m, FeatureLog)}
    events = [m for m in messages if isinstance(m, BehaviorEvent)]
    cancelled = {e.corrects for e in events}
    labels = {
        (e.request_id, e.item_id): 0 for e in events if e.action == Action.ACTION_IMPRESSION and e.request_id in logged
    }
    for e in events:
        key = (e.request_id, e.item_id)
        if e.action in LABEL_OF_ACTION and not e.corrects and e.event_id not in cancelled and key in labels:
            labels[key] |= LABEL_OF_ACTION[e.action]
    return labels


def hash_of(event_id: str) -> int:
    digest = xxhash.xxh3_64_intdigest(event_id.encode())
    return digest - (1 << 64) if digest >= 1 << 63 else digest


@dataclass
class Ledger:
    """Rows by key as (label, version), what backs their bits, and the accounting."""

    rows: dict[Key, tuple[int, int]] = field(default_factory=dict)
    backing: dict[Key, dict[int, dict[int, bool]]] = field(default_factory=lambda: defaultdict(dict))
    counts: Counts = field(default_factory=Counts)

    def take(self, effects: Iterable[object]) -> None:
        for effect in effects:
            match effect:
                case Version():
                    self._version(effect)
                case Revived(version, repairs):
                    self._revive(version, repairs=repairs)
                case Evidence():
                    self._back(effect)
                case Correction(evidence):
                    self._back(evidence)
                    self._settle((evidence.request_id, evidence.item_id))
                case Counts():
                    self._count(effect)

    def _version(self, v: Version) -> None:
        key = (v.request_id, v.item_id)
        label, version = self.rows.get(key, (0, 0))
        assert (v.previous, v.version) == (label, version + 1)
        assert v.version == 1 or v.label != label
        assert v.opens == all(request != v.request_id for request, _ in self.rows)
        self.rows[key] = (v.label, v.version)

    def _revive(self, v: Version, *, repairs: bool) -> None:
        key = (v.request_id, v.item_id)
        if key in self.rows:
            self.counts.duplicate += not repairs
        elif not v.log and not any(request == v.request_id for request, _ in self.rows):
            self.counts.orphaned += 1
        else:
            self.rows[key] = (v.label, 1)
            self.counts.published(v.label, 0, 1)
            self.counts.orphaned -= repairs
            self._settle(key)

    def _back(self, e: Evidence) -> None:
        events = self.backing[e.request_id, e.item_id].setdefault(e.bit, {})
        events[e.event] = events.get(e.event, False) or e.cancelled

    def _settle(self, key: Key) -> None:
        if key not in self.rows:
            return
        before, version = self.rows[key]
        label = before
        for bit, events in self.backing[key].items():
            label = label | bit if not all(events.values()) else label & ~bit
        if label != before:
            self.rows[key] = (label, version + 1)
            self.counts.published(label, before, version + 1)

    def _count(self, change: Counts) -> None:
        for name in Counts.__dataclass_fields__:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(change, name))
