"""What the loop's parts show now, out of the processes' figures and the control events. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.control.records import Event

from headrace_control_plane.console.loop import EDGES, NODES
from headrace_control_plane.console.markup import duration, per_second
from headrace_control_plane.console.rates import Quantiles, Window
from headrace_control_plane.console.scrape import Look

FRESHNESS: Final = "headrace_freshness_seconds"
#: Stages of freshness: what they reach, how far back is looked, the aim at p99 in seconds.
STAGES: Final = (
    ("ingest", "Event → accepted", 60.0, 1.0),
    ("feature", "Event → feature", 60.0, 1.0),
    ("sample", "Impression → sample", 60.0, None),  # one without a click waits for its window: there is no aim
    ("model", "Sample → weights", 300.0, 60.0),
)
#: Services that do the work of a part, by the names that stack.json and charts use.
_SERVICES: Final = {
    "gateway": ("gateway",),
    "kafka": ("kafka",),
    "feature-worker": ("feature-worker",),
    "redis": ("redis", "valkey"),
    "sample-joiner": ("sample-joiner",),
    "samples": ("postgres",),
    "trainer": ("trainer",),
    "validator": ("model-validator",),
    "deployer": ("model-validator",),
    "model-server": ("model-server",),
}
_MODEL_EVENTS_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Change:
    """What a drawn element becomes.

    Attributes:
        state: its class: for nodes up, partly, away or unknown; for edges idle, slow, brisk or fast.
    """

    text: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Freshness:
    """One stage of freshness.

    Attributes:
        aim: seconds, at p99; None if it has none.
    """

    stage: str
    words: str
    aim: float | None
    found: Quantiles | None

    @property
    def late(self) -> bool:
        """Whether it misses its aim now."""
        return self.found is not None and self.aim is not None and self.found.recent and self.found.p99 > self.aim


def freshness(window: Window) -> list[Freshness]:
    """All stages, in the order of the loop."""
    return [
        Freshness(stage, words, aim, window.quantiles(FRESHNESS, over, stage=stage))
        for stage, words, over, aim in STAGES
    ]


def picture(
    window: Window, looks: Sequence[Look], events: Sequence[Event], now: Millis, *, store_away: bool = False
) -> dict[str, Change]:
    """Everything that the drawing shows, by its `data-k`.

    Args:
        window: the processes' figures.
        looks: which of them answered.
        events: of the control plane, oldest first.
        now: the time.
        store_away: the control plane does not answer.
    """
    rates = _rates(window)
    versions = _versions(events, now)
    labels = {key: per_second(rate) if rate is not None else "" for key, rate in rates.items()}
    flows = {key: flow(rate) for key, rate in rates.items()}
    for edge, stage in (
        ("generated", "GENERATED"),
        ("checked", "GENERATED"),
        ("passed", "VALIDATED"),
        ("loaded", "DEPLOYED"),
    ):
        count = versions.get(stage, 0)
        labels[edge] = f"{count / 10:g}/min" if count else ""
        flows[edge] = "slow" if count else "idle"
    changes = {f"label:{edge.key}": Change(labels.get(edge.key, "")) for edge in EDGES}
    changes |= {f"edge:{edge.key}": Change("", flows.get(edge.key, "idle")) for edge in EDGES}
    states = {node.key: state(looks, _SERVICES[node.key]) if node.key in _SERVICES else "up" for node in NODES}
    states["versions"] = "away" if store_away else "up"
    told = _told(window, versions, events) | {k: "away" for k, s in states.items() if s == "away"}
    changes |= {f"node:{node.key}": Change("", states[node.key]) for node in NODES}
    changes |= {f"told:{node.key}": Change(told.get(node.key, "")) for node in NODES}
    return changes


def state(looks: Sequence[Look], services: Sequence[str]) -> str:
    """Whether the processes of a part are there: up, partly, away, or unknown if none is named."""
    faults = [look.fault is not None for look in looks if look.target.service in services]
    if not faults:
        return "unknown"
    return "away" if all(faults) else "partly" if any(faults) else "up"


def flow(rate: float | None) -> str:
    """How fast an edge is drawn to flow."""
    if not rate:
        return "idle"
    return "slow" if rate < 5 else "brisk" if rate < 200 else "fast"


def _rates(window: Window) -> dict[str, float | None]:
    taken, asked = "headrace_events_total", "headrace_request_seconds_count"
    stages = "headrace_stage_seconds_count"

    def total(*rates: float | None) -> float | None:
        told = [rate for rate in rates if rate is not None]
        return sum(told) if told else None

    answers = total(
        window.rate("gateway", asked, route="/v1/recommend"), window.rate("gateway", asked, route="/v1/rank")
    )
    return {
        "events": window.rate("gateway", taken, topic="behavior-events.v1"),
        "answers": answers,
        "produced": window.rate("gateway", taken),
        "featured": window.rate("feature-worker", taken),
        "views": window.rate("feature-worker", f"{FRESHNESS}_count", stage="feature"),
        "reads": window.rate("gateway", stages, stage="read_user"),
        "joined": window.rate("sample-joiner", taken),
        "sampled": total(
            window.rate("sample-joiner", "headrace_join_rows_total", state="positive"),
            window.rate("sample-joiner", "headrace_join_rows_total", state="negative"),
            window.rate("sample-joiner", "headrace_corrections_total"),
        ),
        "learned": window.rate("trainer", "headrace_learned_samples_total"),
        "scores": window.rate("gateway", stages, stage="predict"),
    }


def _versions(events: Sequence[Event], now: Millis) -> Mapping[str, int]:
    """Changes of versions in the last ten minutes, by stage."""
    counts: dict[str, int] = {}
    for event in events:
        if event.type.startswith("MODEL_") and event.create_time > now - _MODEL_EVENTS_MS:
            stage = event.type.removeprefix("MODEL_")
            counts[stage] = counts.get(stage, 0) + 1
    return counts


def _newest(events: Sequence[Event], stage: str) -> Event | None:
    return next((event for event in reversed(events) if event.type == f"MODEL_{stage}"), None)


def _told(window: Window, versions: Mapping[str, int], events: Sequence[Event]) -> dict[str, str]:
    fresh = {one.stage: one.found for one in freshness(window)}

    def p50(stage: str) -> str:
        found = fresh[stage]
        return f"{duration(found.p50)} behind" if found and found.recent else ""

    generated, deployed = _newest(events, "GENERATED"), _newest(events, "DEPLOYED")
    passed, rejected = versions.get("VALIDATED", 0), versions.get("REJECTED", 0)
    loaded = window.gauge("model-server", "headrace_model_server_versions")
    return {
        "gateway": _answer_time(window),
        "feature-worker": _watermark(window, "feature-worker"),
        "sample-joiner": _watermark(window, "sample-joiner"),
        "redis": p50("feature"),
        "samples": p50("sample"),
        "versions": _name(generated),
        "validator": f"{passed} passed, {rejected} rejected" if passed or rejected else "",
        "deployer": _name(deployed),
        "model-server": "" if loaded is None else f"{loaded:g} loaded",
    }


def _watermark(window: Window, service: str) -> str:
    lag = window.gauge(service, "headrace_watermark_lag_seconds")
    return "" if lag is None or not math.isfinite(lag) else f"watermark {duration(lag)} back"


def _answer_time(window: Window) -> str:
    found = window.quantiles("headrace_request_seconds", 60.0, route="/v1/recommend")
    return f"answers in {duration(found.p50)}" if found and found.recent else ""


def _name(event: Event | None) -> str:
    return "" if event is None else f"{event.key} {event.value}"


def as_json(changes: Mapping[str, Change]) -> dict[str, Any]:
    """As the page takes them."""
    return {key: [change.text, change.state] for key, change in changes.items()}
