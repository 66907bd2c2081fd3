"""Weights for delayed feedback meet the loss of the truth."""

import numpy as np
import pytest
from headrace_trainer.stream.delay import DelayedFeedback


def minimum(p: float, late: float, weight_late: float) -> float:
    """The score at which the expected gradient of a stream of impressions with click probability p vanishes."""
    f = 0.5
    for _ in range(20_000):
        negative = (1 - f) / (1 - f + weight_late * f)
        gradient = (1 - (1 - late) * p) * negative * f + p * (f - 1)
        f = 1 / (1 + np.exp(-(np.log(f / (1 - f)) - 0.5 * gradient)))
    return f


@pytest.mark.parametrize("p", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("late", [0.1, 0.5, 0.9])
def test_stream_with_late_clicks_is_learned_without_bias(p: float, late: float) -> None:
    assert minimum(p, late, weight_late=late) == pytest.approx(p, rel=1e-3)
    assert minimum(p, late, weight_late=0) == pytest.approx(p / (1 + late * p), rel=1e-3)  # what the weight is for


def test_shares_follow_the_stream() -> None:
    delay = DelayedFeedback()
    for _ in range(2_000):
        delay.add(samples=100, early=8, late=2, cancelled=1)

    assert delay.late_share == pytest.approx(0.2, abs=0.01)
    assert delay.cancelled_share == pytest.approx(0.1, abs=0.01)

    for _ in range(10_000):
        delay.add(samples=100, early=10, late=0, cancelled=0)

    assert delay.late_share == pytest.approx(0.0, abs=0.01)


def test_nothing_seen_is_nothing_late() -> None:
    delay = DelayedFeedback()

    assert delay.late_share == delay.cancelled_share == 0


def test_restored_shares_are_the_same_bits() -> None:
    delay, other = DelayedFeedback(), DelayedFeedback()
    for n in range(50):
        delay.add(100 + n, 7, 3, 1)

    other.restore(delay.as_json())

    assert other.late_share == delay.late_share
