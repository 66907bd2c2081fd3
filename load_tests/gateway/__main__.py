"""What a request costs: `python -m load_tests.gateway [--seconds 5] [--connections 50] [--key]` prints figures as JSON.

Starts stores, a gateway and a bare ASGI app, each route against both in turn, so that the ratio is of one machine in one minute.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop
from headrace_core.definitions.features import load_features
from headrace_core.stores.redis_views import ViewStore, ViewWrite, top_key, user_key
from headrace_core.web.keys import entry, new_key
from headrace_gateway.ranking.in_force import in_force
from headrace_gateway.ranking.lists import CATEGORY_LIST, SEGMENT_LIST
from redis.asyncio import Redis

from load_tests.gateway.client import Figures, bringing, drive, request
from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores, running_stores

USERS, ITEMS, CATEGORIES = 2_000, 2_000, 20


def now_ms() -> int:
    """The clock."""
    return time.time_ns() // 1_000_000


def events(per_call: int) -> Callable[[int], bytes]:
    """Calls of events; users and items are those of the catalog."""

    def make(n: int) -> bytes:
        now = now_ms()
        body = {
            "events": [
                {
                    "event_id": f"e-{os.getpid()}-{now}-{n}-{k}", "user_id": f"u{(n * 7 + k) % USERS}", "event_time": now,
                    "action": "click", "item_id": f"i{(n * 13 + k) % ITEMS}", "page_id": "100", "position": k,
                }
                for k in range(per_call)
            ]
        }  # fmt: skip
        return request("/v1/events", msgspec.json.encode(body))

    return make


def recommend(n: int) -> bytes:
    """Ten ads."""
    body = {"user_id": f"u{n % USERS}", "page_id": "100", "count": 10, "item_type": "ad"}
    return request("/v1/recommend", msgspec.json.encode(body))


def rank(n: int) -> bytes:
    """Fifty candidates."""
    candidates = [f"i{(n * 31 + k * 17) % ITEMS}" for k in range(50)]
    return request(
        "/v1/rank", msgspec.json.encode({"user_id": f"u{n % USERS}", "page_id": "100", "candidates": candidates})
    )


ROUTES: dict[str, tuple[Callable[[int], bytes], int]] = {
    "recommend, 10 items": (recommend, 1),
    "rank, 50 candidates": (rank, 1),
    "events, 1 a call": (events(1), 1),
    "events, 100 a call": (events(100), 100),
}


async def fill(stores: Stores, url: str, key: str = "") -> None:
    """Catalog, sequences of users and ranked lists, as they stand after a busy morning."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        for start in range(0, USERS, 1_000):
            ids = range(start, start + 1_000)
            users = [{"user_id": f"u{n}", "country": f"c{n % 5}", "gender": "fm"[n % 2], "city": "x"} for n in ids]
            items = [
                {"item_id": f"i{n}", "item_type": "ad", "category": f"k{n % CATEGORIES}", "title": "An ad"} for n in ids
            ]
            (await client.post("/v1/users:batch", json={"users": users})).raise_for_status()
            (await client.post("/v1/items:batch", json={"items": items})).raise_for_status()
    folder = Path(stores.environment()["HEADRACE_DEFINITIONS"]) / "features"
    definitions = in_force(load_features(folder))
    now = now_ms()
    entry = {"item_type": "ad", "action": "click", "dwell_ms": 900}
    writes = [
        ViewWrite(user_key(f"u{n}"), f.redis, 1, now, msgspec.msgpack.encode(
            [{"event_time": now, "item_id": f"i{k}", "category": f"k{k % CATEGORIES}", **entry} for k in range(20)]
        ))
        for n in range(USERS) for f in definitions.user_fields
    ]  # fmt: skip
    for k in range(CATEGORIES):
        rows = [[f"i{k + CATEGORIES * n}", 0.1, 10, 100] for n in range(50)]
        value = msgspec.msgpack.encode({"items": rows, "as_of": now})
        writes.append(ViewWrite(top_key(CATEGORY_LIST, [f"k{k}"]), definitions.ranked[CATEGORY_LIST], 1, now, value))
    for country in range(5):
        for gender in "fm":
            rows = [[f"i{n}", 9, 9, 0] for n in range(10)]
            value = msgspec.msgpack.encode({"items": rows, "as_of": now})
            key = top_key(SEGMENT_LIST, [f"c{country}", gender, "100"])
            writes.append(ViewWrite(key, definitions.ranked[SEGMENT_LIST], 1, now, value))
    async with Redis.from_url(stores.redis_url) as redis:
        await ViewStore(redis).write(writes)


def bare() -> tuple[subprocess.Popen[bytes], int]:
    """The bare app as a process of its own, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "load_tests.gateway.bare_app:app",
        "--port",
        str(port),
        "--loop",
        "uvloop",
    ]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off"]
    return subprocess.Popen(command), port


async def reachable(port: int) -> None:
    """Wait until something listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def told(figures: Figures, cpu: float | None, per_call: int) -> dict[str, Any]:
    """Figures of one run as they are printed."""
    lines: dict[str, Any] = {
        "requests_per_s": figures.rate,
        "p50_ms": figures.quantile(0.5),
        "p99_ms": figures.quantile(0.99),
        "statuses": figures.statuses,
    }
    if cpu is not None:
        lines["cpu_ms_per_request"] = round(cpu / len(figures.seconds) * 1_000, 3)
    if per_call > 1:
        lines["events_per_s"] = round(figures.rate * per_call)
    return lines


async def measure(stores: Stores, folder: Path, seconds: float, connections: int, key: str = "") -> dict[str, Any]:
    """Every route against the gateway, with an API key if there is one, and against the bare app."""
    keys = {"HEADRACE_API_KEYS": entry("load", ["admin"], key)} if key else {}
    gateway = GatewayProcess(stores.environment() | {"HEADRACE_LOG_LEVEL": "WARNING"} | keys, folder)
    gateway.start()
    limit, limit_port = bare()
    report: dict[str, Any] = {"seconds": seconds, "connections": connections, "key": bool(key), "routes": {}}
    try:
        await reachable(limit_port)
        await fill(stores, gateway.url, key)
        for name, (plain, per_call) in ROUTES.items():
            make = bringing(key, plain) if key else plain
            await drive(gateway.port, make, connections=4, seconds=1)  # warm
            cpu = gateway.cpu_seconds()
            full = await drive(gateway.port, make, connections=connections, seconds=seconds)
            cpu = gateway.cpu_seconds() - cpu
            half = await drive(gateway.port, make, connections=connections, seconds=seconds, per_second=full.rate / 2)
            least = await drive(limit_port, make, connections=connections, seconds=seconds)
            report["routes"][name] = {
                "gateway": told(full, cpu, per_call),
                "gateway at half that rate": told(half, None, per_call),
                "bare": told(least, None, per_call),
                "ratio": round(full.rate / least.rate, 3),
            }
    finally:
        gateway.stop()
        limit.terminate()
        limit.wait()
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--key", action="store_true", help="with API keys configured, and one brought")
    asked = parser.parse_args()
    with running_stores() as stores, tempfile.TemporaryDirectory() as folder:
        report = uvloop.run(
            measure(stores, Path(folder), asked.seconds, asked.connections, new_key() if asked.key else "")
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
