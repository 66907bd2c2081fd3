"""Every diagram of the pages, drawn by the real Mermaid in a real browser."""

import functools
import http.server
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import nicegui
import pytest
from playwright.async_api import Page, async_playwright

from tests.pages import CODES

CHROMIUM = shutil.which("chromium")
#: NiceGUI brings Mermaid for its pages.
MERMAID: Final = Path(nicegui.__file__).parent / "elements" / "mermaid" / "dist"
DIAGRAMS: Final = [code for code in CODES if code.language == "mermaid"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        pass


@pytest.fixture(scope="module")
def mermaid() -> Iterator[str]:
    """URL of Mermaid's files: a browser loads modules over HTTP alone."""
    handler = functools.partial(_Quiet, directory=str(MERMAID))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield await browser.new_page(viewport={"width": 1280, "height": 900})
        await browser.close()


async def test_every_diagram_is_drawn(page: Page, mermaid: str) -> None:
    await page.goto(f"{mermaid}/nothing")
    faults = {}

    for code in DIAGRAMS:
        told = await page.evaluate(
            """async ([url, text]) => {
                const { mermaid } = await import(url);
                mermaid.initialize({ startOnLoad: false, securityLevel: "strict" });
                try {
                    document.body.innerHTML = (await mermaid.render("diagram", text)).svg;
                    return document.querySelectorAll("svg#diagram g").length > 5 ? "" : "nothing to see";
                } catch (error) {
                    return String(error);
                }
            }""",
            [f"{mermaid}/index.js", code.text],
        )
        if told:
            faults[f"{code.page}:{code.line}"] = told

    assert faults == {}
