from typing import Any

import numpy as np
import pytest
from headrace_core.definitions.models import Validation
from headrace_model_validator.findings import Finding, failures, verdict
from headrace_model_validator.held_out import HeldOut, settled
from headrace_model_validator.judge import (
    Evidence,
    Figures,
    absolute,
    change,
    changes,
    figures,
    intervals,
    paired,
    quality,
)
from headrace_model_validator.pairs import Pairs
from headrace_model_validator.quality import Interval
from numpy.typing import NDArray

WANTED = Validation(
    min_samples=100,
    max_logloss=0.6,
    min_auc=0.6,
    calibration=(0.5, 2.0),
    max_logloss_increase=0.02,
    confidence=0.95,
    score_tolerance=1e-5,
)


def held_out(labels: NDArray[np.float64], size: int = 1, **slices: NDArray[np.bool_]) -> HeldOut:
    """Samples of requests of `size` items, each of its own user."""
    n = np.arange(len(labels)) // size
    return HeldOut({}, labels, n, n, {name: np.flatnonzero(at) for name, at in slices.items()})


def pairs(
    labels: NDArray[np.float64], progressive: float, served: float, by_popularity: int = 0, **slices: NDArray[np.bool_]
) -> Pairs:
    n, ones = np.arange(len(labels)), np.ones(len(labels))
    places = {name: np.flatnonzero(at) for name, at in slices.items()}
    return Pairs(progressive * ones, served * ones, labels, n, places, by_popularity, 0)


def labels_of(n: int, rate: float) -> NDArray[np.float64]:
    return (np.random.default_rng(1).random(n) < rate).astype(np.float64)


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        (Figures(100, 0.6, 0.6, 0.5), []),
        (Figures(100, 0.59, 0.6, 0.5), ["auc"]),
        (Figures(100, 0.6, 0.61, 0.5), ["logloss"]),
        (Figures(100, 0.6, 0.6, 0.49), ["calibration"]),
        (Figures(100, 0.6, 0.6, 2.01), ["calibration"]),
        (Figures(100, None, 0.6, None), []),
        (Figures(100, 0.6, float("nan"), 1.0), ["logloss"]),
        (Figures(99, 0.1, 9.0, 9.0), []),
    ],
)
def test_absolute_thresholds(found: Figures, failed: list[str]) -> None:
    assert [f.check for f in failures(list(absolute(found, "samples", WANTED)))] == failed


def test_increase_within_the_bound_passes_and_above_it_fails() -> None:
    labels = labels_of(2_000, 0.3)
    deployed = np.full(2_000, 0.3)

    near = list(change(np.full(2_000, 0.33), deployed, held_out(labels), WANTED, 1))
    far = list(change(np.full(2_000, 0.6), deployed, held_out(labels), WANTED, 1))

    assert (failures(near), [f.check for f in failures(far)]) == ([], ["logloss_increase"])


def test_increase_that_may_be_chance_passes() -> None:
    labels = labels_of(100, 0.5)
    scores = np.where(np.random.default_rng(2).random(100) < 0.5, 0.3, 0.7)

    found = list(change(scores, np.full(100, 0.5), held_out(labels), WANTED, 1))

    assert found[0].value > WANTED.max_logloss_increase
    assert failures(found) == []


def test_slice_that_gets_worse_fails_by_its_name_while_all_together_get_better() -> None:
    labels = np.concatenate([labels_of(2_000, 0.2), labels_of(200, 0.8)])
    small = np.arange(2_200) >= 2_000

    found = failures(
        list(change(np.full(2_200, 0.2), np.full(2_200, 0.35), held_out(labels, beijing=small), WANTED, 1))
    )

    assert [(f.check, f.slice) for f in found] == [("logloss_increase", "beijing")]
    assert "logloss_increase of beijing is 0." in verdict(found)
    assert "≤ 0.02 is wanted" in verdict(found)


def test_slice_of_too_few_samples_says_nothing() -> None:
    labels = labels_of(200, 0.5)
    few = np.arange(200) < 99

    found = list(change(np.full(200, 0.5), np.full(200, 0.5), held_out(labels, few=few), WANTED, 1))

    assert [f.slice for f in found] == [""]


def test_every_failure_is_in_the_verdict() -> None:
    told = verdict([
        Finding("a", passed=False, value=1, threshold="≤ 0"), Finding("b", passed=True),
        Finding("c", passed=False, slice="page 100", note="why"),
    ])  # fmt: skip

    assert told == "a is 1, ≤ 0 is wanted; c of page 100: why"


def row(source: int, *items: tuple[int, int]) -> dict[str, object]:
    return {"source": source, "event_time": [t for t, _ in items], "label": [label for _, label in items]}


