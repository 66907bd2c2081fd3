"""Models: versions with their stages and reasons, and metrics over versions or time. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.control.records import ModelVersion

from headrace_control_plane.console import markup
from headrace_control_plane.console.frozen import FROZEN, LIVE, Beside
from headrace_control_plane.console.markup import NONE, figure, moment, notice, pill, text

Json = Mapping[str, Any]

METRICS: Final = (("auc", "AUC"), ("logloss", "Log loss"), ("calibration", "Calibration"))
_CELLS: Final = {"auc": "num", "logloss": "num", "calibration": "num wide-only"}
AXES: Final = (("version", "by version"), ("time", "over time"))
_WORDS: Final = {
    "": "while learning",
    "held_out": "held out",
    "held_out_deployed": "held out, the one deployed then",
    "pairs_progressive": "last samples, before it learned them",
    "pairs_served": "the same, as they were served",
}
#: Have a chart of their own.
_APART: Final = frozenset({LIVE, FROZEN})
_INK: Final = {False: "#1a2024", True: "#e4e9ea"}
_SOFT: Final = {False: "#5b666c", True: "#98a5ab"}
_LINE: Final = {False: "#dde2df", True: "#2a3438"}
_SURFACE: Final = {False: "#ffffff", True: "#161d20"}
_BAD: Final = {False: "#b02c22", True: "#f0887d"}
_COLOURS: Final = {
    False: ("#0a6c8c", "#b1600f", "#7a858a", "#7a4fa3", "#22703f"),
    True: ("#5bbfdd", "#e0a058", "#8f9ba1", "#bb9ade", "#7cc795"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric of a version.

    Attributes:
        series: who measured it, see `_WORDS`; "" is the trainer, before it learned each sample.
        stage: of the version.
    """

    series: str
    version: int
    time: Millis
    value: float
    stage: str


def points(metric: str, versions: Sequence[ModelVersion], recorded: Mapping[int, Sequence[Json]]) -> list[Point]:
    """Values of a metric, oldest version first.

    Args:
        metric: auc, logloss or calibration.
        versions: newest first.
        recorded: metrics over time, by version; the names end in the metric's.
    """
    found: dict[tuple[str, int, Millis], Point] = {}
    for version in reversed(versions):
        registered = version.history[0]["time"] if version.history else 0
        told = [{"name": metric, "value": version.metrics.get(metric), "time": registered}]
        for item in [*told, *recorded.get(version.version, ())]:
            name, value = str(item["name"]), item["value"]
            series = name.removesuffix(metric).removesuffix("_")
            ours = name == metric or name.endswith(f"_{metric}")
            if (
                series in _APART
                or not ours
                or value is None
                or not math.isfinite(value)
                or item.get("slice", "") not in {"", "all"}
            ):
                continue
            # What the trainer records at a publication is what it registered, a moment later.
            time = registered if not series else item["time"]
            found[series, version.version, time] = Point(series, version.version, time, float(value), version.stage)
    return list(found.values())


def series_names(all_points: Iterable[Sequence[Point]]) -> list[str]:
    """Names of the series of all metrics, in the order of their colours."""
    named = {point.series for of_metric in all_points for point in of_metric}
    known = [name for name in _WORDS if name in named]
    return known + sorted(named - set(known))


def chart(title: str, of_metric: Sequence[Point], names: Sequence[str], axis: str, *, dark: bool) -> dict[str, Any]:
    """Options of an ECharts line chart.

    Args:
        title: of the metric.
        of_metric: its values.
        names: of all series, so that one has the same colour in every chart.
        axis: version or time.
        dark: for a dark page.
    """
    versions = sorted({point.version for point in of_metric})
    across: dict[str, Any] = (
        {"type": "time"} if axis == "time" else {"type": "category", "data": [str(v) for v in versions]}
    )
    series = [
        _series(name, [p for p in of_metric if p.series == name], colour(n, dark=dark), versions, axis, dark=dark)
        for n, name in enumerate(names)
    ]
    return options(title, across, series, dark=dark)


def options(title: str, across: Json, series: Sequence[Json], *, dark: bool) -> dict[str, Any]:
    """Options of an ECharts line chart.

    Args:
        title: above it.
        across: type and values of its x axis.
        series: its lines.
        dark: for a dark page.
    """
    label = {"color": _SOFT[dark], "fontSize": 11, "hideOverlap": True}
    return {
        "animation": False,
        "title": {"text": title, "left": 10, "top": 0, "textStyle": {"color": _INK[dark], "fontSize": 13, "fontWeight": 600}},
        "grid": {"left": 14, "right": 18, "top": 36, "bottom": 8, "containLabel": True},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": _SURFACE[dark],
            "borderColor": _LINE[dark],
            "textStyle": {"color": _INK[dark], "fontSize": 12},
            ":valueFormatter": "v => v == null ? '' : Number(v).toFixed(4)",
        },
        "xAxis": dict(across)
        | {
            "axisLabel": label,
            "axisTick": {"show": False},
            "axisLine": {"lineStyle": {"color": _LINE[dark]}},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            "splitNumber": 4,
            "axisLabel": label,
            "splitLine": {"lineStyle": {"color": _LINE[dark]}},
        },
        "series": list(series),
    }  # fmt: skip


