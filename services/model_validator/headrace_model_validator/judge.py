"""Whether a candidate is good enough. Pure.

Every figure has its interval; a bound is broken when the whole interval is beyond it. So what a few samples may show by chance
rejects nothing, and what they show beyond doubt does. Figures of a handful of positives, users or requests have no interval worth
the name (a bootstrap over one positive draws it again or not at all), so they tell nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from headrace_core.definitions.models import Validation
from numpy.typing import NDArray

from headrace_model_validator.findings import Finding
from headrace_model_validator.held_out import HeldOut
from headrace_model_validator.pairs import Pairs
from headrace_model_validator.quality import (
    Floats,
    Interval,
    auc,
    auc_interval,
    binomial_intervals,
    calibration,
    grouped_auc,
    losses,
    mean_interval,
    ndcg,
    ratio_interval,
    request_ndcgs,
    user_aucs,
)

#: What an interval at a confidence is of, from a seed; None where the samples do not tell.
_Measure: TypeAlias = Callable[[NDArray[np.intp], float, int], Interval | None]

_HELD_OUT: Final = "held-out samples"
#: Fewer of these tell nothing: positives and negatives of an AUC, positives of a calibration, users of the AUC within them,
#: requests of an NDCG.
_LEAST: Final = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one version on some samples; None where the samples do not tell."""

    count: int
    auc: float | None
    logloss: float
    calibration: float | None
    gauc: float | None = None
    ndcg: float | None = None


def figures(scores: Floats, samples: HeldOut) -> Figures:
    """Of all samples."""
    labels = samples.labels
    users, _, _ = user_aucs(scores, labels, samples.users)
    requests, _ = request_ndcgs(scores, labels, samples.requests)
    return Figures(
        len(samples),
        auc(scores, labels) if _ranks(labels) else None,
        float(losses(scores, labels).mean()) if len(samples) else 0.0,
        calibration(scores, labels) if labels.sum() >= _LEAST else None,
        grouped_auc(scores, labels, samples.users) if len(users) >= _LEAST else None,
        ndcg(scores, labels, samples.requests) if len(requests) >= _LEAST else None,
    )


def _ranks(labels: Floats) -> bool:
    """Whether there is enough of both labels for an AUC."""
    positives = labels.sum()
    return bool(min(positives, len(labels) - positives) >= _LEAST)


def intervals(scores: Floats, samples: HeldOut, confidence: float, seed: int) -> dict[str, Interval]:
    """Of each figure that the samples tell. Requests are drawn anew, and users for the AUC within them."""
    labels, requests = samples.labels, samples.requests
    found: dict[str, Interval] = {}
    if not len(samples):
        return found
    found["logloss"] = mean_interval(losses(scores, labels), requests, confidence, seed)
    if labels.sum() >= _LEAST:
        found["calibration"] = ratio_interval(scores, labels, requests, confidence, seed)
    if _ranks(labels):
        found["auc"] = auc_interval([scores], labels, requests, confidence, seed)
    users, values, counts = user_aucs(scores, labels, samples.users)
    if len(users) >= _LEAST:
        found["gauc"] = ratio_interval(values * counts, counts, users, confidence, seed)
    told, values = request_ndcgs(scores, labels, requests)
    if len(told) >= _LEAST:
        found["ndcg"] = mean_interval(values, told, confidence, seed)
    return found


def progressive(metrics: Mapping[str, Any]) -> Figures:
    """What the trainer measured before it learned each sample."""

    def number(name: str) -> float | None:
        value = metrics.get(name)
        return float(value) if isinstance(value, int | float) else None

    count, positives = int(number("count") or 0), int(number("positives") or 0)
    told = positives >= _LEAST or not positives  # without a number the figures stand by themselves
    ranked = told and count - positives >= _LEAST
    return Figures(
        count, number("auc") if ranked else None, number("logloss") or 0.0, number("calibration") if told else None
    )


def progressive_intervals(metrics: Mapping[str, Any], confidence: float) -> dict[str, Interval]:
    """Of those of the trainer's figures whose uncertainty their counts tell; none without enough of both labels."""
    told, positives = progressive(metrics), int(metrics.get("positives") or 0)
    if told.auc is None or told.calibration is None or not positives:
        return {}
    area, calibrated = binomial_intervals(told.auc, told.calibration, told.count, positives, confidence)
    return {"auc": area, "calibration": calibrated}


