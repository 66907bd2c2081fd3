"""Runs: one execution of a task each. Whoever holds a run's token may have effects in its name, until it is over."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.web.problem import ProblemError

from headrace_control_plane.store.database import Connection, Pool
from headrace_control_plane.store.events import NewEvent, append

OVER: Final = ("STOPPED", "SUCCEEDED", "FAILED")
#: The token is good in these.
_HELD: Final = ("RUNNING", "STOPPING")
_COLUMNS: Final = (
    "run_id, workflow, task, service, executor, command, status, attempt, cause, worker, created_at, started_at, ended_at, "
    "result, error"
)
#: Longest pause between two attempts.
_LONGEST_MS: Final = 3_600_000

Run = Mapping[str, Any]


async def holder(connection: Connection, token: str | None) -> str | None:
    """Id of the run that a token stands for; the run can't end before this transaction does.

    Raises:
        ProblemError: 409 when the token is not, or no longer, good.
    """
    if token is None:
        return None
    row = await connection.fetchrow("SELECT run_id, status FROM control.runs WHERE token = $1 FOR SHARE", token)
    if row is None or row["status"] not in _HELD:
        raise ProblemError(409, "the run's token is not, or no longer, good: the run ended or was given to another")
    return str(row["run_id"])


async def newest_statuses(pool: Pool) -> list[tuple[str, str, str]]:
    """Workflow, task and status of the newest run of every task that had one."""
    rows = await pool.fetch(
        "SELECT t.workflow, t.task, r.status FROM control.tasks t CROSS JOIN LATERAL (SELECT status FROM control.runs "
        "WHERE workflow = t.workflow AND task = t.task ORDER BY id DESC LIMIT 1) r"
    )
    return [(row["workflow"], row["task"], row["status"]) for row in rows]


async def claim(pool: Pool, run_id: str, claimer: Mapping[str, Any], now: Millis) -> str:
    """Take a run that was started; the token.

    Args:
        pool: of connections.
        run_id: of the run.
        claimer: worker, and if told nonce (the same one may ask again), host, pid and pid_started of the process.
        now: the time.

    Raises:
        ProblemError: 404; 409 when it was claimed or is over.
    """
    async with pool.acquire() as connection, connection.transaction():
        run = await _locked(connection, run_id)
        nonce = claimer["nonce"] or None
        if run["status"] == "RUNNING" and nonce is not None and run["nonce"] == nonce:
            return str(run["token"])
        if run["status"] != "STARTING" or run["executor"] == "stream":
            whom = f", claimed by {run['worker']}" if run["status"] in _HELD else ""
            raise ProblemError(409, f"run {run_id} is {run['status']}{whom}")
        token = secrets.token_urlsafe(24)
        await connection.execute(
            "UPDATE control.runs SET status = 'RUNNING', token = $2, nonce = $3, worker = $4, host = $5, pid = $6, "
            "pid_started = $7, started_at = $8, heartbeat_at = $8 WHERE run_id = $1",
            run_id, token, nonce, claimer["worker"], claimer["host"], claimer["pid"], claimer["pid_started"], now,
        )  # fmt: skip
        await append(connection, [task_event(run, "RUNNING")])
        return token


async def heartbeat(pool: Pool, run_id: str, token: str, now: Millis) -> bool:
    """Note that a run lives; whether it should stop.

    Raises:
        ProblemError: 404; 409 when the token is no longer good.
    """
    status = await pool.fetchval(
        "UPDATE control.runs SET heartbeat_at = $3 WHERE run_id = $1 AND token = $2 AND status IN ('RUNNING', 'STOPPING') "
        "RETURNING status",
        run_id, token, now,
    )  # fmt: skip
    if status is None:
        await one(pool, run_id)
        raise ProblemError(409, f"run {run_id} ended, or was given to another")
    return bool(status == "STOPPING")


async def finish(  # noqa: PLR0913, PLR0917  # the fields of the call
    pool: Pool, run_id: str, token: str, status: str, result: Mapping[str, Any], error: str, now: Millis
) -> dict[str, Any]:
    """End a run; one that failed is tried again if its task says so. The same end again changes nothing.

    Raises:
        ProblemError: 404; 409 when the token is no longer good.
    """
    async with pool.acquire() as connection, connection.transaction():
        run = await _locked(connection, run_id)
        if run["token"] != token:
            raise ProblemError(409, f"run {run_id} ended, or was given to another")
        if run["status"] in _HELD:
            ended = await end(connection, run, status, result, error, now, by_holder=True)
            await append(connection, [ended])
    return await one(pool, run_id)


async def end(  # noqa: PLR0913, PLR0917  # the fields of the end
    connection: Connection,
    run: Run,
    status: str,
    result: Mapping[str, Any],
    error: str,
    now: Millis,
    *,
    by_holder: bool = False,
) -> NewEvent:
    """End a locked run in this transaction; the event to append.

    FAILED may become RETRYING, or STOPPED if it was told to stop. Only he who ends his run himself may say so again by his
    token; anybody else's is no longer good.
    """
    policy = run["policy"]
    not_before = 0
    if status == "FAILED" and run["status"] == "STOPPING" and not run["error"]:
        status = "STOPPED"
    if status == "FAILED" and run["attempt"] <= policy.get("retries", 0):
        status = "RETRYING"
        not_before = now + min(policy.get("backoff_ms", 1_000) * 2 ** min(run["attempt"] - 1, 30), _LONGEST_MS)
    error = run["error"] or error  # why it was told to stop goes before how it stopped
    await connection.execute(
        "UPDATE control.runs SET status = $2, result = $3, error = $4, ended_at = $5, not_before = $6, "
        "token = CASE WHEN $7 THEN token END WHERE run_id = $1",
        run["run_id"], status, dict(result), error, None if status == "RETRYING" else now, not_before, by_holder,
    )  # fmt: skip
    return task_event(run, status, error)


def task_event(run: Run, status: str, error: str = "") -> NewEvent:
    """What is told of a run's new status."""
    context = {"run_id": run["run_id"], "attempt": run["attempt"]} | ({"error": error} if error else {})
    return NewEvent(f"{run['workflow']}.{run['task']}", run["run_id"], f"TASK_{status}", context=context)


