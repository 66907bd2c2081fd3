r"""What a policy would have earned where a log shows what another one did: off-policy estimates.

A log has rows i with the action a_i that its policy took in context x_i with probability p_i (the propensity), and the reward r_i.
For the policy π to be judged the weights are w_i = π(a_i | x_i) / p_i, and

- IPS, inverse propensity scoring (Horvitz and Thompson 1952): V = (1/n) Σ w_i r_i. Unbiased where p_i > 0 wherever π > 0.
- SNIPS, self-normalised (Swaminathan and Joachims, NeurIPS 2015): V = Σ w_i r_i / Σ w_i. Biased by O(1/n), of much smaller
  variance, and never out of the rewards' range.

A ranking is deterministic: π is 1 for the item that it puts on the position of the row, else 0.
Intervals are percentiles of the bootstrap over rows; the denominator of SNIPS is drawn anew with the numerator.
n_eff = (Σ w)² / Σ w² (Kish) tells how many rows there would be if all weighed the same.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_RESAMPLES: Final = 2_000

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is estimated of a policy.

    Attributes:
        rows: of the log.
        matched: rows whose weight is not 0: where the policy would have done as the log's did.
        effective: n_eff, see the module.
        logged: mean reward of the log's own policy in these rows.
        ips, snips: of the judged policy; None without rows, or where no row matches.
    """

    rows: int
    matched: int
    effective: float
    logged: float | None
    ips: Estimate | None
    snips: Estimate | None


def ips(weights: Vector, rewards: Vector) -> float:
    """Inverse propensity scoring; NaN without rows."""
    return float(np.mean(weights * rewards)) if len(weights) else float("nan")


def snips(weights: Vector, rewards: Vector) -> float:
    """Self-normalised inverse propensity scoring; NaN when no weight is above 0."""
    total = float(np.sum(weights))
    return float(np.sum(weights * rewards)) / total if total > 0 else float("nan")


def judge(
    weights: Vector, rewards: Vector, *, resamples: int = _RESAMPLES, level: float = 0.95, seed: int = 0
) -> Judgement:
    """Estimates with intervals of this level.

    Args:
        weights: w of each row, not negative.
        rewards: of each row.
        resamples: bootstrap draws.
        level: share of them inside an interval.
        seed: of the draws.

    Raises:
        ValueError: weights and rewards are not of one length, or a weight is negative or no number.
    """
    weights, rewards = np.asarray(weights, float), np.asarray(rewards, float)
    if weights.shape != rewards.shape or weights.ndim != 1:
        raise ValueError(f"weights {weights.shape} and rewards {rewards.shape} are not two vectors of one length")
    if not np.all(weights >= 0) or not np.all(np.isfinite(weights)):
        raise ValueError("weights must be finite and not negative")
    matched, total = int(np.count_nonzero(weights)), float(np.sum(weights))
    if not matched:
        logged = float(np.mean(rewards)) if len(rewards) else None
        return Judgement(len(weights), 0, 0.0, logged, None, None)
    sums, products = _drawn(weights, rewards, resamples, seed)
    tail = 50 * (1 - level)
    with np.errstate(invalid="ignore"):
        ratios = products / sums  # a draw without a matching row tells nothing
    low, high = np.percentile(products / len(weights), [tail, 100 - tail])
    low_ratio, high_ratio = np.nanpercentile(ratios, [tail, 100 - tail])
    return Judgement(
        rows=len(weights),
        matched=matched,
        effective=total**2 / float(np.sum(weights**2)),
        logged=float(np.mean(rewards)),
        ips=Estimate(ips(weights, rewards), float(low), float(high)),
        snips=Estimate(snips(weights, rewards), float(low_ratio), float(high_ratio)),
    )


def _drawn(weights: Vector, rewards: Vector, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Σ w and Σ w·r of each resample. Equal rows are drawn as one: how often each comes is multinomial."""
    pairs, counts = np.unique(np.stack([weights, rewards], axis=1), axis=0, return_counts=True)
    times = np.random.default_rng(seed).multinomial(len(weights), counts / len(weights), size=resamples)
    return times @ pairs[:, 0], times @ (pairs[:, 0] * pairs[:, 1])
