"""Workflows, their snapshots, the state of their rules, and what the rules did."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.web.problem import ProblemError

from headrace_control_plane.rules import rule as rules
from headrace_control_plane.store import events
from headrace_control_plane.store.database import Connection, Pool
from headrace_control_plane.store.events import NewEvent, append

Document = Mapping[str, Any]


_APPLIED: Final = "WORKFLOW_APPLIED"
#: Context of that event where nobody uploaded the workflow but the control plane itself.
_SHIPPED: Final = {"shipped": True}


class FencedError(Exception):
    """Another scheduler leads now."""


@dataclass(frozen=True, slots=True)
class Active:
    """A workflow as the scheduler works with it."""

    name: str
    snapshot: int
    paused: bool
    document: Document


@dataclass(frozen=True, slots=True)
class Firing:
    """What a rule did.

    Attributes:
        events: offsets that met its conditions.
        effect: in words.
        run_id: of the run that it started.
    """

    workflow: str
    rule: str
    time: Millis
    events: Sequence[int]
    effect: str
    run_id: str | None


async def lock(connection: Connection, epoch: int | None = None) -> int:
    """Hold the scheduler's place until the end of the transaction; the offset that it has come to.

    Args:
        connection: in a transaction.
        epoch: of the leader who wants to decide; None for a person's call.

    Raises:
        FencedError: another leader has a newer epoch.
    """
    row = await connection.fetchrow("SELECT epoch, consumed FROM control.scheduler FOR UPDATE")
    if epoch is not None and row["epoch"] != epoch:
        raise FencedError(f"epoch {row['epoch']} leads, this is {epoch}")
    return int(row["consumed"])


async def lead(connection: Connection) -> int:
    """Begin a new epoch."""
    return int(await connection.fetchval("UPDATE control.scheduler SET epoch = epoch + 1 RETURNING epoch"))


async def apply(pool: Pool, document: Document, now: Millis) -> tuple[int, bool]:
    """Upload a valid document; its snapshot, and whether it is a new one.

    Rules that are as they were go on with their state, new and changed ones see later events only.
    """
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        return await _apply(connection, document, now)


async def apply_shipped(pool: Pool, document: Document, now: Millis) -> int | None:
    """Upload a valid document unless somebody else uploaded the workflow that is there; its snapshot, or None if so."""
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        last = await connection.fetchval(
            'SELECT context FROM control.events WHERE key = $1 AND type = $2 AND sender = $3 ORDER BY "offset" DESC LIMIT 1',
            f"workflow:{document['workflow']}", _APPLIED, events.SENDER,
        )  # fmt: skip
        if last is not None and last != _SHIPPED:
            return None
        return (await _apply(connection, document, now, _SHIPPED))[0]


async def _apply(
    connection: Connection, document: Document, now: Millis, context: Mapping[str, Any] | None = None
) -> tuple[int, bool]:
    name = document["workflow"]
    row = await connection.fetchrow(
        "SELECT w.snapshot, s.document FROM control.workflows w JOIN control.snapshots s USING (workflow, snapshot) "
        "WHERE workflow = $1",
        name,
    )
    if row is not None and row["document"] == document:
        return int(row["snapshot"]), False
    snapshot = 1 if row is None else row["snapshot"] + 1
    await connection.execute("INSERT INTO control.snapshots VALUES ($1, $2, $3, $4)", name, snapshot, document, now)
    await connection.execute(
        "INSERT INTO control.workflows (workflow, snapshot) VALUES ($1, $2) "
        "ON CONFLICT (workflow) DO UPDATE SET snapshot = excluded.snapshot",
        name, snapshot,
    )  # fmt: skip
    told = {r["rule"]: r for r in document["rules"]}
    known = await connection.fetch("SELECT rule, definition FROM control.rule_states WHERE workflow = $1", name)
    kept = {k["rule"] for k in known if told.get(k["rule"]) == k["definition"]}
    await connection.execute(
        "DELETE FROM control.rule_states WHERE workflow = $1 AND rule <> ALL($2)", name, list(kept)
    )
    newest = await _hold_newest(connection)
    for rule_name, rule in told.items():
        if rule_name not in kept:
            await connection.execute(
                "INSERT INTO control.rule_states VALUES ($1, $2, $3, $4, $5)",
                name, rule_name, rule, newest, rules.begin(rule, now),
            )  # fmt: skip
    applied = NewEvent(f"workflow:{name}", str(snapshot), _APPLIED, context=context or {})
    await append(connection, [applied])
    return snapshot, True


async def pause(pool: Pool, name: str, now: Millis, *, paused: bool) -> None:
    """Pause or resume; what happened while a workflow was paused, its rules never see.

    Raises:
        ProblemError: 404.
    """
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        before = await connection.fetchval("SELECT paused FROM control.workflows WHERE workflow = $1", name)
        if before is None:
            raise ProblemError(404, f"there is no workflow {name}")
        if before == paused:
            return
        await connection.execute("UPDATE control.workflows SET paused = $2 WHERE workflow = $1", name, paused)
        newest = await _hold_newest(connection)
        if not paused:
            for row in await connection.fetch(
                "SELECT rule, definition FROM control.rule_states WHERE workflow = $1", name
            ):
                state = None if "when" in row["definition"] else rules.begin(row["definition"], now)
                await connection.execute(
                    "UPDATE control.rule_states SET active_after = $3, state = coalesce($4, state) "
                    "WHERE workflow = $1 AND rule = $2",
                    name, row["rule"], newest, state,
                )  # fmt: skip
        await append(
            connection, [NewEvent(f"workflow:{name}", "", "WORKFLOW_PAUSED" if paused else "WORKFLOW_RESUMED")]
        )


async def _hold_newest(connection: Connection) -> int:
    """The newest offset, which stays so until the end of the transaction."""
    return int(await connection.fetchval("SELECT newest FROM control.counter FOR UPDATE"))


async def active(connection: Connection, documents: dict[tuple[str, int], Document]) -> dict[str, Active]:
    """All workflows; `documents` keeps snapshots, which never change, from one call to the next."""
    rows = await connection.fetch("SELECT workflow, snapshot, paused FROM control.workflows ORDER BY workflow")
    found = {}
    for row in rows:
        key = (row["workflow"], row["snapshot"])
        if key not in documents:
            documents[key] = await connection.fetchval(
                "SELECT document FROM control.snapshots WHERE workflow = $1 AND snapshot = $2", *key
            )
        found[row["workflow"]] = Active(row["workflow"], row["snapshot"], row["paused"], documents[key])
    for key in documents.keys() - {(a.name, a.snapshot) for a in found.values()}:
        del documents[key]
    return found


async def rule_states(connection: Connection) -> list[Mapping[str, Any]]:
    """The state of every rule."""
    return list(
        await connection.fetch("SELECT workflow, rule, definition, active_after, state FROM control.rule_states")
    )


async def write(  # noqa: PLR0913, PLR0917  # the parts of a decision
    connection: Connection,
    consumed: int,
    states: Mapping[tuple[str, str], Mapping[str, Any]],
    firings: Sequence[Firing],
    set_aside: Sequence[tuple[str, str, int, str]],
    now: Millis,
) -> None:
    """What a decision changed."""
    await connection.execute("UPDATE control.scheduler SET consumed = $1", consumed)
    await connection.executemany(
        "UPDATE control.rule_states SET state = $3 WHERE workflow = $1 AND rule = $2",
        [(*key, state) for key, state in states.items()],
    )
    await connection.executemany(
        "INSERT INTO control.firings (workflow, rule, time, events, effect, run_id) VALUES ($1, $2, $3, $4, $5, $6)",
        [(f.workflow, f.rule, f.time, list(f.events), f.effect, f.run_id) for f in firings],
    )
    await connection.executemany(
        "INSERT INTO control.set_aside (workflow, rule, event, time, error) VALUES ($1, $2, $3, $4, $5)",
        [(workflow, rule, event, now, error) for workflow, rule, event, error in set_aside],
    )


async def listed(pool: Pool) -> list[dict[str, Any]]:
    """Every workflow, without its document."""
    rows = await pool.fetch(
        "SELECT workflow, snapshot, paused, s.created_at AS applied_at, "
        "(SELECT count(*) FROM control.rule_states r WHERE r.workflow = w.workflow) AS rules "
        "FROM control.workflows w JOIN control.snapshots s USING (workflow, snapshot) ORDER BY workflow"
    )
    return [dict(row) for row in rows]


async def one(pool: Pool | Connection, name: str, snapshot: int | None = None) -> dict[str, Any]:
    """A workflow with its document; of the newest snapshot unless told.

    Raises:
        ProblemError: 404.
    """
    row = await pool.fetchrow(
        "SELECT workflow, s.snapshot, paused, s.created_at AS applied_at, document "
        "FROM control.workflows w JOIN control.snapshots s USING (workflow) "
        "WHERE workflow = $1 AND s.snapshot = coalesce($2, w.snapshot)",
        name, snapshot,
    )  # fmt: skip
    if row is None:
        raise ProblemError(404, f"there is no workflow {name}" + (f" with snapshot {snapshot}" if snapshot else ""))
    return dict(row)


async def state_of(pool: Pool, name: str, rule: str) -> Mapping[str, Any]:
    """Definition, active_after and state of one rule.

    Raises:
        ProblemError: 404.
    """
    row: Mapping[str, Any] | None = await pool.fetchrow(
        "SELECT definition, active_after, state FROM control.rule_states WHERE workflow = $1 AND rule = $2", name, rule
    )
    if row is None:
        raise ProblemError(404, f"there is no rule {rule} in workflow {name}")
    return row


async def past_of(pool: Pool, name: str, rule: str, limit: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Last firings of a rule with their events, and events set aside by it; newest first."""
    firings, aside = await asyncio.gather(
        pool.fetch(
            "SELECT time, events, effect, run_id FROM control.firings WHERE workflow = $1 AND rule = $2 "
            "ORDER BY id DESC LIMIT $3",
            name, rule, limit,
        ),
        pool.fetch(
            "SELECT time, event, error FROM control.set_aside WHERE workflow = $1 AND rule = $2 ORDER BY id DESC LIMIT $3",
            name, rule, limit,
        ),
    )  # fmt: skip
    known = await events.by_offset(pool, [o for f in firings for o in f["events"]] + [row["event"] for row in aside])
    return (
        [dict(f) | {"events": [known[o] for o in f["events"] if o in known]} for f in firings],
        [dict(row) | {"event": known.get(row["event"])} for row in aside],
    )
