"""Panels in one hand: the same legend, units told, every panel with a sentence of what it means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

#: Chosen at the top of each dashboard.
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_NEWEST: Final = common.ReduceDataOptions().calcs(["lastNotNull"])
_TALL, _SMALL = 8, 4

Query = tuple[str, str]  # expression, legend


@dataclass(frozen=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: Sequence[Builder[Panel]]


def lines(
    title: str, about: str, unit: str, *queries: Query, width: int = 12, at_least: float | None = 0
) -> Builder[Panel]:
    """Curves over time; the legend tells the last value."""
    panel = (
        timeseries.Panel().title(title).description(about).datasource(_SOURCE).unit(unit).span(width).height(_TALL)
        .line_width(1.5).fill_opacity(8)
        .legend(
            common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
            .show_legend(True).calcs(["lastNotNull"])
        )
    )  # fmt: skip
    if at_least is not None:
        panel = panel.min(at_least)
    for letter, (expression, legend) in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(_target(expression, legend).ref_id(letter))
    return panel


def number(  # noqa: PLR0913  # what a panel shows
    title: str, about: str, unit: str, query: Query, *, bad_above: float | None = None, width: int = 4
) -> Builder[Panel]:
    """The newest value, with its course behind it; red above a bound."""
    steps = [Threshold(value=None, color="green")]
    if bad_above is not None:
        steps.append(Threshold(value=bad_above, color="red"))
    return (
        stat.Panel().title(title).description(about).datasource(_SOURCE).unit(unit).span(width).height(_SMALL)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(_NEWEST).graph_mode(BigValueGraphMode.AREA).with_target(_target(*query).ref_id("A"))
    )  # fmt: skip


def bars(title: str, about: str, unit: str, query: Query, width: int = 12) -> Builder[Panel]:
    """The newest values side by side."""
    target = _target(*query).instant().ref_id("A")
    return (
        bargauge.Panel().title(title).description(about).datasource(_SOURCE).unit(unit).span(width).height(_TALL)
        .reduce_options(_NEWEST).orientation(VizOrientation.HORIZONTAL).min(0).with_target(target)
    )  # fmt: skip


def board(title: str, about: str, *rows: Row, variables: Sequence[Builder[object]] = ()) -> dashboard.Dashboard:
    """A dashboard; its uid follows from its title, so that links stay."""
    uid = "headrace-" + re.sub(r"\W+", "-", title.lower()).strip("-")
    made = (
        dashboard.Dashboard(f"Headrace / {title}").uid(uid).description(about).tags(["headrace"]).refresh("10s")
        .time("now-30m", "now").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR).readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )  # fmt: skip
    for variable in variables:
        made = made.with_variable(variable)  # type: ignore[arg-type]  # the library's own variables
    for row in rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(panel)
    return made


def choice(name: str, label: str, metric: str) -> Builder[object]:
    """A variable of the values that a metric's label has; all by default."""
    return (
        dashboard.QueryVariable(name).label(label).datasource(_SOURCE).query(f"label_values({metric}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).include_all(True).all_value(".*").multi(True)
    )  # fmt: skip


def _target(expression: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(" ".join(expression.split())).legend_format(legend)
