"""API keys, limits and what is logged of them, at a real gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from headrace_client import ApiError, AsyncClient
from headrace_core.web.keys import SCOPES, entry, new_key

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.gateway.conftest import PATIENT
from tests.integration.gateway.world import an_event, assert_problem, eventually
from tests.integration.stack_cli import Cli

pytestmark = pytest.mark.stack

#: One key for each scope, and one that has expired.
KEYS: Final = {scope: new_key() for scope in SCOPES}
EXPIRED: Final = new_key()
LINES: Final = [entry(f"of-{scope}", [scope], key) for scope, key in KEYS.items()] + [
    entry("of-yesterday", ["admin"], EXPIRED, datetime(2020, 1, 1, tzinfo=UTC))
]
OPEN: Final = ("/healthz", "/readyz", "/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json")

Make = Callable[..., GatewayProcess]


@pytest.fixture(scope="module")
def make_gateway(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    made: list[GatewayProcess] = []
    folder = tmp_path_factory.mktemp("keys")

    def make(**settings: str) -> GatewayProcess:
        made.append(GatewayProcess(stores.environment() | PATIENT | settings, folder))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secret") / "keys"
    file.write_text("\n".join(LINES), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def guarded(make_gateway: Make, keys_file: Path) -> GatewayProcess:
    """A gateway with keys that logs all it can."""
    gateway = make_gateway(
        HEADRACE_API_KEYS_FILE=str(keys_file), HEADRACE_LOG_LEVEL="DEBUG", HEADRACE_BODY_TIMEOUT_MS="500",
        HEADRACE_HEAD_TIMEOUT_MS="500", HEADRACE_GATEWAY_HOST="0.0.0.0",
    )  # fmt: skip
    gateway.start()
    return gateway


@pytest.fixture
async def http(guarded: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=guarded.url, timeout=60) as client:
        yield client


def replace(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_every_operation_wants_the_scope_that_the_page_tells(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            address = path.replace("{entity}", "users").replace("{id}", "u").replace("{feature}", "f")
            calls = {who: bearing(key) for who, key in KEYS.items()} | {"nobody": {}, "past": bearing(EXPIRED)}
            told = {who: (await http.request(method, address, headers=h)).status_code for who, h in calls.items()}

            (wanted,) = [next(iter(one.values()))[0] for one in operation["security"]] or [None]
            if wanted is None:
                assert not {401, 403} & set(told.values()), (method, path, told)
            else:
                assert told["nobody"] == told["past"] == 401, (method, path, told)
                good = {who for who in SCOPES if told[who] not in {401, 403}}
                assert good == {wanted, "admin"}, (method, path, told)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/events", "events"),
        ("POST", "/v1/recommend", "recommend"),
        ("POST", "/v1/rank", "recommend"),
        ("GET", "/v1/features/users/u", "recommend"),
        ("PUT", "/v1/users/u", "catalog"),
        ("POST", "/v1/items:batch", "catalog"),
        ("DELETE", "/v1/users/u", "admin"),
        ("GET", "/v1/users/u", "admin"),
        ("GET", "/healthz/", "admin"),
        ("OPTIONS", "/v1/else", "admin"),
    ],
)
async def test_narrow_key_is_told_the_scope_that_is_needed(
    guarded: GatewayProcess, method: str, path: str, scope: str
) -> None:
    other = next(key for who, key in KEYS.items() if who not in {scope, "admin"})
    async with httpx.AsyncClient(base_url=guarded.url) as http:
        without = await http.request(method, path)
        narrow = await http.request(method, path, headers=bearing(other))

    assert_problem(without, 401, "Authorization: Bearer")
    assert without.headers["www-authenticate"] == 'Bearer realm="headrace"'
    problem = assert_problem(narrow, 403, f"needs the scope {scope}")
    assert problem["scope"] == scope


async def test_dots_in_a_path_open_nothing(guarded: GatewayProcess) -> None:
    for path in ("/docs/../v1/features/users/u", "/docs/..%2fv1/features/users/u", "//v1/features/users/u"):
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()

        assert answer.split()[1] in {b"401", b"404"}, path
        assert b"definition" not in answer


async def test_operations_and_the_page_are_open(http: httpx.AsyncClient) -> None:
    for path in OPEN:
        assert (await http.get(path)).status_code == 200, path


async def test_keys_change_without_a_restart(http: httpx.AsyncClient, keys_file: Path) -> None:
    old, new = KEYS["recommend"], new_key()
    both = [*LINES, entry("of-recommend", ["recommend"], new)]

    async def answers(key: str) -> int:
        return (await http.get("/v1/features/users/u", headers=bearing(key))).status_code

    async def becomes(key: str, status: int) -> None:
        async def look() -> bool:
            return await answers(key) == status

        await eventually(look, f"{status} for the key")

    before = await answers(new)
    replace(keys_file, both)
    await becomes(new, 200)
    side_by_side = await answers(old)
    replace(keys_file, [line for line in both if line != LINES[1]])
    await becomes(old, 401)
    alone = await answers(new)
    replace(keys_file, ["this is no entry"])
    replace(keys_file, LINES)
    await becomes(old, 200)

    assert (before, side_by_side, alone) == (401, 200, 200)


async def test_key_is_replaced_under_traffic_without_a_refused_call(http: httpx.AsyncClient, keys_file: Path) -> None:
    old, new = KEYS["recommend"], new_key()
    handed_out, going = [old], True
    brought = [""] * 4
    statuses: dict[str, set[int]] = {old: set(), new: set()}

    async def call(caller: int) -> None:
        while going:
            key = brought[caller] = handed_out[-1]
            answer = await http.get("/v1/features/users/u", headers=bearing(key))
            statuses[key].add(answer.status_code)

    async def becomes(key: str, status: int) -> None:
        async def look() -> bool:
            answer = await http.get("/v1/features/users/u", headers=bearing(key))
            return answer.status_code == status

        await eventually(look, f"{status} for the key")

    async def all_bring_the_new_one() -> bool:
        return set(brought) == {new} and bool(statuses[new])

    callers = [asyncio.create_task(call(n)) for n in range(len(brought))]
    try:
        replace(keys_file, [*LINES, entry("of-recommend", ["recommend"], new)])
        await becomes(new, 200)
        handed_out.append(new)
        await eventually(all_bring_the_new_one, "callers with the new key")
        replace(keys_file, [entry("of-recommend", ["recommend"], new), LINES[0], *LINES[2:]])
        await becomes(old, 401)
    finally:
        going = False
        await asyncio.gather(*callers)
        replace(keys_file, LINES)
        await becomes(old, 200)

    assert statuses == {old: {200}, new: {200}}


async def test_client_asks_for_its_key_before_each_try(guarded: GatewayProcess) -> None:
    keys = iter([KEYS["events"], KEYS["recommend"]])
    async with AsyncClient(guarded.url, api_key=lambda: next(keys)) as client:
        with pytest.raises(ApiError, match="recommend"):
            await client.recommend("u1", "home")
        assert (await client.recommend("u1", "home")).request_id


def test_commands_that_send_traffic_bring_the_key_of_the_file(guarded: GatewayProcess, tmp_path: Path) -> None:
    key, log = tmp_path / "key", tmp_path / "log.csv"
    log.write_text("user_id,item_id,time,click\nu1,i1,1700000000,0\nu2,i2,1700000001,1\n", encoding="utf-8")
    cli = Cli(tmp_path / "home", {"HEADRACE_GATEWAY": guarded.url, "HEADRACE_API_KEY_FILE": str(key)})
    replay, simulate = ("replay", str(log), "--json"), ("simulate", "--seconds", "1", "--rate", "1", "--json")

    for command in (replay, simulate):
        done = cli.run(*command)
        assert done.returncode, command
        assert f"{key}: No such file" in done.stderr

    key.write_text(KEYS["admin"], encoding="utf-8")
    replayed, simulated = (json.loads(cli.run(*command).stdout) for command in (replay, simulate))
    assert replayed["impressions"] == 2
    assert simulated["visits"] > 0


async def test_a_body_is_not_waited_for_before_the_key_is_known(guarded: GatewayProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n")

    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
    writer.close()

    assert answer.split()[1] == b"401"


async def test_body_that_does_not_come_is_answered_408(guarded: GatewayProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS['events']}\r\ncontent-length: 100\r\n\r\n"
    )
    writer.write(head.encode() + b'{"ev')

    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()

    assert answer.split()[1] == b"408"
    assert b"connection: close" in answer.lower()
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "])
async def test_connection_that_tells_no_request_is_closed(guarded: GatewayProcess, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(said)

    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()

    assert answer == b""


async def test_connection_that_is_kept_serves_on_after_a_refusal(guarded: GatewayProcess) -> None:
    async with httpx.AsyncClient(base_url=guarded.url, limits=httpx.Limits(max_connections=1)) as http:
        told = [
            (await http.post("/v1/events", content=b"x" * 300_000, headers=bearing(key))).status_code
            for key in (new_key(), KEYS["catalog"], KEYS["events"])
        ]

    assert told == [401, 403, 422]


async def test_no_key_is_logged(guarded: GatewayProcess, http: httpx.AsyncClient) -> None:
    good, wrong = KEYS["admin"], new_key()
    event = json.dumps({"events": [an_event()]})
    for key in (good, wrong, EXPIRED, KEYS["catalog"]):
        for path in ("/v1/events", f"/v1/events?key={key}", f"/v1/{key}", f"/v1/users/{key}/no", f"/docs/{key}"):
            for content in (event, key, ""):
                await http.post(path, content=content, headers=bearing(key))
        await http.get(f"/v1/features/users/{key}?authorization={key}", headers=bearing(key) | {"cookie": f"k={key}"})
        await http.get("/v1/features/none/x", headers={"authorization": key})
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        writer.write(f"GET / HTTP/9 {key}\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        await asyncio.wait_for(reader.read(), 30)
        writer.close()

    written = guarded.log_file.read_text(encoding="utf-8")
    figures = (await http.get("/metrics")).text
    assert "a request was refused" in written
    for key in (*KEYS.values(), EXPIRED, wrong):
        assert key not in written
        assert key not in figures
    assert 'headrace_refused_total{reason="expired_key"}' in figures


async def test_rate_is_limited_for_each_key(make_gateway: Make) -> None:
    gateway = make_gateway(
        HEADRACE_API_KEYS=";".join(LINES), HEADRACE_RATE_LIMIT="0.001", HEADRACE_RATE_BURST="3"
    )  # fmt: skip
    gateway.start()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answers = [await http.get("/v1/features/users/u", headers=bearing(KEYS["recommend"])) for _ in range(4)]
        other = await http.get("/v1/features/users/u", headers=bearing(KEYS["admin"]))
        health = [(await http.get("/healthz")).status_code for _ in range(10)]

    assert [a.status_code for a in answers[:3]] == [200, 200, 200]
    assert_problem(answers[3], 429, "of-recommend is over its limit")
    assert int(answers[3].headers["retry-after"]) > 1
    assert answers[3].headers["ratelimit-policy"].startswith('"requests";q=3')
    assert other.status_code == 200
    assert set(health) == {200}


async def test_rate_is_limited_for_each_address_where_there_are_no_keys(make_gateway: Make) -> None:
    gateway = make_gateway(HEADRACE_RATE_LIMIT="0.001", HEADRACE_RATE_BURST="2")
    gateway.start()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        told = [(await http.get("/v1/features/users/u")).status_code for _ in range(3)]

    assert told == [200, 200, 429]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"HEADRACE_API_KEYS_FILE": "{empty}"},
            "holds none, and without API keys the gateway listens on loopback only",
        ),
        ({"HEADRACE_API_KEYS": "shop events sha256:no"}, "HEADRACE_API_KEYS, line 1: want sha256:"),
        ({"HEADRACE_API_KEYS_FILE": "/none"}, "/none: No such file or directory"),
    ],
)
def test_start_with_keys_that_can_not_be_ends_with_one_line(
    make_gateway: Make, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    told = {name: value.replace("{empty}", str(empty)) for name, value in settings.items()}
    gateway = make_gateway(HEADRACE_GATEWAY_HOST="0.0.0.0", **told)
    gateway.spawn()

    assert gateway.wait(60) == 2
    (line,) = gateway.log().splitlines()
    assert says in line
