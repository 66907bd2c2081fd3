"""What is around every page, and pieces of it that follow what happens."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from nicegui import events as ui_events
from nicegui import ui

from headrace_control_plane.console.markup import moment, text
from headrace_control_plane.console.reader import AwayError, Reader
from headrace_control_plane.console.scrape import Scraper

PAGES: Final = (("/", "Loop"), ("/models", "Models"), ("/workflows", "Workflows"), ("/events", "Events"))
FAVICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#0a86ad" stroke-width="2.4" '
    'stroke-linecap="round"><path d="M3 8q4.5-4 9 0t9 0M3 16q4.5-4 9 0t9 0"/></svg>'
)
_MARK: Final = FAVICON.replace("#0a86ad", "currentColor")
_PICK: Final = "(e) => { const b = e.target.closest('[data-act]'); if (b) emit(b.dataset.act); }"

Refresh = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages take what they show."""

    reader: Reader
    scraper: Scraper

    async def aclose(self) -> None:
        """Close the connections."""
        await self.reader.aclose()
        await self.scraper.aclose()


class Part:
    """A piece of a page whose content is replaced as a whole, only when it changed."""

    def __init__(self, on_act: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._element = ui.html("", sanitize=False)  # `markup` escaped whatever comes from outside
        self._shown: str | None = None
        if on_act is not None:

            async def picked(event: ui_events.GenericEventArguments) -> None:
                await on_act(str(event.args))

            self._element.on("click", picked, js_handler=_PICK)

    def put(self, html: str) -> None:
        """Show it."""
        if html != self._shown:
            self._shown = html
            ui.run_javascript(f"headrace.put({json.dumps(self._element.html_id)}, {json.dumps(html)})")


class Frame:
    """What is around every page: navigation, and whether the control plane can be reached."""

    def __init__(self, path: str, title: str) -> None:
        self._good_at: float | None = None
        links = "".join(
            f'<a href="{at}"{" aria-current=page" if at == path else ""}>{words}</a>' for at, words in PAGES
        )
        with ui.element("header").classes("top"):
            ui.html(f'<a class="brand" href="/">{_MARK}Headrace</a>', sanitize=False)
            ui.html(links, sanitize=False, tag="nav").props('aria-label="Pages"')
            self._pulse = Part()
        self._banner = Part()
        ui.html(text(title), sanitize=False, tag="h1")
        self._pulse.put('<div class="pulse" role="status">connecting</div>')

    def keep(self, refresh: Refresh, seconds: float) -> None:
        """Bring the page up to date now, and again every so many seconds."""

        async def turn() -> None:
            try:
                await refresh()
            except AwayError as error:
                self._away(str(error))
            else:
                self._good_at = time.time()
                self._banner.put("")
                self._pulse.put('<div class="pulse" role="status">live</div>')

        ui.timer(seconds, turn)

    def _away(self, why: str) -> None:
        known = f" Shown is what was known at {moment(int(self._good_at * 1000))}." if self._good_at else ""
        self._banner.put(
            f'<div class="banner" role="alert"><b>The control store is away.</b> {text(why)}.{known}</div>'
        )
        self._pulse.put('<div class="pulse away" role="status">away</div>')
