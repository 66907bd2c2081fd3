"""A worker that learns of a new feature later than its sibling goes on with what the sibling counted meanwhile."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from headrace_core.contracts import FeaturePartial
from headrace_core.definitions.features import Feature, load_features
from headrace_core.runtime.operator import Batch, Output
from headrace_feature_worker.operators.aside import Aside
from headrace_feature_worker.operators.effects import Dropped, Show
from headrace_feature_worker.operators.ranking import PARTIALS, RankingOperator
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.feature_worker.pipeline import LATENESS_MS, Stored

FEATURES = load_features(Path(__file__).parents[3] / "definitions" / "features")
START = 1_790_000_000_000
OLD = [f for f in FEATURES if f.name != "top_ads_by_segment"]
NEW = next(f for f in FEATURES if f.name == "top_ads_by_segment")


def a_partial(version: int, source: int, tile: int, counts: dict[str, int], feature: Feature = NEW) -> FeaturePartial:
    start = (START + tile * feature.tile_ms) // feature.tile_ms * feature.tile_ms
    return FeaturePartial(
        feature=feature.name, definition=feature.definition, key=["China", "male", "100"], tile_start=start,
        tile_ms=feature.tile_ms, source=source, version=version, members=counts, counts=counts.values(),
    )  # fmt: skip


def a_mark(version: int, source: int, tile: int) -> FeaturePartial:
    watermark = START + tile * NEW.tile_ms
    return FeaturePartial(source=source, version=version, watermark=watermark, source_offset=version)


class Owner:
    """Second stage: an operator, and the checkpoint that it goes on from."""

    def __init__(self, features: list[Feature]) -> None:
        self.operator = RankingOperator(features, lateness_ms=LATENESS_MS)
        self.snapshot: bytes | None = None
        self.changes: list[bytes] = []
        self.shown: dict[str, tuple[int, Any]] = {}
        self.dropped = 0

    def take(self, messages: list[FeaturePartial]) -> None:
        records = [Stored(n, message.SerializeToString()) for n, message in enumerate(messages)]
        if records:
            self.operator.process(Batch(PARTIALS, 0, records), Output())

    def checkpoint(self, *, whole: bool) -> None:
        out = Output()
        self.operator.flush(out)
        for effect in out.effects:
            if isinstance(effect, Show):
                self.shown[effect.key] = (effect.event_time, msgspec.msgpack.decode(effect.payload))
            self.dropped += effect.count if isinstance(effect, Dropped) else 0
        if whole:
            self.snapshot, self.changes = self.operator.snapshot(), []
        elif (changes := self.operator.changes()) is not None:
            self.changes.append(changes)

    def restarted(self, features: list[Feature]) -> None:
        self.operator = RankingOperator(features, lateness_ms=LATENESS_MS)
        self.operator.restore(self.snapshot, self.changes)

    def list(self) -> Any:
        return self.shown["top:top_ads_by_segment:China|male|100"][1]["items"]


@st.composite
def streams(draw: st.DrawFn) -> list[list[FeaturePartial]]:
    """Checkpoints of two sources, each counts with their mark; time goes on, and now and then leaves the window behind."""
    made, tile = [], 0
    for version in range(1, draw(st.integers(2, 25))):
        tile += draw(st.sampled_from([0, 0, 1, 3, 30, 70]))
        source = draw(st.integers(0, 1))
        partials = [
            a_partial(version, source, tile - draw(st.integers(0, 5)), {member: draw(st.integers(1, 9))})
            for member in draw(st.lists(st.sampled_from("abc"), max_size=3))
        ]
        made.append([*partials, a_mark(version, source, tile)])
    return made


@settings(max_examples=200, deadline=None)
@given(streams(), st.data())
def test_list_is_as_if_the_definition_had_been_known_from_the_start(
    stream: list[list[FeaturePartial]], data: st.DataObject
) -> None:
    knew, learned = Owner(FEATURES), Owner(OLD)
    learns_at = data.draw(st.integers(0, len(stream)))
    for n, messages in enumerate(stream):
        if n == learns_at:
            learned.restarted(FEATURES)
        for owner in (knew, learned):
            owner.take(messages)
            owner.checkpoint(whole=data.draw(st.booleans()))
        if n < learns_at and data.draw(st.booleans()):
            learned.restarted(OLD)  # killed, and still without the definition
    if learns_at == len(stream):
        learned.restarted(FEATURES)
    end = 1 + max((p.watermark - START) // NEW.tile_ms for part in stream for p in part if p.watermark) if stream else 1
    last = [a_mark(len(stream) + 1, source, end) for source in (0, 1)]  # a boundary later everything changed is shown
    for owner in (knew, learned):
        owner.take([m for m in last if m.source in {p.source for part in stream for p in part}])
        owner.checkpoint(whole=False)

    if any(p.members for messages in stream for p in messages):
        final = [a_partial(len(stream) + 2, 0, end, {"z": 1}), a_mark(len(stream) + 2, 0, end + 1)]
        for owner in (knew, learned):
            owner.take(final)
            owner.checkpoint(whole=False)
        assert learned.list() == knew.list()


def test_counts_of_an_unknown_definition_survive_restarts_and_are_taken_once_it_is_known() -> None:
    owner = Owner(OLD)
    owner.take([a_partial(1, 0, 0, {"a": 3}), a_mark(1, 0, 0), a_partial(2, 0, 0, {"a": 5, "b": 1}), a_mark(2, 0, 0)])
    owner.checkpoint(whole=True)
    owner.restarted(OLD)
    owner.checkpoint(whole=True)

    owner.restarted(FEATURES)
    owner.take([a_partial(3, 0, 0, {"b": 2}), a_mark(3, 0, 1)])
    owner.checkpoint(whole=False)

    assert owner.list() == [["a", 5.0, 5, 0], ["b", 2.0, 2, 0]]


def test_counts_that_no_window_can_hold_any_more_are_forgotten() -> None:
    owner = Owner(OLD)
    owner.take([a_partial(1, 0, 0, {"a": 3}), a_mark(1, 0, 0)])
    owner.take([a_mark(2, 0, NEW.window_ms // NEW.tile_ms + 60)])
    owner.checkpoint(whole=True)
    empty = Owner(OLD)
    empty.take([a_mark(2, 0, NEW.window_ms // NEW.tile_ms + 60)])
    empty.checkpoint(whole=True)

    assert owner.snapshot == empty.snapshot


def test_too_many_counts_are_dropped_oldest_first_and_counted() -> None:
    aside = Aside(most=100)
    for n in random.Random(1).sample(range(60), 60):
        aside.keep(a_partial(1, 0, n, {"a": 1, "b": 1}), START)

    kept = {start for _, _, keys in aside.everything() for _, key in keys for start in key.tiles}

    assert aside.dropped["top_ads_by_segment"] == 2 * (60 - len(kept))
    assert len(kept) >= 45
    assert max(kept) == START // NEW.tile_ms * NEW.tile_ms + 59 * NEW.tile_ms


def test_snapshot_of_a_former_release_is_taken_over() -> None:
    owner = Owner(FEATURES)
    owner.take([a_partial(1, 0, 0, {"a": 3}), a_mark(1, 0, 0)])
    owner.checkpoint(whole=True)
    state = msgspec.msgpack.decode(owner.snapshot or b"", strict=False)
    owner.snapshot = msgspec.msgpack.encode(state[:3])

    owner.restarted(FEATURES)
    owner.take([a_mark(2, 0, 1)])
    owner.checkpoint(whole=False)

    assert owner.list() == [["a", 3.0, 3, 0]]


@pytest.mark.parametrize("tile_ms", [1_000, 10_000, 60_000, 900_000])
def test_longest_window_of_a_slice_is_counted_in_it(tile_ms: int) -> None:
    aside = Aside()
    partial = FeaturePartial(
        feature="f", definition="d", key=["k"], tile_start=0, tile_ms=tile_ms, members=["a"], counts=[1]
    )
    longest = {1_000: 60_000, 10_000: 600_000, 60_000: 3_600_000, 900_000: 86_400_000}[tile_ms]

    aside.keep(partial, longest + tile_ms)
    assert not list(aside.everything())
    aside.keep(partial, longest + tile_ms - 1)
    assert len(list(aside.everything())) == 1
