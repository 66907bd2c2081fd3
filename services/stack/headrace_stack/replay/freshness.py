"""How fresh things were meanwhile: headrace_freshness_seconds of every process, before and after."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

_BUCKET: Final = "headrace_freshness_seconds_bucket"
_TIMEOUT_S: Final = 5.0

#: Cumulative counts by process, stage and upper bound.
Counts = dict[tuple[str, str], dict[float, float]]


def scrape(processes: Iterable[Mapping[str, Any]]) -> Counts:
    """Counts of all processes; one that does not answer has none."""
    addresses = [f"{process['metrics']}/metrics" for process in processes if process.get("metrics")]
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        texts = list(pool.map(_text, addresses))
    counts: Counts = {}
    for address, text in zip(addresses, texts, strict=True):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _BUCKET:
                    stage = counts.setdefault((address, sample.labels["stage"]), {})
                    bound = float(sample.labels["le"])
                    stage[bound] = stage.get(bound, 0.0) + sample.value
    return counts


def _text(address: str) -> str:
    try:
        return httpx.get(address, timeout=_TIMEOUT_S).raise_for_status().text
    except httpx.HTTPError:
        return ""


def quantiles(before: Counts, after: Counts, wanted: Iterable[float] = (0.5, 0.99)) -> dict[str, dict[str, float]]:
    """Per stage the smallest bounds under which these shares of what came between lie, as p50, p99, in seconds.

    A process that was started anew meanwhile counts from its start.
    """
    between: dict[str, dict[float, float]] = {}
    for (address, stage), buckets in after.items():
        old = before.get((address, stage), {})
        restarted = any(old.get(bound, 0.0) > count for bound, count in buckets.items())
        sums = between.setdefault(stage, {})
        for bound, count in buckets.items():
            sums[bound] = sums.get(bound, 0.0) + count - (0.0 if restarted else old.get(bound, 0.0))
    found: dict[str, dict[str, float]] = {}
    for stage, sums in sorted(between.items()):
        total = max(sums.values(), default=0.0)
        if total:
            found[stage] = {
                f"p{share * 100:g}": min(bound for bound, count in sums.items() if count >= share * total)
                for share in wanted
            }
    return found
