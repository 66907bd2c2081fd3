"""Takes the pictures of the demo that pages show: `make pictures`.

The story is told once, on a home of its own; its table is drawn as it stands at the end, and the console's pages in a real browser
while a crowd visits. With --running only the console's pages are taken, of the stack of HEADRACE_HOME.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import async_playwright, expect

HERE: Final = Path(__file__).parent
HEADRACE: Final = Path(sys.executable).parent / "headrace"
#: Pages of the console, by the picture's name, with the height that shows what is worth it.
PAGES: Final = {"loop": ("/", 628), "models": ("/models", 948)}
WIDTH: Final = 1280
CROWD_S: Final = 45
#: Rates are over the last 10 s.
SETTLE_S: Final = 15
LONG_MS: Final = 60_000


def headrace(*arguments: str) -> str:
    """What a command prints."""
    return subprocess.run([HEADRACE, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextmanager
def told_demo() -> Iterator[None]:
    """A stack on which the story was told, and its table as a picture."""
    with tempfile.TemporaryDirectory(prefix="headrace-pictures-") as home:
        os.environ["HEADRACE_HOME"] = home
        try:
            headrace("demo", "--ci", "--keep", "--record", str(HERE / "demo.svg"))
            yield
        finally:
            headrace("down")


@contextmanager
def visited() -> Iterator[None]:
    """A crowd that comes meanwhile."""
    crowd = subprocess.Popen(
        [HEADRACE, "simulate", "--world", "story", "--rate", "25", "--seconds", str(CROWD_S)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        crowd.terminate()
        crowd.wait()


async def take_console(control: str) -> None:
    """The console's pages, light."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        await asyncio.sleep(SETTLE_S)
        for name, (path, height) in PAGES.items():
            page = await browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            await page.goto(control + path)
            await expect(page.locator(".pulse")).to_have_text("live", timeout=LONG_MS)
            await page.wait_for_timeout(3_000)
            await page.screenshot(path=HERE / f"console-{name}.png")
        await browser.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--running", action="store_true", help="of the stack that runs, the console alone")
    if parser.parse_args().running:
        with visited():
            asyncio.run(take_console(headrace("address", "control")))
        return
    with told_demo(), visited():
        asyncio.run(take_console(headrace("address", "control")))


if __name__ == "__main__":
    main()
