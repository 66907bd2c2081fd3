"""Runs that took too long, were lost, are to be tried again, or have waited for their turn."""

from dataclasses import dataclass
from typing import Any

from headrace_core.contracts import Millis

from headrace_control_plane.scheduler.actions import Actions


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long runs are waited for.

    Attributes:
        lost_ms: a run that was not heard of for so long is lost.
        stop_ms: a run that was told to stop has so long to end by itself.
    """

    lost_ms: int
    stop_ms: int


async def keep_house(actions: Actions, bounds: Bounds, since: Millis, now: Millis) -> None:
    """Move the runs that time moves.

    Args:
        actions: of this decision.
        bounds: for runs.
        since: when this leader began: before it nobody could be heard.
        now: the time.
    """
    for run in list(actions.alive):
        if run["executor"] == "stream":
            continue
        if run["status"] == "RETRYING":
            if run["not_before"] <= now:
                await actions.begin_attempt(run)
        elif run["status"] in {"RUNNING", "STOPPING"}:
            await _watch(actions, run, bounds, since, now)
    for run in [r for r in actions.alive if r["status"] == "QUEUED"]:
        task = (run["workflow"], run["task"])
        working = [r for r in actions.alive if (r["workflow"], r["task"]) == task and r["status"] != "QUEUED"]
        if len(working) < run["policy"].get("concurrency", 1):
            await actions.begin_attempt(run)


async def _watch(actions: Actions, run: dict[str, Any], bounds: Bounds, since: Millis, now: Millis) -> None:
    silent = now - max(run["heartbeat_at"], since)
    timeout = run["policy"].get("timeout_ms")
    if silent > bounds.lost_ms:
        await actions.fail(run, f"not heard of for {silent / 1000:g} s")
    elif run["status"] == "STOPPING":
        if now - run["stopping_at"] > 2 * bounds.stop_ms:  # a process is killed after half of it
            await actions.fail(run, "did not stop")
    elif timeout is not None and now - run["started_at"] > timeout:
        await actions.stop_for(run, f"took longer than {timeout / 1000:g} s")
