"""Off-policy estimates agree with the package obp, and their intervals hold what they say."""

import math

import numpy as np
import pytest
from headrace_stack.replay.estimate import Vector, ips, judge, snips

ROUNDS, ACTIONS = 1_000, 8

#: (log, policy): (IPS, SNIPS) by InverseProbabilityWeighting and SelfNormalizedInverseProbabilityWeighting of obp 0.5.7:
#: obp/ope/estimators.py of its source distribution (sha256 3060d67f…) was run on Python 3.11 with numpy and scikit-learn, with a
#: stand-in for torch, which these two do not use; `estimate_policy_value(reward=…, action=…, position=…, pscore=…, action_dist=…)`
#: on the arrays that `a_log` and `a_policy` make below.
BY_OBP = {
    (0, "stochastic"): (0.08161781359091899, 0.08212935082178945),
    (0, "deterministic"): (0.040221042573983755, 0.07404783494826382),
    (5, "stochastic"): (0.06535885062101313, 0.08703690882303693),
    (5, "deterministic"): (0.09075051510427116, 0.07584414435875293),
}


def a_log(seed: int) -> tuple[np.ndarray, np.ndarray, Vector, Vector]:
    """Actions, positions, rewards and propensities by formulas, so that any program can make them."""
    i = np.arange(ROUNDS)
    rewards = ((i * 13 + seed) % 11 == 0).astype(float)
    return (i * 7 + seed) % ACTIONS, (i // 2) % 3, rewards, 0.02 + ((i * 17 + seed) % 50) / 100


def a_policy(kind: str) -> Vector:
    """π(action | round, position) as `[round, action, position]`."""
    i = np.arange(ROUNDS)
    if kind == "deterministic":
        chosen = np.zeros((ROUNDS, ACTIONS, 3))
        for position in range(3):
            chosen[i, (i * 5 + 1 + position) % ACTIONS, position] = 1
        return chosen
    logits = ((i[:, None, None] * 3 + np.arange(ACTIONS)[None, :, None] * 5 + np.arange(3)) % 9) / 3
    likely: Vector = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return likely


@pytest.mark.parametrize(("seed", "kind"), BY_OBP)
def test_values_are_those_of_obp(seed: int, kind: str) -> None:
    actions, positions, rewards, propensities = a_log(seed)
    weights = a_policy(kind)[np.arange(ROUNDS), actions, positions] / propensities

    judgement = judge(weights, rewards)

    by_ips, by_snips = BY_OBP[seed, kind]
    assert judgement.ips is not None
    assert judgement.snips is not None
    assert judgement.ips.value == pytest.approx(by_ips, abs=1e-6)
    assert judgement.snips.value == pytest.approx(by_snips, abs=1e-6)


def test_policy_of_the_log_earns_what_it_earned() -> None:
    rewards = np.array([1.0, 0.0, 0.0, 1.0])

    judgement = judge(np.ones(4), rewards)

    assert judgement.ips is not None
    assert judgement.snips is not None
    assert judgement.ips.value == judgement.snips.value == judgement.logged == 0.5
    assert (judgement.rows, judgement.matched, judgement.effective) == (4, 4, 4.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    clicks = np.array(
        [0.1, 0.2, 0.4, 0.1]
    )  # of each item; items are shown by chance, the judged policy shows the third
    held, worlds = np.zeros(2), 300
    for world in range(worlds):
        shown = rng.integers(0, 4, 800)
        rewards = (rng.random(800) < clicks[shown]).astype(float)

        judgement = judge((shown == 2) * 4.0, rewards, resamples=400, seed=world)

        for n, estimate in enumerate((judgement.ips, judgement.snips)):
            assert estimate is not None
            held[n] += estimate.low <= 0.4 <= estimate.high

    assert np.all(held / worlds > 0.90)
    assert np.all(held / worlds < 0.99)


def test_snips_is_the_narrower() -> None:
    actions, positions, rewards, propensities = a_log(0)
    weights = a_policy("stochastic")[np.arange(ROUNDS), actions, positions] / propensities

    judgement = judge(weights, 1 - rewards)

    assert judgement.ips is not None
    assert judgement.snips is not None
    assert judgement.snips.high - judgement.snips.low < judgement.ips.high - judgement.ips.low


@pytest.mark.parametrize(("weights", "logged"), [([], None), ([0.0, 0.0], 0.5)])
def test_without_a_match_there_is_no_estimate(weights: list[float], logged: float | None) -> None:
    judgement = judge(np.array(weights), np.array([1.0, 0.0][: len(weights)]))

    assert judgement.ips is judgement.snips is None
    assert judgement.logged == logged


def test_sums_without_weight_are_no_number() -> None:
    nothing = np.array([])

    assert math.isnan(ips(nothing, nothing))
    assert math.isnan(snips(np.zeros(2), np.ones(2)))


@pytest.mark.parametrize(
    ("weights", "rewards"), [([1.0], [1.0, 0.0]), ([-1.0], [1.0]), ([math.inf], [1.0]), ([math.nan], [1.0])]
)
def test_weights_that_make_no_sense_are_refused(weights: list[float], rewards: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        judge(np.array(weights), np.array(rewards))