def absolute(
    found: Figures, whose: str, wanted: Validation, sure: Mapping[str, Interval] | None = None
) -> Iterator[Finding]:
    """Thresholds that need no other version.

    Args:
        found: figures of the candidate.
        whose: samples, in words.
        wanted: thresholds.
        sure: intervals by figure; without one the value itself decides.
    """
    if found.count < wanted.min_samples:
        yield Finding("samples", True, found.count, f"≥ {wanted.min_samples}", note=f"too few {whose} to tell quality")
        return
    bounds = {
        "logloss": (-np.inf, wanted.max_logloss),
        "auc": (wanted.min_auc, np.inf),
        "gauc": (wanted.min_gauc, np.inf),
        "ndcg": (wanted.min_ndcg, np.inf),
        "calibration": wanted.calibration,
    }
    for name, (low, high) in bounds.items():
        value = getattr(found, name)
        if value is None or (np.isneginf(low) and np.isposinf(high)):
            continue
        known = (sure or {}).get(name)
        at = known or Interval(value, value, value)
        told = f"{low:g} to {high:g}" if np.isfinite([low, high]).all() else _one_sided(low, high)
        note = f"interval {at.low:.4f} to {at.high:.4f}, {found.count} {whose}" if known else whose
        yield Finding(name, bool(at.low <= high and at.high >= low), value, told, note=note)


def _one_sided(low: float, high: float) -> str:
    return f"≤ {high:g}" if np.isneginf(low) else f"≥ {low:g}"


def change(candidate: Floats, deployed: Floats, samples: HeldOut, wanted: Validation, seed: int) -> Iterator[Finding]:
    """Thresholds of change, between two versions that both score the same samples, in total and per slice.

    Args:
        candidate: scores.
        deployed: scores of the same samples.
        samples: that both scored.
        wanted: thresholds.
        seed: of the bootstrap.
    """
    if len(samples) < wanted.min_samples:
        note = "too few held-out samples to compare versions"
        yield Finding("samples", True, len(samples), f"≥ {wanted.min_samples}", note=note)
        return
    for check, (bound, measure) in _changes(candidate, deployed, samples, wanted).items():
        yield from _sliced(check, bound, measure, samples, wanted, seed)


def changes(
    candidate: Floats, deployed: Floats, samples: HeldOut, wanted: Validation, seed: int
) -> dict[str, Interval]:
    """The same quantities in total, without a bound; those that the samples tell."""
    every = np.arange(len(samples))
    told = _changes(candidate, deployed, samples, wanted)
    found = {check: measure(every, wanted.confidence, seed) for check, (_, measure) in told.items()}
    return {check: interval for check, interval in found.items() if interval is not None}


def _changes(
    candidate: Floats, deployed: Floats, samples: HeldOut, wanted: Validation
) -> dict[str, tuple[float, _Measure]]:
    """By check: its bound, and how the figure of some of the samples is measured; above the bound is worse."""
    labels, requests = samples.labels, samples.requests
    increase = losses(candidate, labels) - losses(deployed, labels)

    def of_logloss(at: NDArray[np.intp], confidence: float, seed: int) -> Interval | None:
        return mean_interval(increase[at], requests[at], confidence, seed)

    def of_auc(at: NDArray[np.intp], confidence: float, seed: int) -> Interval | None:
        if not _ranks(labels[at]):
            return None
        return auc_interval([deployed[at], candidate[at]], labels[at], requests[at], confidence, seed)

    def of_gauc(at: NDArray[np.intp], confidence: float, seed: int) -> Interval | None:
        users, mine, counts = user_aucs(candidate[at], labels[at], samples.users[at])
        _, theirs, _ = user_aucs(deployed[at], labels[at], samples.users[at])
        enough = len(users) >= _LEAST
        return ratio_interval((theirs - mine) * counts, counts, users, confidence, seed) if enough else None

    def of_ndcg(at: NDArray[np.intp], confidence: float, seed: int) -> Interval | None:
        told, mine = request_ndcgs(candidate[at], labels[at], requests[at])
        _, theirs = request_ndcgs(deployed[at], labels[at], requests[at])
        return mean_interval(theirs - mine, told, confidence, seed) if len(told) >= _LEAST else None

    return {
        "logloss_increase": (wanted.max_logloss_increase, of_logloss),
        "auc_decrease": (wanted.max_auc_decrease, of_auc),
        "gauc_decrease": (wanted.max_gauc_decrease, of_gauc),
        "ndcg_decrease": (wanted.max_ndcg_decrease, of_ndcg),
    }