def beside(model: str, found: Sequence[Beside], *, dark: bool) -> dict[str, Any]:
    """The chart of what serves beside the frozen base."""
    series = [
        {
            "name": name,
            "type": "line",
            "symbol": "circle",
            "symbolSize": 5,
            "color": colour(n, dark=dark),
            "lineStyle": {"width": 1.8, "type": style},
            "data": [{"value": [one.time, getattr(one, side)], "name": f"{model} {one.version}"} for one in found],
        }
        for n, (side, name, style) in enumerate(_sides(model))
    ]
    return options("Log loss on the newest held-out samples", {"type": "time"}, series, dark=dark)


def beside_legend(model: str, *, dark: bool) -> str:
    """Which line is which."""
    told = "".join(_line(colour(n, dark=dark), style, name) for n, (_, name, style) in enumerate(_sides(model)))
    return f'<div class="legend">{told}</div>'


def _sides(model: str) -> tuple[tuple[str, str, str], ...]:
    return (LIVE, f"{model}, what serves", "solid"), (FROZEN, f"{model}_base, frozen", "dashed")


def _line(colour_: str, style: str, words: str) -> str:
    return f'<span><i class="line" style="--c:{colour_};--s:{style}"></i>{text(words)}</span>'


def colour(n: int, *, dark: bool) -> str:
    """Of the n-th series."""
    return _COLOURS[dark][n % len(_COLOURS[dark])]


def _series(  # noqa: PLR0913  # what makes a line
    name: str, values: Sequence[Point], line: str, versions: Sequence[int], axis: str, *, dark: bool
) -> dict[str, Any]:
    def item(point: Point) -> dict[str, Any]:
        place = [point.time, point.value] if axis == "time" else [str(point.version), point.value]
        marked = {"value": place, "name": f"{point.version} {point.stage.lower()}"}
        if point.stage == "REJECTED":
            return marked | {"symbol": "diamond", "symbolSize": 9, "itemStyle": {"color": _BAD[dark]}}
        if point.stage == "DEPLOYED" and not name.endswith("deployed"):
            return marked | {"symbolSize": 10, "itemStyle": {"borderColor": _SURFACE[dark], "borderWidth": 2}}
        return marked

    dashed = name == "held_out_deployed"
    last = {point.version: point for point in values}
    shown = list(values) if axis == "time" else [last[v] for v in versions if v in last]
    return {
        "name": _WORDS.get(name, name.replace("_", " ")),
        "type": "line",
        "symbol": "circle",
        "symbolSize": 5,
        "showSymbol": not dashed,
        "color": line,
        "lineStyle": {"width": 1.6, "type": "dashed" if dashed else "solid"},
        "data": [item(point) for point in sorted(shown, key=lambda p: (p.time, p.version) if axis == "time" else p.version)],
    }  # fmt: skip


def legend(names: Sequence[str], *, dark: bool) -> str:
    """Which colour is which series, and what the marks mean."""
    lines = "".join(
        _line(
            colour(n, dark=dark),
            "dashed" if name == "held_out_deployed" else "solid",
            _WORDS.get(name, name.replace("_", " ")),
        )
        for n, name in enumerate(names)
    )
    return f'<div class="legend">{lines}<span><i style="--c:var(--bad)"></i>rejected</span></div>' if names else ""


def choices(models: Sequence[Json], chosen: str, axis: str) -> str:
    """Which model, and which axis, as buttons."""
    deployed = {m["model"]: m.get("deployed", {}).get("stable") for m in models}
    names = [
        (f"model:{name}", text(name) + (f"<small>{serves} serves</small>" if serves else ""), name == chosen)
        for name, serves in deployed.items()
    ]
    axes = [(f"axis:{key}", words, key == axis) for key, words in AXES]
    return f'<div class="choices">{_segments("Model", names)}{_segments("Axis", axes)}</div>'


def _segments(label: str, of: Sequence[tuple[str, str, bool]]) -> str:
    buttons = "".join(
        f'<button data-act="{text(act)}" data-focus="{text(act)}" aria-pressed="{"true" if on else "false"}">{words}</button>'
        for act, words, on in of
    )
    return f'<div class="segments" role="group" aria-label="{label}">{buttons}</div>'


