"""The pages: what the pure parts draw, brought up to date every few seconds."""

import json
import time
from importlib.resources import files
from typing import Any, Final

from headrace_core.control.records import Run
from nicegui import events as ui_events
from nicegui import ui

from headrace_control_plane.console import events, figures, loop, workflows
from headrace_control_plane.console.live import PAGES, Frame, Part, Sources
from headrace_control_plane.console.markup import duration, notice, pill, table, text
from headrace_control_plane.console.models_page import draw_models
from headrace_control_plane.console.reader import AwayError
from headrace_control_plane.console.scrape import Scraper

_LOOP_SECONDS: Final = 2.0
_LIST_SECONDS: Final = 2.0
_EVENT_SECONDS: Final = 1.0
_RUNS: Final = 30


def add_pages(sources: Sources) -> None:
    """Declare the pages."""
    style = files(__package__).joinpath("console.css").read_text(encoding="utf-8")
    script = files(__package__).joinpath("console.js").read_text(encoding="utf-8")
    head = f"<style>{style}</style><script>{script}</script>"
    drawings = {"/": _draw_loop, "/models": draw_models, "/workflows": _draw_workflows, "/events": _draw_events}

    def declare(path: str, title: str) -> None:
        @ui.page(path, title=f"{title} · Headrace")
        def page() -> None:
            ui.add_head_html(head)
            with ui.element("div").classes("page"):
                frame = Frame(path, title)
                with ui.element("div"):  # the whole page is NiceGUI's main element
                    drawings[path](frame, sources)

    for path, title in PAGES:
        declare(path, title)


def _draw_loop(frame: Frame, sources: Sources) -> None:
    fresh = Part()
    drawing = loop.svg(loop.wide()) + loop.svg(loop.narrow())
    ui.html(f'<div class="card drawing">{drawing}</div>', sanitize=False)
    processes = Part()

    async def refresh() -> None:
        await sources.scraper.look()
        scraper, fault = sources.scraper, None
        try:
            told = await sources.reader.events()
        except AwayError as error:
            told, fault = (), error
        now = int(time.time() * 1000)
        changes = figures.picture(scraper.window, scraper.looks, told, now, store_away=fault is not None)
        ui.run_javascript(f"headrace.draw({json.dumps(figures.as_json(changes))})")
        fresh.put(_freshness(figures.freshness(scraper.window)))
        processes.put(_processes(scraper))
        if fault is not None:
            raise fault

    frame.keep(refresh, _LOOP_SECONDS)


def _freshness(stages: list[figures.Freshness]) -> str:
    def tile(one: figures.Freshness) -> str:
        found = one.found
        notes = [f"aim {duration(one.aim)}"] if one.aim is not None else []
        notes += ["since the start"] if found is not None and not found.recent else []
        p99 = f"<span{' class=late' if one.late else ''}>p99 {duration(found.p99)}</span>" if found is not None else ""
        return (
            f'<div data-stage="{one.stage}"><dt>{one.words}</dt>'
            f'<dd class="p50">{duration(found.p50 if found is not None else None)}</dd>'
            f'<dd class="p99">{", ".join([*filter(None, [p99]), *notes])}</dd></div>'
        )

    return f'<dl class="card fresh" aria-label="Freshness, half of all within">{"".join(map(tile, stages))}</dl>'


def _processes(scraper: Scraper) -> str:
    if scraper.fault:
        return f'<h2>Processes</h2><div class="card">{notice("No figures of services", scraper.fault)}</div>'
    rows = "".join(
        f'<tr data-row="{text(look.target.name)}"><td class="name">{text(look.target.name)}</td>'
        f"<td>{pill('FAILED', 'away') + ' ' + text(look.fault) if look.fault else pill('SUCCEEDED', 'up')}</td>"
        f'<td class="num">{look.target.pid or ""}</td><td class="wide-only">{text(look.target.url)}</td></tr>'
        for look in scraper.looks
    )
    columns = [("Process", ""), ("State", ""), ("pid", "num"), ("Figures from", "wide-only")]
    return f"<h2>Processes</h2>{table(columns, rows)}"


def _draw_workflows(frame: Frame, sources: Sources) -> None:
    flows, runs = Part(), Part()

    async def refresh() -> None:
        reader = sources.reader
        drawn = []
        for workflow in await reader.items("/workflows"):
            base = f"/workflows/{workflow['workflow']}"
            tasks, rules = await reader.items(f"{base}/tasks"), await reader.items(f"{base}/rules")
            whys: list[Any] = [await reader.get(f"{base}/rules/{rule['rule']}/why") for rule in rules]
            drawn.append(workflows.flow(workflow, tasks, whys))
        none = notice("No workflow yet", "headrace workflows apply FILE uploads one.")
        flows.put("".join(drawn) or f'<div class="card">{none}</div>')
        found = [Run.from_json(item) for item in await reader.items(f"/runs?limit={_RUNS}")]
        runs.put(f"<h2>Runs</h2>{workflows.runs(found)}" if drawn or found else "")

    frame.keep(refresh, _LIST_SECONDS)


def _draw_events(frame: Frame, sources: Sources) -> None:
    opened: int | None = None

    async def act(what: str) -> None:
        nonlocal opened
        value = int(what.partition(":")[2])
        opened = None if opened == value else value
        await refresh()

    with ui.element("div").classes("filters"):
        find = (
            ui.element("input")
            .classes("find")
            .props('type="search" placeholder="Key, type, value or sender" aria-label="Filter"')
        )
    listed = Part(act)
    wanted = ""

    async def typed(event: ui_events.GenericEventArguments) -> None:
        nonlocal wanted
        wanted = str(event.args)
        await refresh()

    find.on("input", typed, js_handler="(e) => emit(e.target.value)")

    async def refresh() -> None:
        listed.put(events.tail(events.chosen(await sources.reader.events(), wanted), opened))

    frame.keep(refresh, _EVENT_SECONDS)
