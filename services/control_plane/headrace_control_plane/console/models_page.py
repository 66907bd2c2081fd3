"""The page of the models."""

from dataclasses import dataclass, field
from typing import Any, Final

from nicegui import events as ui_events
from nicegui import ui

from headrace_control_plane.console import frozen, models
from headrace_control_plane.console.live import Frame, Part, Sources
from headrace_control_plane.console.reader import AwayError

_EVERY_SECONDS: Final = 2.0
#: The validator and the trainer record seldom; this is how late it may be seen.
_METRICS_SECONDS: Final = 15.0
_VERSIONS: Final = 50
_FOLLOW_SCHEME: Final = (
    "const q = matchMedia('(prefers-color-scheme: dark)');"
    "q.addEventListener('change', () => emitEvent('scheme', q.matches)); emitEvent('scheme', q.matches);"
)


@dataclass(slots=True)
class _Page:
    """One reader's page: what he chose, and the parts that show it."""

    sources: Sources
    model: str = ""
    axis: str = "version"
    opened: int | None = None
    dark: bool = False
    buttons: Part = field(init=False)
    gap: Part = field(init=False)
    beside: ui.element = field(init=False)
    beside_chart: ui.echart = field(init=False)
    beside_legend: Part = field(init=False)
    card: ui.element = field(init=False)
    charts: list[ui.echart] = field(init=False)
    legend: Part = field(init=False)
    listed: Part = field(init=False)

    def draw(self) -> None:
        self.buttons = Part(self.act)
        with ui.element("div").classes("card") as self.card:
            with ui.element("div").classes("charts"):
                self.charts = [ui.echart({}, renderer="svg") for _ in models.METRICS]
            self.legend = Part()
        self.card.set_visibility(False)
        self.gap = Part()
        with ui.element("div").classes("card beside") as self.beside:
            self.beside_chart = ui.echart({}, renderer="svg")
            self.beside_legend = Part()
        self.beside.set_visibility(False)
        ui.html("Versions", sanitize=False, tag="h2")
        self.listed = Part(self.act)
        # A chart's colours are not the style sheet's: the browser tells which it needs.
        ui.on("scheme", self.recolour)
        ui.run_javascript(_FOLLOW_SCHEME)

    async def act(self, what: str) -> None:
        kind, _, value = what.partition(":")
        if kind == "model":
            self.model, self.opened = value, None
        elif kind == "axis":
            self.axis = value
        else:
            self.opened = None if self.opened == int(value) else int(value)
        await self.at_once()

    async def recolour(self, event: ui_events.GenericEventArguments) -> None:
        self.dark = bool(event.args)
        await self.at_once()

    async def at_once(self) -> None:
        try:
            await self.refresh()
        except AwayError:
            return  # the frame's next turn tells

    async def refresh(self) -> None:
        reader = self.sources.reader
        known = await reader.items("/models")
        self.model = self.model or models.preferred(known)
        if not self.model:
            self.listed.put(f'<div class="card">{models.table([], None)}</div>')
            return
        versions = await reader.versions(self.model, _VERSIONS)
        recorded = {
            v.version: await reader.items(f"/models/{v.model}/versions/{v.version}/metrics", _METRICS_SECONDS)
            for v in versions
        }
        self.buttons.put(models.choices(known, self.model, self.axis))
        self.listed.put(models.table(versions, self.opened))
        self.draw_beside(frozen.measurements(recorded))
        self.chart([models.points(metric, versions, recorded) for metric, _ in models.METRICS])

    def draw_beside(self, found: list[frozen.Beside]) -> None:
        self.gap.put(frozen.words(found))
        _draw(self.beside_chart, models.beside(self.model, found, dark=self.dark))
        self.beside_legend.put(models.beside_legend(self.model, dark=self.dark))
        self.beside.set_visibility(bool(found))

    def chart(self, found: list[list[models.Point]]) -> None:
        names = models.series_names(found)
        for chart, (_, title), of_metric in zip(self.charts, models.METRICS, found, strict=True):
            _draw(chart, models.chart(title, of_metric, names, self.axis, dark=self.dark))
        self.legend.put(models.legend(names, dark=self.dark))
        self.card.set_visibility(bool(names))


def _draw(chart: ui.echart, options: dict[str, Any]) -> None:
    """Show it, when it changed."""
    if options != chart.options:
        chart.options.clear()
        chart.options.update(options)
        chart.update()


def draw_models(frame: Frame, sources: Sources) -> None:
    """Draw it."""
    page = _Page(sources)
    page.draw()
    frame.keep(page.refresh, _EVERY_SECONDS)
