"""What a replay ends with: what was sent, and what the platform's own tables say became of it."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import psycopg
from headrace_core.control.client import ControlClient, ControlError

from headrace_stack import look
from headrace_stack.replay.estimate import Estimate, Judgement, judge
from headrace_stack.replay.player import Tally

_LOOK_EVERY_S: Final = 0.5
#: An impression whose feature log is late is an orphan until it comes; orphans that do not change for so long stay.
_REPAIR_S: Final = 10.0
_MOST_VERSIONS: Final = 500


def since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """What was added."""
    return {name: count - before.get(name, 0) for name, count in now.items()}


def missing(accounted: Mapping[str, int], sent: int) -> int:
    """Impressions that were acknowledged and that the joiner has not counted, repeated ones apart."""
    return sent - (accounted["impressions"] - accounted["duplicate"])


def settled(dsn: str, before: Mapping[str, int], sent: Tally, patience_s: float) -> dict[str, int]:
    """Sums since `before`, as soon as every impression is counted, none is pending and every click is in, or patience is over.

    A click that comes after its impression's window corrects a sample that is pending no more, and a late feature log makes a
    sample of an orphan.
    """
    end = time.monotonic() + patience_s
    last: dict[str, int] | None = None
    changed = time.monotonic()
    while True:
        try:
            found = since(before, look.accounting(dsn))
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
        else:
            now = time.monotonic()
            if found != last:
                last, changed = found, now
            counted = missing(found, sent.impressions) <= 0 and not found["pending"]
            clicked = found["positive"] + found["orphaned"] >= sent.clicks
            repaired = not found["orphaned"] or now - changed >= _REPAIR_S
            if (counted and clicked and repaired) or now > end:
                return found
        time.sleep(_LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of a model in the time of the replay.

    Attributes:
        made, validated, rejected, deployed: how many reached that stage.
        serving: the deployed one now, None if there is none.
    """

    made: int
    validated: int
    rejected: int
    deployed: int
    serving: int | None


def versions_since(control: str, began_ms: int) -> dict[str, Versions]:
    """By model name; none of a control plane that does not answer."""
    try:
        return asyncio.run(_versions_since(control, began_ms))
    except ControlError:
        return {}


async def _versions_since(control: str, began_ms: int) -> dict[str, Versions]:
    found: dict[str, Versions] = {}
    async with ControlClient(control, "replay", patience_seconds=10.0) as client:
        for model in ("ctr_base", "ctr"):
            versions = await client.versions(model, limit=_MOST_VERSIONS)
            reached = [
                {str(step["stage"]) for step in version.history if int(step["time"]) >= began_ms}
                for version in versions
            ]
            made, validated, rejected, deployed = (
                sum(stage in stages for stages in reached)
                for stage in ("GENERATED", "VALIDATED", "REJECTED", "DEPLOYED")
            )
            serving = next((v.version for v in versions if v.stage == "DEPLOYED"), None)
            found[model] = Versions(made, validated, rejected, deployed, serving)
    return found


