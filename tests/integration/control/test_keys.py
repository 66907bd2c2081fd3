"""API keys, sessions of the console, the audit and what is logged, at a real control plane."""

import asyncio
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from headrace_core.control.bearer import BearerAuth
from headrace_core.control.client import ControlClient, ControlError
from headrace_core.web.keys import SCOPES, entry, new_key
from headrace_core.workflow import BatchTask, Workflow
from playwright.async_api import async_playwright, expect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.integration.control.conftest import MakeControl
from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack

CHROMIUM: Final = shutil.which("chromium")
KEYS: Final = {scope: new_key() for scope in SCOPES}
EXPIRED: Final = new_key()
LINES: Final = [entry(f"of-{scope}", [scope], key) for scope, key in KEYS.items()] + [
    entry("of-yesterday", ["admin"], EXPIRED, datetime(2020, 1, 1, tzinfo=UTC))
]
OPEN: Final = ("/healthz", "/readyz", "/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/login")
PAGES: Final = ("/", "/models", "/workflows", "/events")


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys as a mounted secret, the key of our own services beside it, and what signs the sessions."""
    folder = tmp_path_factory.mktemp("secret")
    (folder / "keys").mkdir()
    (folder / "files").mkdir()
    (folder / "files" / "HEADRACE_CONSOLE_SECRET").write_text(secrets.token_urlsafe(48), encoding="ascii")
    replace(folder / "keys" / "all", LINES)
    replace(folder / "own", [KEYS["admin"]])
    return folder


@pytest.fixture(scope="module")
def guarded(make_guarded: Callable[[], ControlPlane]) -> ControlPlane:
    """A control plane with keys that logs all it can."""
    return make_guarded()


@pytest.fixture(scope="module")
def make_guarded(make_control: MakeControl, secret: Path) -> Callable[[], ControlPlane]:
    """Replicas of it."""
    return lambda: started(make_control, secret)


def started(make_control: MakeControl, secret: Path) -> ControlPlane:
    control = make_control(
        HEADRACE_SECRETS_DIR=str(secret / "files"),
        HEADRACE_API_KEYS_FILE=str(secret / "keys"), HEADRACE_API_KEY_FILE=str(secret / "own"),
        HEADRACE_LOG_LEVEL="DEBUG", HEADRACE_CONTROL_HOST="0.0.0.0", HEADRACE_BODY_TIMEOUT_MS="500",
        HEADRACE_HEAD_TIMEOUT_MS="500",
    )  # fmt: skip
    control.start()
    return control


@pytest.fixture
async def anyone(guarded: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=guarded.url, timeout=60) as client:
        yield client


@pytest.fixture
async def admin(guarded: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"{guarded.url}/api/v1", timeout=60, headers=bearing(KEYS["admin"])
    ) as client:
        yield client


def replace(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_every_operation_of_the_api_wants_admin(anyone: httpx.AsyncClient) -> None:
    document = (await anyone.get("/openapi.json")).json()
    asked = 0

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path == "/api/v1/stream":
                continue  # has no end
            calls = {who: bearing(key) for who, key in KEYS.items()} | {"nobody": {}, "past": bearing(EXPIRED)}
            told = {
                who: (await anyone.request(method, path.replace("{", "").replace("}", ""), headers=h)).status_code
                for who, h in calls.items()
            }

            if not path.startswith("/api/v1"):
                assert operation["security"] == []
                assert not {401, 403} & set(told.values()), (method, path, told)
                continue
            asked += 1
            assert operation["security"] == [{"key": ["admin"]}]
            assert told.pop("admin") not in {401, 403}, (method, path)
            assert told.pop("nobody") == told.pop("past") == 401, (method, path)
            assert set(told.values()) == {403}, (method, path, told)
    assert asked > 25


async def test_stream_wants_a_key_before_it_begins(anyone: httpx.AsyncClient) -> None:
    answer = await anyone.get("/api/v1/stream")

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="headrace"'


async def test_operations_the_page_of_the_api_and_the_login_are_open(anyone: httpx.AsyncClient) -> None:
    for path in OPEN:
        assert (await anyone.get(path)).status_code == 200, path


async def test_unknown_paths_tell_nothing_to_strangers(anyone: httpx.AsyncClient) -> None:
    for path in ("/api/v2/models", "/none", "/_nicegui/x", "/docs/../api/v1/models", "/healthz/", "//api/v1/models"):
        assert (await anyone.get(path)).status_code in {401, 404}, path


async def test_client_brings_the_key_of_its_file_and_follows_it(guarded: ControlPlane, tmp_path: Path) -> None:
    file = tmp_path / "key"
    replace(file, [KEYS["events"]])
    async with ControlClient(guarded.url, "test", auth=BearerAuth(file=file)) as client:
        with pytest.raises(ControlError, match="this needs the scope admin") as refused:
            await client.newest()
        replace(file, [KEYS["admin"], ""])

        offset = await client.append("keys", "1")

    assert refused.value.status == 403
    assert offset > 0


async def test_client_brings_the_key_of_the_environment(guarded: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", KEYS["admin"])

    async with ControlClient(guarded.url, "test") as client:
        assert await client.newest() >= 0


async def test_run_that_is_started_calls_back_with_a_key(admin: httpx.AsyncClient) -> None:
    with Workflow("keyed") as flow:
        BatchTask("say", run=shlex.join([sys.executable, "-c", "import json; print(json.dumps(dict(said=1)))"]))
    await upload(admin, flow)

    started = (await admin.post("/workflows/keyed/tasks/say/start")).json()

    async def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = (await admin.get(f"/runs/{started['run_id']}")).json()
        return run if run["status"] in {"SUCCEEDED", "FAILED"} else None

    run = await eventually(ended, "the run's end")
    assert (run["status"], run["result"]) == ("SUCCEEDED", {"said": 1})


async def test_pages_send_a_stranger_to_the_login(anyone: httpx.AsyncClient, guarded: ControlPlane) -> None:
    for path in PAGES:
        answer = await anyone.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
    with pytest.raises(InvalidStatus, match="403"):
        await connect(f"ws://127.0.0.1:{guarded.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket")


@pytest.mark.parametrize("key", [new_key(), KEYS["events"], EXPIRED, "", "\N{SNOWMAN}", "x" * 5_000])
async def test_login_refuses_any_other_key(anyone: httpx.AsyncClient, key: str) -> None:
    answer = await anyone.post("/login", data={"key": key})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert not key or key not in answer.text


async def test_session_opens_the_pages_and_not_the_api(anyone: httpx.AsyncClient, guarded: ControlPlane) -> None:
    login = await anyone.post("/login", data={"key": KEYS["admin"]})

    cookie = login.headers["set-cookie"]
    assert (login.status_code, login.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert KEYS["admin"] not in cookie
    for path in PAGES:
        assert (await anyone.get(path)).status_code == 200, path
    assert (await anyone.get("/api/v1/models")).status_code == 401
    brought = {"Cookie": cookie.split(";")[0]}
    async with connect(
        f"ws://127.0.0.1:{guarded.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket", additional_headers=brought
    ) as socket:
        assert str(await socket.recv()).startswith("0{")
    await anyone.post("/logout")
    assert (await anyone.get("/")).status_code == 303


async def test_session_of_one_replica_is_good_at_another(
    anyone: httpx.AsyncClient, make_guarded: Callable[[], ControlPlane]
) -> None:
    other = await asyncio.to_thread(make_guarded)
    cookie = (await anyone.post("/login", data={"key": KEYS["admin"]})).headers["set-cookie"].split(";")[0]

    async with httpx.AsyncClient(base_url=other.url, timeout=60, headers={"cookie": cookie}) as client:
        answers = [(await client.get(page)).status_code for page in PAGES]
    async with connect(
        f"ws://127.0.0.1:{other.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket",
        additional_headers={"Cookie": cookie},
    ) as socket:
        greeted = str(await socket.recv())

    assert answers == [200] * len(PAGES)
    assert greeted.startswith("0{")


async def test_cookie_behind_tls_is_secure(anyone: httpx.AsyncClient) -> None:
    answer = await anyone.post("/login", data={"key": KEYS["admin"]}, headers={"x-forwarded-proto": "https"})

    assert "; secure" in answer.headers["set-cookie"].lower()


async def test_cookie_of_another_signature_opens_nothing(anyone: httpx.AsyncClient) -> None:
    cookie = (await anyone.post("/login", data={"key": KEYS["admin"]})).headers["set-cookie"].split(";")[0]
    anyone.cookies.clear()

    for forged in (
        cookie[:-2] + ("AA" if cookie[-2:] != "AA" else "BB"),
        "headrace_console=",
        "headrace_console=a.b.c",
        "a/b=1; \xff",
    ):
        assert (await anyone.get("/", headers={b"cookie": forged.encode("latin-1")})).status_code == 303, forged


async def test_session_ends_with_its_key(anyone: httpx.AsyncClient, secret: Path) -> None:
    key = new_key()
    replace(secret / "keys" / "more", [entry("visitor", ["admin"], key)])

    async def let_in() -> bool:
        return (await anyone.post("/login", data={"key": key})).status_code == 303

    await eventually(let_in, "a login with the new key")
    assert (await anyone.get("/")).status_code == 200
    (secret / "keys" / "more").unlink()

    async def out() -> bool:
        return (await anyone.get("/")).status_code == 303

    await eventually(out, "the end of the session")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
async def test_person_logs_in_and_sees_what_the_console_reads(guarded: ControlPlane, admin: httpx.AsyncClient) -> None:
    await admin.post("/events", json={"key": "seen", "value": "behind the login"})
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        await page.goto(f"{guarded.url}/events")
        await page.get_by_label("API key").fill(KEYS["admin"])
        await page.get_by_role("button").click()
        await page.goto(f"{guarded.url}/events")

        await expect(page.get_by_role("cell", name="behind the login")).to_be_visible(timeout=60_000)
        await expect(page.locator(".pulse")).to_have_text("live", timeout=60_000)
        await browser.close()


async def test_audit_tells_who_did_what_and_how_it_was_answered(
    admin: httpx.AsyncClient, anyone: httpx.AsyncClient, table: Any
) -> None:
    version = {"version": 1, "artifact": "file:///nowhere", "run": None}
    await admin.post("/models/audited/versions:reserve")
    await admin.post("/models/audited/versions", json=version)
    await admin.post("/models/audited/versions/1/stage", json={"stage": "DEPLOYED", "by": "me", "why": "too early"})
    await admin.post("/models/audited/versions/1/stage", json={"stage": "VALIDATED", "by": "me"})
    await admin.post("/workflows/audited/pause", content=b"x" * 5_000)
    await admin.post("/workflows", content=b"\xff\x00")
    await anyone.post("/api/v1/workflows/audited/resume", headers=bearing(KEYS["events"]))

    answer = (await admin.get("/audit", params={"by": "of-admin", "limit": 6})).json()

    items = answer["items"]
    told = [(i["path"].removeprefix("/api/v1"), i["status"]) for i in items]
    assert told == [
        ("/workflows", 422),
        ("/workflows/audited/pause", 404),
        ("/models/audited/versions/1/stage", 422),
        ("/models/audited/versions/1/stage", 409),
        ("/models/audited/versions", 201),
        ("/models/audited/versions:reserve", 201),
    ]
    assert {(i["by"], i["method"], i["address"]) for i in items} == {("of-admin", "POST", "127.0.0.1")}
    assert all(0 <= i["ended"] - i["time"] < 60_000 for i in items)
    assert items[4]["body"] == {"version": 1, "artifact": "file:///nowhere"}
    assert items[3]["body"]["why"] == "too early"
    assert items[1]["body"]["bytes"] == 5_000
    assert items[5]["body"] is None
    older = (await admin.get("/audit", params={"by": "of-admin", "limit": 6, "before": answer["next"]})).json()
    assert all(i["id"] < items[-1]["id"] for i in older["items"])
    assert await table.fetchval("SELECT count(*) FROM control.audit WHERE path LIKE '%/audited/resume'") == 0


async def test_steps_of_machines_are_left_out_of_the_audit(admin: httpx.AsyncClient, table: Any) -> None:
    before = await table.fetchval("SELECT coalesce(max(id), 0) FROM control.audit")

    await admin.post("/events", json={"key": "k", "value": "v"})
    await admin.post("/runs/none/heartbeat", json={"token": "t"})

    assert await table.fetchval("SELECT coalesce(max(id), 0) FROM control.audit") == before


async def test_nothing_is_done_that_can_not_be_written_down(admin: httpx.AsyncClient, table: Any) -> None:
    await table.execute("ALTER TABLE control.audit RENAME TO audit_away")
    try:
        answer = await admin.post("/models/unaudited/versions:reserve")
    finally:
        await table.execute("ALTER TABLE control.audit_away RENAME TO audit")

    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert await table.fetchval("SELECT count(*) FROM control.models WHERE model = 'unaudited'") == 0


async def test_body_that_does_not_come_is_answered_408(guarded: ControlPlane) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    head = f"POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS['admin']}\r\ncontent-length: 100\r\n\r\n"
    writer.write(head.encode() + b'{"key"')

    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()

    assert answer.split()[1] == b"408"


async def test_long_poll_outlives_the_time_of_a_body(admin: httpx.AsyncClient) -> None:
    newest = (await admin.get("/events/newest")).json()["offset"]

    answer = await admin.get("/events", params={"after": newest + 1_000_000, "wait_s": 1.2})

    assert answer.status_code == 200


async def test_no_key_is_logged(guarded: ControlPlane, anyone: httpx.AsyncClient) -> None:
    wrong = new_key()
    for key in (KEYS["admin"], wrong, EXPIRED, KEYS["events"]):
        for path in ("/api/v1/events", f"/api/v1/{key}", f"/{key}", f"/api/v1/workflows?key={key}", f"/docs/{key}"):
            for content in ('{"key": "k", "value": "v"}', key, ""):
                await anyone.post(path, content=content, headers=bearing(key))
        await anyone.get("/", headers={"cookie": f"headrace_console={key}"})
        await anyone.get(f"/api/v1/models/{key}/deployed?track={key}", headers=bearing(key))
        session = await anyone.post("/login", data={"key": key})
        cookie = session.headers.get("set-cookie", "").split(";")[0]
        if cookie:
            address = f"ws://127.0.0.1:{guarded.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
            async with connect(address, additional_headers={"Cookie": cookie}) as socket:
                await socket.recv()

    folder = guarded.log_file.parent
    written = "".join(
        f.read_text(encoding="utf-8", errors="replace") for f in (guarded.log_file, *folder.glob("runs/*"))
    )
    figures = (await anyone.get("/metrics")).text
    assert "a request was refused" in written
    for key in (*KEYS.values(), EXPIRED, wrong):
        assert key not in written
        assert key not in figures


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "without API keys the control plane listens on loopback only"),
        (
            {"HEADRACE_API_KEYS_FILE": os.devnull},
            "holds none, and without API keys the control plane listens on loopback",
        ),
        ({"HEADRACE_API_KEYS": "me admin sha256:0"}, "HEADRACE_API_KEYS, line 1: want sha256:"),
    ],
)
def test_start_with_keys_that_can_not_be_ends_with_one_line(
    make_control: MakeControl, settings: dict[str, str], says: str
) -> None:
    control = make_control(HEADRACE_CONTROL_HOST="0.0.0.0", **settings)
    control.spawn()
    assert control._process is not None

    assert control._process.wait(60) == 2
    (line,) = control.log().splitlines()
    assert says in line


def test_command_line_brings_the_key(guarded: ControlPlane) -> None:
    def run(**environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).parent / "headrace", "models", "list", "--json"], capture_output=True, text=True,
            check=False, env=os.environ | {"HEADRACE_CONTROL": guarded.url} | environment,
        )  # fmt: skip

    without, bringing = run(), run(HEADRACE_API_KEY=KEYS["admin"])

    assert (without.returncode, "a key is needed" in without.stderr) == (1, True)
    assert bringing.returncode == 0, bringing.stderr
