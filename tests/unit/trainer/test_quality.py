"""Figures of scored samples."""

import numpy as np
import pytest
from headrace_trainer.quality import RollingQuality, quality, tally

RANDOM = np.random.default_rng(5)
SCORES = RANDOM.random(400).astype(np.float32)
LABELS = (RANDOM.random(400) < SCORES).astype(np.float32)


def naive_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    positive, negative = scores[labels > 0], scores[labels == 0]
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return float(np.mean(wins))


def test_figures_are_those_of_their_definitions() -> None:
    found = quality(tally(SCORES, LABELS))

    assert (found.count, found.positives) == (400, int(LABELS.sum()))
    assert found.auc == pytest.approx(naive_auc(SCORES, LABELS), abs=2e-3)
    assert found.logloss == pytest.approx(
        -np.mean(LABELS * np.log(SCORES) + (1 - LABELS) * np.log(1 - SCORES)), rel=1e-5
    )
    assert found.calibration == pytest.approx(SCORES.mean() / LABELS.mean(), rel=1e-5)


def test_tallies_add_up() -> None:
    parts = tally(SCORES[:100], LABELS[:100]) + tally(SCORES[100:], LABELS[100:])

    assert quality(parts) == quality(tally(SCORES, LABELS))


def test_certain_scores_have_finite_loss() -> None:
    found = quality(tally(np.array([0, 1], np.float32), np.array([1, 0], np.float32)))

    assert found.logloss == pytest.approx(-np.log(1e-7), rel=1e-3)
    assert found.auc == 0


def test_no_sample_or_one_kind_tells_nothing() -> None:
    assert quality(tally(SCORES[:0], LABELS[:0])).auc == 0.5
    assert quality(tally(SCORES, np.zeros_like(LABELS))).calibration == 1


def test_window_forgets() -> None:
    window = RollingQuality(60_000)
    window.add(SCORES, LABELS, 1_000_000)
    window.add(SCORES[:10], LABELS[:10], 1_030_000)
    assert window.quality().count == 410

    window.add(SCORES[:1], LABELS[:1], 1_075_000)

    assert window.quality().count == 11


def test_restored_window_goes_on() -> None:
    window, other = RollingQuality(60_000), RollingQuality(60_000)
    window.add(SCORES, LABELS, 1_000_000)

    other.restore(window.arrays())
    for w in (window, other):
        w.add(SCORES[:5], LABELS[:5], 1_001_000)

    assert other.quality() == window.quality()
