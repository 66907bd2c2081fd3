"""What serves beside a base that stays frozen: both log losses on the same new samples, over time. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace_core.contracts import Millis

from headrace_control_plane.console.markup import moment

Json = Mapping[str, Any]

LIVE, FROZEN = "live", "frozen"
#: Recorded with the version that served, at one time: `headrace models frozen MODEL --record`.
_NAMES: Final = {"live_logloss": "live", "frozen_logloss": "frozen", "gap_low": "low", "gap_high": "high"}


@dataclass(frozen=True, slots=True)
class Beside:
    """One measurement, of both on the same held-out samples.

    Attributes:
        time: of the measurement.
        version: what served.
        live: its log loss.
        frozen: the base's.
        low, high: bounds of the interval of frozen minus live; None where it was not recorded.
    """

    time: Millis
    version: int
    live: float
    frozen: float
    low: float | None = None
    high: float | None = None

    @property
    def gap(self) -> float:
        """By how much the one that serves is better."""
        return self.frozen - self.live


def measurements(recorded: Mapping[int, Sequence[Json]]) -> list[Beside]:
    """All measurements, oldest first.

    Args:
        recorded: metrics over time, by version.
    """
    found: dict[tuple[Millis, int], dict[str, float]] = {}
    for version, items in recorded.items():
        for item in items:
            name, value = _NAMES.get(str(item["name"])), item["value"]
            if name is not None and value is not None and math.isfinite(value):
                found.setdefault((item["time"], version), {})[name] = float(value)
    return [
        Beside(*key, told["live"], told["frozen"], told.get("low"), told.get("high"))
        for key, told in sorted(found.items())
        if told.keys() >= {"live", "frozen"}
    ]


def words(found: Sequence[Beside]) -> str:
    """The newest gap, as HTML."""
    if not found:
        return ""
    last = found[-1]
    sure = last.low is not None and last.high is not None
    verdict = "better" if last.gap > 0 else "worse"
    if sure and last.low is not None and last.high is not None and last.low <= 0 <= last.high:
        verdict = "not told apart from it yet"
    interval = f" ({last.low:+.4f} to {last.high:+.4f})" if sure else ""
    figures = f"log loss of what serves {last.live:.4f}, of the base {last.frozen:.4f}"
    gap = f'<b class="gap" data-gap="{last.gap:.4f}">{last.gap:+.4f}</b>{interval}, {verdict}'
    return f"<h2>Learning, beside a frozen base<small>{figures}: {gap}; {moment(last.time, ago=True)}</small></h2>"
