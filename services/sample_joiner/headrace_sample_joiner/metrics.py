"""Metrics of the joiner, observed per checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Final

from headrace_core.telemetry import FRESHNESS_SECONDS
from prometheus_client import Counter, Gauge

from headrace_sample_joiner.joiner.effects import Counts

JOIN_ROWS: Final = Counter("headrace_join_rows_total", "Impressions, by what became of them.", ["state"])
CORRECTIONS: Final = Counter("headrace_corrections_total", "Published samples whose label changed.")
ACCOUNTING: Final = Gauge(
    "headrace_accounting",
    "Impressions of a source partition since its beginning, and what became of them: samples.accounting.",
    ["source_partition", "state"],
)


def observe(counts: Counts, freshness: Sequence[float]) -> None:
    """Count a checkpoint's outcome; what an orphan's repair takes back is not counted down."""
    for state in ("positive", "negative", "orphaned", "duplicate"):
        JOIN_ROWS.labels(state).inc(max(0, getattr(counts, state)))
    CORRECTIONS.inc(counts.corrected)
    for seconds in freshness[:: max(1, len(freshness) // 32)]:
        FRESHNESS_SECONDS.labels("sample").observe(max(0.0, seconds))


def show_accounting(source: int, totals: Mapping[str, int]) -> None:
    """Tell a partition's whole account; impressions = joined + orphaned + duplicate + pending, or something is lost."""
    for state in ("impressions", "joined", "orphaned", "duplicate", "pending"):
        ACCOUNTING.labels(source, state).set(totals[state])