def test_clicks_newer_than_the_newest_negative_of_their_source_are_left_out() -> None:
    old, both, clicked = row(0, (10, 1)), row(0, (20, 0), (20, 1)), row(0, (30, 1), (30, 1))
    other = row(1, (30, 1))

    found = settled([old, both, clicked, other], 1_000)

    assert found == [(old, [0]), (both, [0, 1])]


def test_samples_from_before_the_window_are_left_out() -> None:
    old, edge, newest = row(0, (10, 0)), row(0, (20, 1), (19, 0)), row(0, (30, 0))

    assert settled([old, edge, newest], 10) == [(edge, [0]), (newest, [0])]


@pytest.mark.parametrize(
    ("name", "bound", "interval", "holds"),
    [
        ("gauc", {"min_gauc": 0.6}, Interval(0.5, 0.4, 0.61), True),
        ("gauc", {"min_gauc": 0.6}, Interval(0.5, 0.4, 0.59), False),
        ("ndcg", {"min_ndcg": 0.6}, Interval(0.5, 0.4, 0.59), False),
        ("logloss", {"max_logloss": 0.6}, Interval(0.7, 0.59, 0.8), True),
        ("logloss", {"max_logloss": 0.6}, Interval(0.7, 0.61, 0.8), False),
        ("calibration", {"calibration": (0.5, 2.0)}, Interval(2.1, 1.9, 2.3), True),
        ("calibration", {"calibration": (0.5, 2.0)}, Interval(0.3, 0.2, 0.4), False),
    ],
)
def test_absolute_threshold_is_broken_when_the_whole_interval_is_beyond_it(
    name: str, bound: Any, interval: Interval, *, holds: bool
) -> None:
    told: dict[str, Any] = {"count": 300, "auc": None, "logloss": 0.1, "calibration": None, name: interval.value}

    (found,) = absolute(Figures(**told), "samples", Validation(min_samples=100, **bound), {name: interval})

    assert (found.check, found.passed, found.value) == (name, holds, interval.value)


@pytest.mark.parametrize("check", ["auc", "gauc", "ndcg"])
def test_ranking_that_gets_worse_fails_by_its_threshold_and_slice(check: str) -> None:
    labels = np.tile([1.0, 0.0, 0.0, 0.0], 400)
    right, wrong = np.tile([0.4, 0.2, 0.2, 0.2], 400), np.tile([0.2, 0.3, 0.2, 0.2], 400)
    small = np.arange(1_600) < 400
    bound: dict[str, Any] = {f"max_{check}_decrease": 0.3}
    wanted = Validation(min_samples=100, **bound)

    found = list(change(np.where(small, wrong, right), right, held_out(labels, 4, beijing=small), wanted, 1))
    unchanged = list(change(right, right, held_out(labels, 4, beijing=small), wanted, 1))

    assert [(f.check, f.slice, f.passed) for f in found] == [
        (f"{check}_decrease", "", True), (f"{check}_decrease", "beijing", False),
    ]  # fmt: skip
    assert "≤ 0.3 is wanted: interval " in verdict(found)
    assert failures(unchanged) == []


def test_changes_tell_every_quantity_that_is_decided_by() -> None:
    labels = np.tile([1.0, 0.0], 100)

    found = changes(np.tile([0.2, 0.4], 100), np.tile([0.4, 0.2], 100), held_out(labels, 2), Validation(), 1)

    assert found.keys() == {"logloss_increase", "auc_decrease", "gauc_decrease", "ndcg_decrease"}
    assert found["auc_decrease"] == Interval(1.0, 1.0, 1.0)
    assert found["gauc_decrease"] == Interval(1.0, 1.0, 1.0)
    assert found["ndcg_decrease"].value == pytest.approx(1 - 1 / np.log2(3))


def test_intervals_are_of_all_that_the_samples_tell() -> None:
    scores, both = np.tile([0.4, 0.2], 100), np.tile([1.0, 0.0], 100)

    assert intervals(scores, held_out(both, 2), 0.95, 1).keys() == {"logloss", "calibration", "auc", "gauc", "ndcg"}
    assert intervals(scores, held_out(np.zeros(200), 2), 0.95, 1).keys() == {"logloss"}
    assert intervals(np.zeros(0), held_out(np.zeros(0)), 0.95, 1) == {}


