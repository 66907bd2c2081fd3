"""How fast a log replays: `python -m load_tests.replay [--rows 100000] [--seconds 5]` prints figures as JSON.

Starts a stack of its own with every service, writes a log of the simulated world, measures what the gateway alone answers to
rankings and takes of events, and replays the log by `headrace replay --speed max`. The ceiling is how many impressions a second the
gateway could serve if the replay and everything behind the gateway cost nothing; the ratio compares both in one run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import psutil
import uvloop
from headrace_stack.layout import Layout
from headrace_stack.simulate.visitors import Habits
from headrace_stack.simulate.world import LatentWorld
from headrace_stack.simulate.written import write_log
from headrace_stack.stack import Stack

from load_tests.gateway.client import drive, request

_EVENTS_A_CALL: Final = 500  # about what a chunk of a replay sends
_STARTS_MS: Final = 1_767_225_600_000
#: What lags behind the gateway after a million rows takes minutes to come.
_SETTLE_S: Final = 900


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="impressions of the log")
    parser.add_argument("--users", type=int, default=20_000, help="of the log")
    parser.add_argument("--count", type=int, default=10, help="impressions of a request")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of the gateway alone")
    parser.add_argument("--only", nargs="*", default=None, help="services; all unless told")
    parser.add_argument("--profile", help="file for a cProfile of the replay")
    asked = parser.parse_args()
    world = LatentWorld(users=asked.users)
    with tempfile.TemporaryDirectory(prefix="headrace-replay-") as folder:
        log = Path(folder) / "log.parquet"
        write_log(log, world, Habits(count=asked.count), rows=asked.rows, rate=100.0, seed=1, start_ms=_STARTS_MS)
        with running(Path(folder) / "home", asked.only) as stack:
            told = measure(stack, log, world, asked)
    print(json.dumps(told, indent=2))


@contextmanager
def running(home: Path, services: list[str] | None) -> Iterator[Stack]:
    """A stack of its own."""
    stack = Stack(Layout(home), "demo", services=None if services is None else tuple(services))
    stack.up()
    try:
        yield stack
    finally:
        stack.down()


def measure(stack: Stack, log: Path, world: LatentWorld, asked: argparse.Namespace) -> dict[str, Any]:
    """Figures of the gateway alone and of the replay, and what each process cost."""
    described = stack.describe()
    port = urlsplit(described["gateway"]).port
    assert port is not None  # noqa: S101  # an address of ours
    items = [thing.item_id for thing in world.things]
    ranked = uvloop.run(drive(port, _rankings(items, asked.count), connections=12, seconds=asked.seconds))
    taken = uvloop.run(drive(port, _events(items), connections=12, seconds=asked.seconds))
    ceiling = 1 / (1 / (ranked.rate * asked.count) + 1 / (taken.rate * _EVENTS_A_CALL))
    before = usage(described)
    began = time.monotonic()
    report, own = replayed(stack.layout.home, log, asked.profile)
    took = time.monotonic() - began
    after = usage(stack.describe())
    replaced = sorted(name for name, used in after.items() if used.pid != before[name].pid)
    spent = {
        name: round(used.cpu_s - (0.0 if name in replaced else before[name].cpu_s), 2) for name, used in after.items()
    } | {"replay": round(own, 2)}
    speed = float(report["impressions_per_s"])
    return {
        "rows": asked.rows,
        "users": asked.users,
        "impressions_per_request": asked.count,
        "impressions_per_s": speed,
        "gateway_alone": {
            "rankings_per_s": ranked.rate,
            "events_per_s": round(taken.rate * _EVENTS_A_CALL, 1),
            "impressions_per_s": round(ceiling, 1),
        },
        "ratio": round(speed / ceiling, 3),
        "cpu_seconds": dict(sorted(spent.items(), key=lambda pair: -pair[1])),
        "cpu_us_per_impression": {name: round(1e6 * s / asked.rows, 1) for name, s in spent.items()},
        "cores_used": round(sum(spent.values()) / took, 2),
        "replaced": replaced,
        "load_average": os.getloadavg()[0],
        "samples": report["samples"],
        "accounting": report["accounting"],
        "versions": report["models"],
        "lost": report["lost"],
        "degraded": report["degraded"],
    }


def _rankings(items: list[str], count: int) -> Callable[[int], bytes]:
    def make(n: int) -> bytes:
        candidates = [items[(n * 31 + k * 17) % len(items)] for k in range(count)]
        body = {"user_id": f"user-{n % 1_000}", "page_id": "home", "candidates": candidates}
        return request("/v1/rank", msgspec.json.encode(body))

    return make


def _events(items: list[str]) -> Callable[[int], bytes]:
    """Organic views, which no sample is made of."""

    def make(n: int) -> bytes:
        now = time.time_ns() // 1_000_000
        events = [
            {
                "event_id": f"alone-{os.getpid()}-{n}-{k}", "user_id": f"user-{(n * 7 + k) % 1_000}", "event_time": now,
                "action": "view", "item_id": items[(n * 13 + k) % len(items)], "page_id": "home", "position": k % 10,
            }
            for k in range(_EVENTS_A_CALL)
        ]  # fmt: skip
        return request("/v1/events", msgspec.json.encode({"events": events}))

    return make


@dataclass(frozen=True)
class Usage:
    """What a process of the stack has used.

    Attributes:
        pid: of the process; another one later says that it was replaced.
        cpu_s: of it and of those that it started.
    """

    pid: int
    cpu_s: float


def usage(described: Mapping[str, Any]) -> dict[str, Usage]:
    """Of each process of the stack."""
    found: dict[str, Usage] = {}
    for told in described["processes"]:
        process = psutil.Process(told["pid"])
        times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
        found[f"{told['service']}-{told['replica']}"] = Usage(process.pid, sum(t.user + t.system for t in times))
    return found


def replayed(home: Path, log: Path, profile: str | None) -> tuple[dict[str, Any], float]:
    """The report of a replay, and its CPU seconds.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    command = [sys.executable, *(["-m", "cProfile", "-o", profile] if profile else [])]
    command += ["-m", "headrace_stack", "replay", str(log), "--json", "--settle", str(_SETTLE_S)]
    environment = os.environ | {"HEADRACE_HOME": str(home)}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(errors.read().decode())
        report: dict[str, Any] = json.loads(output.read())
    return report, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
