"""The console: what the platform does now, in a browser."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fastapi import FastAPI
from nicegui import app as pages_app
from nicegui import ui
from starlette.routing import Match, Mount
from starlette.types import Scope

from headrace_control_plane.console.live import FAVICON, PAGES, Sources
from headrace_control_plane.console.page import add_pages
from headrace_control_plane.console.reader import Reader
from headrace_control_plane.console.scrape import Scraper
from headrace_control_plane.settings import ControlPlaneSettings

__all__ = ["is_page", "mount"]

_OWN: Final = frozenset(path for path, _ in PAGES)


def is_page(path: str) -> bool:
    """Whether a path is a page that a person opens."""
    return path in _OWN


def mount(app: FastAPI, settings: ControlPlaneSettings, url: str = "", key: str = "") -> None:
    """Serve the console at `/` of an application, after the routes that it has already. Once in a process.

    Args:
        app: of the control plane.
        settings: tell where that listens; the console reads its HTTP API as any client does.
        url: where it listens, when the settings leave the port to the system.
        key: of its calls, where keys are needed.
    """
    sources = Sources(
        Reader(url or own_address(settings.control_host, settings.control_port), key=key),
        Scraper(settings.console_targets),
    )
    add_pages(sources)
    ui.run_with(
        app,
        title="Headrace",
        favicon=FAVICON,
        dark=None,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
        show_welcome_message=False,
    )
    app.router.routes[-1] = _Pages("/", app=pages_app)
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        async with inner(of):
            try:
                yield
            finally:
                await sources.aclose()

    app.router.lifespan_context = lifespan


def own_address(host: str, port: int) -> str:
    """How a process reaches what it listens on itself."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # not bound here
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


class _Pages(Mount):
    """The console's own paths; any other is answered as the application answers what it does not know."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a path is the console's."""
        path = scope.get("path", "")
        if path in _OWN or path.startswith("/_nicegui"):
            return super().matches(scope)
        return Match.NONE, {}
