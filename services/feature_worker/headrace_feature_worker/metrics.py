"""Metrics of the feature worker, observed per checkpoint."""

from typing import Final

from prometheus_client import Counter

EXPIRED: Final = Counter(
    "headrace_feature_expired_total", "Events and counts that came after their window, by feature.", ["feature"]
)
DROPPED: Final = Counter(
    "headrace_feature_dropped_total",
    "Counts of a definition that the worker does not know, gone because too many waited, by feature.",
    ["feature"],
)
