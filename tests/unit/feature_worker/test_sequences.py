"""A user's sequence equals a naive one after each event, and after a restart from any snapshot and changes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from headrace_core.contracts import ACTION_BY_NAME, BehaviorEvent
from headrace_core.definitions.features import Sequence as SequenceShape
from headrace_core.definitions.features import load_features
from headrace_feature_worker.operators.sequences import Entry, UserSequences
from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.streams.naive_features import last_minutes

(FEATURE,) = (
    f
    for f in load_features(Path(__file__).parents[3] / "definitions" / "features")
    if isinstance(f.shape, SequenceShape)
)
START = 1_790_000_000_000
USERS = ("u0", "u1")

#: What is done next: an event, a checkpoint of changes or of everything, a crash.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["new", "new", "view", "longer", "cancel"]),
            st.sampled_from(USERS),
            st.sampled_from([0, 1, 9_000, 100_000]),  # later than the one before
            st.sampled_from([0, 0, 500, 10_000]),  # late by
            st.integers(0, 50),  # which one is meant
        ),
        st.sampled_from(["changes", "changes", "snapshot", "crash"]),
    ),
    max_size=60,
)


@dataclass
class Kept:
    """Sequences with their checkpoints, and what came."""

    sequences: UserSequences
    time: int = START
    came: list[BehaviorEvent] = field(default_factory=list)
    saved: list[tuple[bool, bytes]] = field(default_factory=list)
    saved_until: int = 0

    def take(self, event: BehaviorEvent) -> None:
        self.sequences.add(event)
        self.sequences.advance(max(e.event_time for e in (*self.came, event)) - 10_000)
        self.came.append(event)

    def save(self, *, whole: bool) -> None:
        part = self.sequences.snapshot() if whole else self.sequences.changes()
        encoded = msgspec.msgpack.encode(part)
        self.saved = [(True, encoded)] if whole else [*self.saved, (False, encoded)]
        self.saved_until = len(self.came)

    def crash(self) -> None:
        self.sequences = new()
        for whole, data in self.saved:
            part = msgspec.msgpack.decode(data, type=dict[str, list[Entry]])
            self.sequences.restore(part, whole=whole)
        again, self.came = self.came[self.saved_until :], self.came[: self.saved_until]
        if self.came:
            self.sequences.advance(max(e.event_time for e in self.came) - 10_000)
        for event in again:
            self.take(event)

    def event(self, kind: str, user: str, later: int, late: int, which: int) -> BehaviorEvent | None:
        self.time += later
        known = [e for e in self.came if not e.corrects and (kind != "longer" or e.view_id)]
        name = f"e{len(self.came)}"
        if kind in {"longer", "cancel"}:
            if not known:
                return None
            event = BehaviorEvent.FromString(known[which % len(known)].SerializeToString())
            if kind == "cancel":
                if any(e.corrects == event.event_id for e in self.came):
                    return None  # the operator takes each back once
                event.corrects, event.event_id = event.event_id, name
            else:
                event.event_id, event.event_time = name, event.event_time + 1_000 * which
                event.dwell_ms += 1_000 * which
            return event
        view = kind == "view"
        return BehaviorEvent(
            event_id=name, user_id=user, event_time=self.time - late, ingest_time=self.time, item_id=name,
            action=ACTION_BY_NAME["view" if view else "click"],  # type: ignore[arg-type]  # an enum is an int
            view_id=name if view else "", dwell_ms=1_000 if view else 0,
        )  # fmt: skip


def new() -> UserSequences:
    assert isinstance(FEATURE.shape, SequenceShape)
    return UserSequences(FEATURE, FEATURE.shape)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_shown_as_a_naive_computation_through_checkpoints_and_crashes(steps: list[Any]) -> None:
    kept = Kept(new())
    shown: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        if step == "crash":
            kept.crash()
        elif isinstance(step, str):
            kept.save(whole=step == "snapshot")
        elif (event := kept.event(*step)) is not None:
            kept.take(event)
        for show in kept.sequences.flush(kept.time):
            shown[show.key[2:]] = msgspec.msgpack.decode(show.payload)
        if kept.came:
            now = max(e.event_time for e in kept.came)
            for user in USERS:
                since = now - FEATURE.window_ms
                assert [e for e in shown.get(user, []) if e["event_time"] >= since] == last_minutes(
                    kept.came, user, now
                )


def test_what_a_checkpoint_writes_is_what_came_however_much_the_user_did_before() -> None:
    kept = Kept(new())
    for _ in range(1_000):
        event = kept.event("new", "u0", 1, 0, 0)
        assert event is not None
        kept.take(event)
    kept.save(whole=False)
    event = kept.event("new", "u0", 1, 0, 0)
    assert event is not None
    kept.take(event)
    assert {user: len(entries) for user, entries in kept.sequences.changes().items()} == {"u0": 1}


def test_changes_of_a_former_release_hold_all_of_a_user() -> None:
    kept = Kept(new())
    for _ in range(3):
        event = kept.event("new", "u0", 1, 0, 0)
        assert event is not None
        kept.take(event)
    everything = kept.sequences.snapshot()
    other = new()
    for part in (everything, everything):
        other.restore(part, whole=True)
    (show,) = other.flush(kept.time)
    assert msgspec.msgpack.decode(show.payload) == last_minutes(kept.came, "u0", kept.time)
    other.restore({"u0": []}, whole=True)
    assert other.snapshot() == {}
