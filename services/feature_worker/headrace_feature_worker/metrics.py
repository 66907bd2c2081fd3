"""Metrics of the feature worker, observed per checkpoint."""

from typing import Final

from prometheus_client import Counter

EXPIRED: Final = Counter(
    "headrace_feature_expired_total", "Events and counts that came after their window, by feature.", ["feature"]
)