def preferred(models: Sequence[Json]) -> str:
    """The model that is shown first: one that serves, else the newest trained."""
    ranked = sorted(models, key=lambda m: (bool(m.get("deployed")), m.get("versions", 0)), reverse=True)
    return str(ranked[0]["model"]) if ranked else ""


def table(versions: Sequence[ModelVersion], opened: int | None) -> str:
    """Versions, newest first; the opened one with its story."""
    if not versions:
        return notice("No version yet", "The trainer registers the first one when samples are there.")
    columns = [("Version", ""), ("Stage", ""), ("Since", "wide-only"), ("Parent", "wide-only")]
    columns += [(words, _CELLS[key]) for key, words in METRICS]
    rows = "".join(_row(version, opened=version.version == opened) for version in versions)
    return markup.table([*columns, ("Why", "wide-only")], rows)


def _row(version: ModelVersion, *, opened: bool) -> str:
    last = version.history[-1] if version.history else None
    parent = f"{text(version.parent.model)} {version.parent.version}" if version.parent else NONE
    metrics = "".join(f'<td class="{_CELLS[key]}">{figure(version.metrics.get(key))}</td>' for key, _ in METRICS)
    stage = pill(version.stage) + ("" if version.track == "stable" else f" {text(version.track)}")
    since = moment(last["time"], ago=True) if last else ""
    why = f'<span class="clip">{text(last["why"])}</span>' if last else ""
    row = (
        f'<tr data-row="{version.version}"{" class=open" if opened else ""}>'
        f'<td><button class="row" data-act="open:{version.version}" data-focus="open:{version.version}" '
        f'aria-expanded="{"true" if opened else "false"}">{text(version.model)} {version.version}</button></td>'
        f'<td>{stage}</td><td class="wide-only">{since}</td><td class="wide-only">{parent}</td>{metrics}'
        f'<td class="why wide-only">{why}</td></tr>'
    )
    return row + (
        f'<tr class="more"><td colspan="8"><div class="inner">{story(version)}</div></td></tr>' if opened else ""
    )


def story(version: ModelVersion) -> str:
    """Each change of a version's stage with its reasons, and what it was made of."""
    changes = "".join(
        f"<li>{pill(change['stage'])} {moment(change['time'])} <span class=soft>by {text(change['by'])}</span>"
        f"<div>{text(change['why'])}</div>{_findings(change.get('details') or {})}</li>"
        for change in version.history
    )
    return f'<ol class="story">{changes}</ol>{_facts(version)}'


def _findings(details: Json) -> str:
    """The checks of a validation; those that reject first."""
    found = details.get("findings")
    if not isinstance(found, list) or not all(isinstance(f, dict) and "check" in f for f in found):
        told = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in details.items())
        return f'<dl class="facts">{told}</dl>' if told else ""
    rows = "".join(_finding(f) for f in sorted(found, key=lambda f: bool(f.get("passed"))))
    return (
        '<table class="checks"><thead><tr><th></th><th>check</th><th class="num">measured</th><th>wanted</th><th></th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _finding(found: Json) -> str:
    holds = pill("VALIDATED", "holds") if found.get("passed") else pill("REJECTED", "fails")
    where = f" of {text(found['slice'])}" if found.get("slice") else ""
    return (
        f"<tr><td>{holds}</td><td>{text(found['check']).replace('_', '_<wbr>')}{where}</td>"
        f'<td class="num">{_value(found.get("value"))}</td><td>{text(found.get("threshold") or "")}</td>'
        f"<td>{text(found.get('note') or '')}</td></tr>"
    )


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else text(value)


def _facts(version: ModelVersion) -> str:
    samples = version.manifest.get("samples") or {}
    facts: list[tuple[str, str]] = []
    if samples.get("count") is not None:
        facts.append(("samples", f"{samples['count']:,}, of which {samples.get('positives', 0):,} positive"))
    if samples.get("from") is not None and samples.get("to") is not None:
        facts.append(("from, to", f"{moment(samples['from'])}, {moment(samples['to'])}"))
    for key, words in (("feature_set_version", "feature set"), ("architecture", "architecture"), ("weights", "weights"),
                       ("code", "code")):  # fmt: skip
        if version.manifest.get(key):
            facts.append((words, f'<span class="mono">{text(version.manifest[key])}</span>'))
    facts.append(("artifact", f'<span class="mono">{text(version.artifact)}</span>'))
    return '<dl class="facts">' + "".join(f"<dt>{words}</dt><dd>{told}</dd>" for words, told in facts) + "</dl>"
