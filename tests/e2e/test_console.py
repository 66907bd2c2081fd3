"""The console in a real browser, over the real control plane and real services."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from headrace_core.control.client import ControlClient
from headrace_core.control.records import Parent
from headrace_core.workflow import BatchTask, Workflow, event, sequence
from headrace_stack.layout import Layout
from headrace_stack.stack import Stack
from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, async_playwright, expect

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]

PATHS = ["/", "/models", "/workflows", "/events"]
LONG_MS = 60_000
RATE = re.compile(r"^(?!0/s)[\d.]+k?/s$")
TIME_SPAN = re.compile(r"^[\d.]+ (ms|s|min)$")
REASON = "logloss_increase of city=Beijing is 0.031, ≤ 0.02 is wanted"


@dataclass
class Platform:
    """What runs for these tests."""

    stack: Stack
    gateway: str
    url: str


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("console")
    stack = Stack(Layout(folder / "home"), "demo", services=("gateway", "feature-worker", "sample-joiner"))
    told = stack.up()
    try:
        with ControlPlane(told, folder) as url:
            yield Platform(stack, told["gateway"], url)
    finally:
        stack.down()


class ControlPlane:
    """The control plane with its console, while it is entered."""

    def __init__(self, told: dict[str, Any], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url, self._log = f"http://127.0.0.1:{port}", folder / "control.log"
        self._environment = os.environ | {
            "HEADRACE_POSTGRES": told["postgres"],
            "HEADRACE_KAFKA": told["kafka"],
            "HEADRACE_CONTROL_PORT": str(port),
            "HEADRACE_RUNS": str(folder / "runs"),
            "HEADRACE_CONSOLE_TARGETS": str(folder / "home" / "stack.json"),
        }

    def __enter__(self) -> str:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace_control_plane"],
                env=self._environment, cwd=Path(__file__).parents[2], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the control plane is not ready:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)
        return self.url

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]  # fmt: skip
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[ControlClient]:
    async with ControlClient(platform.url, "model-validator") as client:
        yield client


async def opened(browser: Browser, platform: Platform, path: str, width: int = 1280, scheme: str = "light") -> Page:
    """A page that has shown what there is."""
    context = await browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    context.set_default_timeout(LONG_MS)
    page = await context.new_page()
    await page.goto(platform.url + path)
    await expect(page.locator(".pulse")).to_have_text("live", timeout=LONG_MS)
    return page


@dataclass
class Heard:
    """What a page asked for, and what went wrong in it."""

    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def listen(page: Page) -> Heard:
    """Everything from now on."""
    heard = Heard()

    def on_request(request: Request) -> None:
        heard.asked.append(request.url)

    def on_fault(error: Error) -> None:
        heard.faults.append(str(error))

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            heard.faults.append(message.text)

    page.on("request", on_request)
    page.on("pageerror", on_fault)
    page.on("console", on_console)
    return heard


async def register(client: ControlClient, model: str, stage: str, parent: Parent | None = None) -> Parent:
    """A version with figures, moved to a stage."""
    version = await client.reserve_version(model)
    metrics = {"auc": 0.7 + version / 100, "logloss": 0.35, "calibration": 1.01}
    await client.register(model, version, f"file:///{model}/{version}", parent=parent, metrics=metrics)
    findings = [{"check": "logloss_increase", "passed": stage != "REJECTED", "value": 0.031, "threshold": "≤ 0.02",
                 "slice": "city=Beijing", "note": "1,204 held-out samples"}]  # fmt: skip
    if stage == "REJECTED":
        await client.move(model, version, stage, REASON, details={"findings": findings})
    else:
        await client.move(model, version, "VALIDATED", "1 checks hold", details={"findings": findings})
    if stage == "DEPLOYED":
        await client.move(model, version, stage, "the first to serve")
    return Parent(model, version)


@dataclass
class Visitors:
    """Users who ask and look, until told to stop."""

    gateway: str
    going: bool = True
    faults: list[str] = field(default_factory=list)

    async def visit(self) -> None:
        async with httpx.AsyncClient(base_url=self.gateway, timeout=10) as http:
            await http.put("/v1/items/ad1", json={"item_type": "ad", "category": "c"})
            while self.going:
                asked = await http.post("/v1/recommend", json={"user_id": "u1", "page_id": "100", "count": 1})
                body = {
                    "event_id": uuid.uuid4().hex, "user_id": "u1", "event_time": int(time.time() * 1000), "action": "view",
                    "item_id": "ad1", "item_type": "ad", "page_id": "100",
                }  # fmt: skip
                sent = await http.post("/v1/events", json={"events": [body]})
                self.faults += [answer.text for answer in (asked, sent) if answer.is_error]


@asynccontextmanager
async def traffic(platform: Platform) -> AsyncIterator[Visitors]:
    visitors = Visitors(platform.gateway)
    going = asyncio.create_task(visitors.visit())
    try:
        yield visitors
    finally:
        visitors.going = False
        await going


async def test_loop_shows_the_rates_and_freshness_of_what_flows(platform: Platform, browser: Browser) -> None:
    page = await opened(browser, platform, "/")
    drawing = page.locator("svg.loop.wide")
    async with traffic(platform) as visitors:
        for edge in ("events", "answers", "produced", "featured", "reads"):
            flowing = drawing.locator(f'[data-k="edge:{edge}"]:is(.slow, .brisk, .fast)')
            await expect(flowing).to_have_count(1, timeout=LONG_MS)
            label = drawing.locator(f'[data-k="label:{edge}"]')
            await expect(label).to_have_text(RATE, timeout=LONG_MS)
        await expect(page.locator('[data-stage="ingest"] .p50')).to_have_text(TIME_SPAN, timeout=LONG_MS)
        await expect(page.locator('[data-stage="feature"] .p99')).to_contain_text("p99", timeout=LONG_MS)

    assert visitors.faults == []
    assert await drawing.locator('[data-k="node:gateway"].up').count() == 1
    assert await drawing.locator('[data-k="node:trainer"].unknown').count() == 1  # this stack has none


async def test_a_service_that_stopped_is_drawn_away_until_it_is_back(platform: Platform, browser: Browser) -> None:
    page = await opened(browser, platform, "/")
    joiner = page.locator('svg.loop.wide [data-k="node:sample-joiner"]')
    await expect(joiner).to_contain_class("up", timeout=LONG_MS)

    await asyncio.to_thread(platform.stack.stop, "sample-joiner-0")
    await expect(joiner).to_contain_class("away", timeout=LONG_MS)
    await expect(page.locator('[data-row="sample-joiner-0"]')).to_contain_text("away")

    await asyncio.to_thread(platform.stack.start, "sample-joiner-0")
    await expect(joiner).to_contain_class("up", timeout=LONG_MS)


async def test_a_rejected_version_tells_its_reasons_by_keyboard(
    platform: Platform, browser: Browser, client: ControlClient
) -> None:
    base = await register(client, "ctr_base", "VALIDATED")
    await register(client, "ctr", "DEPLOYED", base)
    rejected = await register(client, "ctr", "REJECTED", base)

    page = await opened(browser, platform, "/models")
    row = page.locator(f'[data-row="{rejected.version}"]')
    await expect(row).to_contain_text(REASON)
    await row.get_by_role("button").focus()
    await page.keyboard.press("Enter")

    await expect(page.locator(".story")).to_contain_text("by model-validator")
    await expect(page.locator(".checks")).to_contain_text("fails")
    await expect(page.locator(".checks")).to_contain_text("≤ 0.02")
    assert await page.evaluate("document.activeElement.dataset.focus") == f"open:{rejected.version}"
    await page.keyboard.press("Enter")
    await expect(page.locator(".story")).to_have_count(0)


async def test_a_new_version_comes_into_table_and_chart_by_itself(
    platform: Platform, browser: Browser, client: ControlClient
) -> None:
    first = await register(client, "fresh", "DEPLOYED")
    page = await opened(browser, platform, "/models")
    await page.locator('[data-act="model:fresh"]').click()
    await expect(page.locator(f'[data-row="{first.version}"]')).to_contain_text("deployed")

    second = await register(client, "fresh", "VALIDATED", first)

    await expect(page.locator(f'[data-row="{second.version}"]')).to_contain_text("0.7200")
    axis = page.locator(".charts .nicegui-echart").first.locator("svg text")
    await expect(axis.filter(has_text="AUC")).to_have_count(1)
    await expect(axis.get_by_text("2", exact=True)).to_have_count(1)
    await page.get_by_role("button", name="over time").click()
    await expect(page.get_by_role("button", name="over time")).to_have_attribute("aria-pressed", "true")
    await expect(axis.get_by_text("2", exact=True)).to_have_count(0)


async def test_what_serves_is_drawn_beside_the_frozen_base(
    platform: Platform, browser: Browser, client: ControlClient
) -> None:
    served = await register(client, "beside", "DEPLOYED")
    page = await opened(browser, platform, "/models")
    await page.locator('[data-act="model:beside"]').click()
    await expect(page.locator('[data-act="model:beside"]')).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(".beside")).not_to_be_visible()

    for time_ms, live, frozen in ((1_700_000_000_000, 0.36, 0.37), (1_700_000_015_000, 0.31, 0.39)):
        told = {"live_logloss": live, "frozen_logloss": frozen, "gap_low": 0.05, "gap_high": 0.11}
        items = [{"name": name, "value": value, "time": time_ms} for name, value in told.items()]
        await client.record_metrics("beside", served.version, items)

    await expect(page.locator(".gap")).to_have_attribute("data-gap", "0.0800", timeout=LONG_MS)
    await expect(page.locator(".beside svg")).to_be_visible()
    await expect(page.locator(".beside .legend span")).to_have_text(["beside, what serves", "beside_base, frozen"])


async def test_a_rule_ticks_what_came_and_names_what_is_missing(
    platform: Platform, browser: Browser, client: ControlClient
) -> None:
    name = f"orders_{uuid.uuid4().hex[:8]}"
    with Workflow(name) as flow:
        pack = BatchTask("pack", run="true")
        pack.start_on(sequence(event(f"{name}.paid"), event(f"{name}.picked")))
    (await asyncio.to_thread(httpx.post, f"{platform.url}/api/v1/workflows", json=flow.compile())).raise_for_status()

    page = await opened(browser, platform, "/workflows")
    rule = page.locator("section.rule").filter(has_text=f"{name}.paid")
    await expect(rule.locator(".missing")).to_have_text(f"Missing: event {name}.paid")
    offset = await client.append(f"{name}.paid", "42")

    await expect(rule.locator("li.met")).to_contain_text(f"#{offset} {name}.paid = 42")
    await expect(rule.locator(".missing")).to_have_text(f"Missing: event {name}.picked")
    await client.append(f"{name}.picked", "42")
    await expect(rule.locator(".last").first).to_contain_text("Fired")
    run = page.locator("tr").filter(has_text="pack").filter(has_text=f"{name}.paid")
    await expect(run).to_have_count(1)


async def test_events_appear_as_they_come_and_are_filtered(
    platform: Platform, browser: Browser, client: ControlClient
) -> None:
    page = await opened(browser, platform, "/events")
    offset = await client.append("harbour", "ship <b>7</b>", type="ARRIVED", context={"cargo": "tea"})

    row = page.locator(f'[data-row="{offset}"]')
    await expect(row).to_contain_text("ship <b>7</b>")  # shown, not taken for markup
    await row.get_by_role("button").click()
    await expect(page.locator("pre")).to_contain_text('"cargo": "tea"')
    await page.get_by_label("Filter").fill("no such thing")
    await expect(page.locator(".page")).to_contain_text("No such event")
    await page.get_by_label("Filter").fill("harbour arr")
    await expect(row).to_be_visible()


@pytest.mark.parametrize("path", PATHS)
async def test_a_store_that_is_away_is_told_and_forgotten_when_it_is_back(
    path: str, platform: Platform, browser: Browser
) -> None:
    page = await opened(browser, platform, path)

    await asyncio.to_thread(platform.stack.stop, "postgres")
    await expect(page.locator(".banner")).to_contain_text("The control store is away", timeout=LONG_MS)
    await expect(page.locator(".pulse")).to_have_text("away")

    await asyncio.to_thread(platform.stack.start, "postgres")
    await expect(page.locator(".pulse")).to_have_text("live", timeout=LONG_MS)
    await expect(page.locator(".banner")).to_have_count(0)


@pytest.mark.parametrize("path", PATHS)
async def test_pages_fit_a_phone_in_light_and_dark_and_load_nothing_from_elsewhere(
    path: str, platform: Platform, browser: Browser, client: ControlClient
) -> None:
    await register(client, "ctr", "REJECTED")
    grounds = []
    for scheme in ("light", "dark"):
        page = await opened(browser, platform, path, width=390, scheme=scheme)
        heard = listen(page)
        await page.reload()
        await expect(page.locator(".pulse")).to_have_text("live", timeout=LONG_MS)

        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        assert heard.faults == []
        assert [url for url in heard.asked if not url.startswith((platform.url, "data:"))] == []
        grounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert _brightness(grounds[0]) > 200
    assert _brightness(grounds[1]) < 60


async def test_every_page_is_reached_by_tab_and_enter(platform: Platform, browser: Browser) -> None:
    page = await opened(browser, platform, "/")
    for path in PATHS[1:]:
        for _ in range(12):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.getAttribute('href')") == path:
                break
        await page.keyboard.press("Enter")
        await page.wait_for_url(platform.url + path)
        await expect(page.locator("nav [aria-current]")).to_have_attribute("href", path)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/v1/nothing", 404), ("DELETE", "/api/v1/events", 405)]
)
async def test_what_is_not_the_console_s_is_answered_as_before(
    method: str, path: str, status: int, platform: Platform
) -> None:
    async with httpx.AsyncClient(base_url=platform.url) as http:
        answer = await http.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def _brightness(colour: str) -> float:
    """Of a colour as `rgb(r, g, b)`, 0 to 255."""
    return sum(float(part) for part in colour[4:-1].split(",")) / 3
