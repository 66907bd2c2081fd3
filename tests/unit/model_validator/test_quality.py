import itertools

import numpy as np
import pytest
from headrace_model_validator.quality import (
    auc,
    auc_interval,
    binomial_intervals,
    calibration,
    grouped_auc,
    losses,
    mean_interval,
    ndcg,
    ratio_interval,
)
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40
)


@given(SAMPLES)
def test_auc_is_the_share_of_pairs_in_order(samples: list[tuple[float, float]]) -> None:
    scores, labels = (np.array(column) for column in zip(*samples, strict=True))
    pairs = [
        (p > n) + (p == n) / 2 for p, n in itertools.product(scores[labels > 0].tolist(), scores[labels == 0].tolist())
    ]

    found = auc(scores, labels)

    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@given(SAMPLES, st.integers(1, 4))
def test_grouped_auc_is_the_mean_of_users_weighted_by_samples(samples: list[tuple[float, float]], users: int) -> None:
    scores, labels = (np.array(column) for column in zip(*samples, strict=True))
    who = np.arange(len(samples)) % users
    of_users = [(auc(scores[who == u], labels[who == u]), int((who == u).sum())) for u in range(users)]
    told = [(value, n) for value, n in of_users if value is not None]

    found = grouped_auc(scores, labels, who)

    assert found == (pytest.approx(sum(v * n for v, n in told) / sum(n for _, n in told)) if told else None)


def test_log_loss_of_certain_and_wrong_is_finite() -> None:
    found = losses(np.array([0.0, 1.0, 0.5]), np.array([1.0, 0.0, 1.0]))

    assert found == pytest.approx([16.118, 16.118, np.log(2)], rel=1e-3)


def test_calibration_is_prediction_over_label() -> None:
    assert calibration(np.array([0.2, 0.4]), np.array([0.0, 1.0])) == pytest.approx(0.6)
    assert calibration(np.array([0.2]), np.array([0.0])) is None


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(100), 3)
    held = 0
    for seed in range(100):
        # Samples of one request stand and fall together: drawing samples would give intervals that are too narrow.
        values = np.repeat(rng.normal(0.5, 1.0, 100), 3)
        found = mean_interval(values, groups, 0.9, seed)
        held += found.low <= 0.5 <= found.high

    assert 80 <= held <= 97


def test_interval_is_the_same_each_time() -> None:
    values, groups = np.arange(30.0), np.arange(30)

    assert mean_interval(values, groups, 0.95, 3) == mean_interval(values, groups, 0.95, 3)


def places(scores: tuple[float, ...]) -> list[tuple[int, ...]]:
    """All orders of the items that fall by score."""
    orders = itertools.permutations(range(len(scores)))
    return [o for o in orders if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))]


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=2, max_size=5))
def test_ndcg_is_the_mean_over_all_orders_of_equal_scores(items: list[tuple[float, bool]]) -> None:
    scores, labels = (tuple(column) for column in zip(*items, strict=True))
    gains = [
        sum(labels[item] / np.log2(place + 2) for place, item in enumerate(order))
        for order in places(scores)
    ]  # fmt: skip
    best = sum(1 / np.log2(place + 2) for place in range(sum(labels)))

    found = ndcg(np.array(scores), np.array(labels, np.float64), np.zeros(len(items), np.int64))

    assert found == (pytest.approx(np.mean(gains) / best) if 0 < sum(labels) < len(labels) else None)


def test_ndcg_is_the_mean_of_requests_that_have_both_labels() -> None:
    requests, labels = np.array([0, 0, 1, 1, 2, 2]), np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    scores = np.array([0.9, 0.1, 0.9, 0.1, 0.5, 0.4])

    assert ndcg(scores, labels, requests) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_interval_of_the_auc_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(7), 0
    groups = np.repeat(np.arange(60), 4)
    for seed in range(60):
        labels = (rng.random(240) < 0.4).astype(np.float64)
        scores = rng.normal(labels, 1.0)  # the AUC is P(N(1, 2) > 0)
        found = auc_interval([scores], labels, groups, 0.9, seed)
        assert found.value == pytest.approx(auc(scores, labels))
        held += found.low <= 0.7602 <= found.high

    assert 47 <= held <= 59


def test_interval_of_a_difference_of_aucs_is_narrower_than_of_each() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(400) < 0.4).astype(np.float64)
    one = rng.normal(labels, 1.0)
    other = one + rng.normal(0.0, 0.05, 400)
    groups = np.arange(400)

    alone = auc_interval([one], labels, groups, 0.95, 1)
    between = auc_interval([one, other], labels, groups, 0.95, 1)

    assert between.high - between.low < (alone.high - alone.low) / 4
    assert between.low <= 0 <= between.high


def test_ratio_is_of_the_sums() -> None:
    found = ratio_interval(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.array([0, 1]), 0.95, 1)

    assert found.value == 2.0
    assert (found.low, found.high) == (1.0, 3.0)


def test_interval_from_counts_is_about_that_of_the_samples() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random(800) < 0.2).astype(np.float64)
    scores = np.clip(rng.normal(0.2 + 0.05 * labels, 0.1), 0.01, 0.99)
    area, calibrated = auc(scores, labels), calibration(scores, labels)
    assert area is not None
    assert calibrated is not None

    of_area, of_calibrated = binomial_intervals(area, calibrated, 800, int(labels.sum()), 0.95)

    of_samples = auc_interval([scores], labels, np.arange(800), 0.95, 1)
    ratio = ratio_interval(scores, labels, np.arange(800), 0.95, 1)
    assert (of_area.low, of_area.high) == pytest.approx((of_samples.low, of_samples.high), abs=0.015)
    assert (of_calibrated.low, of_calibrated.high) == pytest.approx((ratio.low, ratio.high), abs=0.05)