@pytest.mark.parametrize(
    ("positives", "told"), [(1, {"logloss"}), (9, {"logloss"}), (10, {"logloss", "calibration", "auc", "gauc", "ndcg"})]
)
def test_a_handful_of_positives_tells_nothing_of_ranks(positives: int, told: set[str]) -> None:
    labels = np.zeros(600)
    labels[: 60 * positives : 60] = 1.0  # one a request
    scores = np.where(labels > 0, 0.01, 0.02)  # each positive below every negative
    samples = held_out(labels, 60)

    wanted = Validation(
        min_samples=100, max_logloss=0.6, min_auc=0.6, min_gauc=0.6, min_ndcg=0.6, calibration=(0.5, 2.0)
    )

    found = list(absolute(figures(scores, samples), "samples", wanted, intervals(scores, samples, 0.95, 1)))

    assert intervals(scores, samples, 0.95, 1).keys() == told
    assert {f.check for f in found} == told
    assert {f.check for f in failures(found)} == told & {"auc", "gauc", "ndcg"}
    changed = changes(scores, 1 - scores, samples, Validation(), 1)
    assert ("auc_decrease" in changed) == ("auc" in told)
    assert ("gauc_decrease" in changed) == ("gauc" in told)
    assert ("ndcg_decrease" in changed) == ("ndcg" in told)


def test_a_handful_of_positives_that_the_trainer_saw_tells_nothing_of_ranks() -> None:
    told = {"count": 2_000, "positives": 9, "auc": 0.1, "logloss": 0.03, "calibration": 7.0}

    found, _ = quality(evidence(np.zeros(0), 0.3, told), WANTED, 1, base=True)

    assert {f.check: f.passed for f in found} == {"logloss": True}


def test_pairs_tell_the_increase_over_what_was_served_and_what_has_no_pair() -> None:
    labels = labels_of(500, 0.3)

    (better,) = paired(pairs(labels, 0.3, 0.6, by_popularity=7), WANTED, 1)
    (worse,) = paired(pairs(labels, 0.6, 0.3), WANTED, 1)

    assert (better.check, better.passed) == ("served_logloss_increase", True)
    assert better.value < 0
    assert "500 pairs; 7 samples served by popularity" in better.note
    assert not worse.passed


def test_pairs_of_one_slice_fail_by_its_name() -> None:
    labels = np.concatenate([labels_of(2_000, 0.2), labels_of(200, 0.8)])
    small = np.arange(2_200) >= 2_000

    found = failures(list(paired(pairs(labels, 0.2, 0.35, beijing=small), WANTED, 1)))

    assert [(f.check, f.slice) for f in found] == [("served_logloss_increase", "beijing")]


def evidence(labels: NDArray[np.float64], score: float, told: dict[str, float], **more: Any) -> Evidence:
    return Evidence(held_out(labels), np.full(len(labels), score), more.get("deployed"), told, more.get("pairs"))


BAD = {"count": 1_000, "auc": 0.4, "logloss": 0.9, "calibration": 1.0}


def test_pairs_decide_on_an_increment_alone_where_there_are_enough() -> None:
    labels = labels_of(500, 0.3)

    found, measured = quality(evidence(np.zeros(0), 0.3, BAD, pairs=pairs(labels, 0.3, 0.6)), WANTED, 1, base=False)

    assert [f.check for f in found] == ["served_logloss_increase"]
    assert measured["pairs"]["count"] == 500
    assert measured["pairs"]["increase"] < 0


def test_absolute_thresholds_decide_where_pairs_are_too_few() -> None:
    few = pairs(labels_of(99, 0.3), 0.3, 0.6, by_popularity=40)

    found, _ = quality(evidence(np.zeros(0), 0.3, BAD, pairs=few), WANTED, 1, base=False)

    assert [(f.check, f.passed) for f in found] == [
        ("pairs", True), ("logloss", False), ("auc", False), ("calibration", True),
    ]  # fmt: skip
    assert "40 samples served by popularity" in found[0].note


def test_held_out_samples_guard_an_increment_whose_pairs_are_good() -> None:
    labels = labels_of(500, 0.3)
    last_step_went_wrong = evidence(labels, 0.9, BAD, deployed=np.full(500, 0.3), pairs=pairs(labels, 0.3, 0.3))

    found, _ = quality(last_step_went_wrong, WANTED, 1, base=False)

    assert [f.check for f in failures(found)] == ["logloss_increase"]


def test_bases_are_held_to_the_absolute_thresholds_beside_what_serves() -> None:
    labels = labels_of(500, 0.3)

    found, _ = quality(evidence(labels, 0.9, BAD, deployed=np.full(500, 0.9)), WANTED, 1, base=True)

    assert [f.check for f in failures(found)] == ["logloss", "auc", "calibration"]


@pytest.mark.parametrize(("count", "positives", "holds"), [(600, 80, True), (60_000, 8_000, False), (600, 0, False)])
def test_figures_of_the_trainer_that_chance_may_have_made_reject_nothing(
    count: int, positives: int, *, holds: bool
) -> None:
    told = {"count": count, "positives": positives, "auc": 0.56, "logloss": 0.4, "calibration": 1.0}

    found, _ = quality(evidence(np.zeros(0), 0.3, told), WANTED, 1, base=True)

    assert {f.check: f.passed for f in found} == {"logloss": True, "auc": holds, "calibration": True}