def judgements(tally: Tally) -> dict[str, Judgement]:
    """Estimates of what answered: in all judged rows, and in those that a model answered."""
    if not tally.weights:
        return {}
    weights, rewards = np.array(tally.weights), np.array(tally.rewards)
    by_model = np.array(tally.by_model, dtype=bool)
    return {"as_served": judge(weights, rewards), "by_model": judge(weights[by_model], rewards[by_model])}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything.

    Attributes:
        log: its name.
        seconds: this run of the command took, without waiting for the samples.
        sent_now: impressions of this run alone.
        tally: what was sent.
        bad_rows: how many rows of the log could not be used, and the first of them.
        accounting: since the beginning; None without a database to ask.
        freshness: by stage.
        versions: by model.
        judged: estimates.
    """

    log: str
    seconds: float
    sent_now: int
    tally: Tally
    bad_rows: tuple[int, list[str]]
    accounting: dict[str, int] | None
    freshness: dict[str, dict[str, float]]
    versions: dict[str, Versions]
    judged: dict[str, Judgement]

    @property
    def lost(self) -> int | None:
        """Accepted impressions that the platform's tables do not know."""
        return None if self.accounting is None else missing(self.accounting, self.tally.impressions)

    @property
    def faults(self) -> list[str]:
        """What does not hold, in words."""
        found = []
        told = self.accounting
        if told is not None:
            accounted = told["joined"] + told["orphaned"] + told["duplicate"] + told["pending"]
            if accounted != told["impressions"]:
                found.append(f"{told['impressions']} impressions, but {accounted} accounted for")
            if self.lost:
                found.append(f"{self.lost} accepted impressions were not counted in the time to settle")
            elif not told["pending"] and not told["orphaned"] and told["positive"] != self.tally.clicks:
                found.append(f"{self.tally.clicks} clicks, but {told['positive']} positives")
        return found

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        tally = self.tally
        told: dict[str, Any] = _finite({
            "log": self.log,
            "seconds": round(self.seconds, 3),
            "impressions_per_s": round(self.sent_now / self.seconds, 1) if self.seconds else None,
            "events": tally.impressions + tally.clicks,
            "impressions": tally.impressions,
            "clicks": tally.clicks,
            "requests": tally.slates,
            "ranked_again": tally.ranked_again,
            "answers_by_version": {str(k): v for k, v in sorted(tally.versions.items())},
            "degraded": tally.degraded,
            "bad_rows": {"count": self.bad_rows[0], "first": self.bad_rows[1]},
            "refused": {"count": tally.refused.count, "first": tally.refused.first},
            "samples": None if self.accounting is None else self.accounting["joined"],
            "positives": None if self.accounting is None else self.accounting["positive"],
            "corrections": None if self.accounting is None else self.accounting["corrected"],
            "accounting": self.accounting,
            "lost": self.lost,
            "faults": self.faults,
            "freshness_s": self.freshness,
            "models": {name: asdict(versions) for name, versions in self.versions.items()},
            "estimates": {name: asdict(judgement) for name, judgement in self.judged.items()},
        })  # fmt: skip
        return told

    def facts(self) -> dict[str, str | None]:
        """For people."""
        tally, told = self.tally, self.accounting
        facts: dict[str, str | None] = {
            "replayed": f"{tally.impressions:,} impressions and {tally.clicks:,} clicks of {self.log}",
            "speed": f"{self.sent_now / self.seconds:,.0f} impressions/s, {self.seconds:,.1f} s" if self.seconds else None,
            "requests": _but(f"{tally.slates:,}", tally.degraded, "degraded", tally.ranked_again, "ranked again"),
            "answered by": ", ".join(
                f"{'popularity' if not v else f'version {v}'} {n:,}" for v, n in sorted(tally.versions.items())
            ) or None,
            "bad rows": _rows(*self.bad_rows),
            "refused": _rows(tally.refused.count, tally.refused.first),
        }  # fmt: skip
        if told is not None:
            facts |= {
                "samples": f"{told['joined']:,}: {told['positive']:,} positive, {told['negative']:,} negative, "
                f"{told['corrected']:,} corrections",
                "accounting": f"{told['impressions']:,} impressions = {told['joined']:,} joined + {told['orphaned']:,} orphaned "
                f"+ {told['duplicate']:,} duplicate + {told['pending']:,} pending",
                "lost": str(self.lost),
            }
        for stage, shares in self.freshness.items():
            facts[f"freshness, {stage}"] = ", ".join(f"{name} ≤ {_seconds(bound)}" for name, bound in shares.items())
        for model, v in self.versions.items():
            facts[f"model {model}"] = (
                f"{v.made} made, {v.validated} validated, {v.rejected} rejected, {v.deployed} deployed"
                + (f"; version {v.serving} serves" if v.serving else "")
            )
        for name, judgement in self.judged.items():
            facts |= _estimates(name.replace("_", " "), judgement)
        return facts


def _but(count: str, *others: Any) -> str:
    pairs = [f"{n:,} {what}" for n, what in zip(others[::2], others[1::2], strict=True) if n]
    return count + (f" ({', '.join(pairs)})" if pairs else "")


def _rows(count: int, first: list[str]) -> str | None:
    if not count:
        return None
    more = f"; and {count - len(first):,} more" if count > len(first) else ""
    return f"{count:,}: {'; '.join(first)}{more}"


def _seconds(bound: float) -> str:
    return "more than every bound" if math.isinf(bound) else f"{bound:g} s"


def _estimates(name: str, judgement: Judgement) -> dict[str, str | None]:
    head = f"{judgement.rows:,} rows, {judgement.matched:,} match (n_eff {judgement.effective:,.0f})"
    if judgement.snips is None or judgement.ips is None:
        return {f"estimate {name}": f"{head}: none"}
    return {
        f"estimate {name}": f"{head}; the log's own policy {_share(judgement.logged)}",
        f"  SNIPS {name}": _interval(judgement.snips),
        f"  IPS {name}": _interval(judgement.ips),
    }


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3%}"


def _interval(estimate: Estimate) -> str:
    return f"{_share(estimate.value)} [{_share(estimate.low)}, {_share(estimate.high)}]"


def _finite(value: Any) -> Any:
    """JSON has no infinity: null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