def paired(pairs: Pairs, wanted: Validation, seed: int) -> Iterator[Finding]:
    """The increase of log loss from what was served to what the trainer said of the same samples before it learned them.

    Args:
        pairs: of the last minutes.
        wanted: thresholds.
        seed: of the bootstrap.
    """
    if len(pairs) < wanted.min_samples:
        note = f"too few pairs, other samples decide; {pairs.unpaired}"
        yield Finding("pairs", True, len(pairs), f"≥ {wanted.min_samples}", note=note)
        return
    increase = losses(pairs.progressive, pairs.labels) - losses(pairs.served, pairs.labels)

    def measure(at: NDArray[np.intp], confidence: float, seed: int) -> Interval | None:
        return mean_interval(increase[at], pairs.requests[at], confidence, seed)

    bound = wanted.max_logloss_increase
    for found in _sliced("served_logloss_increase", bound, measure, pairs, wanted, seed):
        yield found if found.slice else found.noting(pairs.unpaired)


def paired_figures(pairs: Pairs, confidence: float, seed: int) -> dict[str, float]:
    """What the pairs tell in total; counts alone where there is none."""
    found = {"count": float(len(pairs)), "by_popularity": float(pairs.by_popularity), "gone": float(pairs.gone)}
    if not len(pairs):
        return found
    mine, theirs = losses(pairs.progressive, pairs.labels), losses(pairs.served, pairs.labels)
    increase = mean_interval(mine - theirs, pairs.requests, confidence, seed)
    return found | {
        "progressive_logloss": float(mine.mean()), "served_logloss": float(theirs.mean()),
        "increase": increase.value, "increase_low": increase.low, "increase_high": increase.high,
    }  # fmt: skip


def _sliced(  # noqa: PLR0913, PLR0917  # one threshold and all that it is measured by
    check: str, bound: float, measure: _Measure, samples: HeldOut | Pairs, wanted: Validation, seed: int
) -> Iterator[Finding]:
    """One threshold of change, in total and per slice.

    The intervals of the slices are widened so that all hold together (Bonferroni): many slices reject no more often than one.
    """
    if np.isposinf(bound):
        return
    count = len(samples)
    slices = {name: at for name, at in samples.slices.items() if wanted.min_samples <= len(at) < count}
    whose = "pairs" if isinstance(samples, Pairs) else _HELD_OUT
    for name, at in {"": np.arange(count), **slices}.items():
        confidence = 1 - (1 - wanted.confidence) / len(slices) if name else wanted.confidence
        if (found := measure(at, confidence, seed)) is not None:
            told = f"interval {found.low:.4f} to {found.high:.4f}, {len(at)} {whose}"
            yield Finding(check, bool(found.low <= bound), found.value, f"≤ {bound:g}", name, told)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that quality is judged by.

    Attributes:
        held: the newest held-out samples.
        candidate: its scores of these.
        deployed: scores of what serves; None where nothing serves, or what serves reads other inputs.
        told: the trainer's own figures, as the manifest has them.
        pairs: of an increment while something is deployed, else None.
    """

    held: HeldOut
    candidate: Floats
    deployed: Floats | None
    told: Mapping[str, Any]
    pairs: Pairs | None


def quality(
    evidence: Evidence, wanted: Validation, seed: int, *, base: bool
) -> tuple[list[Finding], dict[str, dict[str, Any]]]:
    """All findings of quality, and the figures behind them.

    An increment is judged by its pairs, and where these are too few by the absolute thresholds. The held-out samples are its guard
    in any case, if there are enough: they alone are scored by the very weights that are to serve.

    Args:
        evidence: scores and labels.
        wanted: thresholds.
        seed: of the bootstrap.
        base: whether it is a base, not an increment.
    """
    held, pairs = evidence.held, evidence.pairs
    mine = figures(evidence.candidate, held)
    measured: dict[str, dict[str, Any]] = {"held_out": asdict(mine)}
    findings: list[Finding] = []
    if pairs is not None:
        findings += paired(pairs, wanted, seed)
        measured["pairs"] = paired_figures(pairs, wanted.confidence, seed)
    if base or pairs is None or len(pairs) < wanted.min_samples:
        told = progressive(evidence.told)
        if mine.count >= wanted.min_samples or told.count < wanted.min_samples:
            sure = intervals(evidence.candidate, held, wanted.confidence, seed)
            findings += absolute(mine, _HELD_OUT, wanted, sure)
        else:
            sure = progressive_intervals(evidence.told, wanted.confidence)
            findings += absolute(told, "samples before they were learned", wanted, sure)
    if evidence.deployed is not None:
        measured["held_out_deployed"] = asdict(figures(evidence.deployed, held))
        findings += change(evidence.candidate, evidence.deployed, held, wanted, seed)
    return findings, measured