def request_event(run: Run) -> NewEvent:
    """What tells a resident service of its work."""
    context = {"run_id": run["run_id"], "task": run["task"], "command": run["command"]}
    return NewEvent(f"run:{run['service']}", run["run_id"], "RUN_REQUESTED", context=context)


async def one(pool: Pool | Connection, run_id: str) -> dict[str, Any]:
    """One run.

    Raises:
        ProblemError: 404.
    """
    row = await pool.fetchrow(f"SELECT {_COLUMNS} FROM control.runs WHERE run_id = $1", run_id)  # noqa: S608  # constants
    if row is None:
        raise ProblemError(404, f"there is no run {run_id}")
    return dict(row)


async def listed(pool: Pool, wanted: Mapping[str, Any], limit: int, before: int | None) -> tuple[list[Run], int | None]:
    """Runs with these fields, newest first, and where to go on."""
    wheres, values = ["($1::bigint IS NULL OR id < $1)"], [before, limit + 1]
    for name, value in wanted.items():
        if value is not None:
            values.append(value)
            wheres.append(f"{name} = ${len(values)}")
    rows = await pool.fetch(
        f"SELECT id, {_COLUMNS} FROM control.runs WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT $2",  # noqa: S608  # names of ours
        *values,
    )
    items: list[Run] = [{k: v for k, v in row.items() if k != "id"} for row in rows[:limit]]
    return items, rows[limit - 1]["id"] if len(rows) > limit else None


async def alive(connection: Pool | Connection) -> Sequence[Run]:
    """All columns of every run that is not over, oldest first."""
    return list(
        await connection.fetch(
            "SELECT * FROM control.runs WHERE status NOT IN ('STOPPED', 'SUCCEEDED', 'FAILED') ORDER BY id"
        )
    )


async def _locked(connection: Connection, run_id: str) -> Run:
    row: Run | None = await connection.fetchrow("SELECT * FROM control.runs WHERE run_id = $1 FOR UPDATE", run_id)
    if row is None:
        raise ProblemError(404, f"there is no run {run_id}")
    return row


async def lock(connection: Connection, run_id: str) -> Run:
    """All columns of a run, which nobody else changes until the end of this transaction.

    Raises:
        ProblemError: 404.
    """
    return await _locked(connection, run_id)
