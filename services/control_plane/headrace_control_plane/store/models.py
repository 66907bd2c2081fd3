"""The model center: versions, stages, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.web.problem import ProblemError

from headrace_control_plane.store import runs
from headrace_control_plane.store.database import Connection, Pool
from headrace_control_plane.store.events import NewEvent, append

Told = dict[str, Any]

#: What may follow a stage.
STEPS: Final[Mapping[str, frozenset[str]]] = {
    "GENERATED": frozenset({"VALIDATED", "REJECTED", "DEPRECATED"}),
    "VALIDATED": frozenset({"DEPLOYED", "DEPRECATED"}),
    "REJECTED": frozenset(),
    "DEPLOYED": frozenset({"DEPRECATED"}),
    "DEPRECATED": frozenset({"DELETED"}),
    "DELETED": frozenset(),
}

_COLUMNS: Final = "model, version, stage, track, artifact, parent, manifest, metrics"
_CONTENT: Final = ("artifact", "parent", "manifest", "metrics")


async def reserve(pool: Pool, model: str) -> int:
    """The model's next version number."""
    return int(
        await pool.fetchval(
            "INSERT INTO control.models (model, reserved) VALUES ($1, 1) "
            "ON CONFLICT (model) DO UPDATE SET reserved = models.reserved + 1 RETURNING reserved",
            model,
        )
    )


async def register(  # noqa: PLR0913, PLR0917  # the fields of the call
    pool: Pool, model: str, version: int, content: Mapping[str, Any], run: str | None, now: Millis
) -> tuple[Told, bool]:
    """The version, and whether it is new.

    Raises:
        ProblemError: 409 when the number was not reserved, is there with another content, or the run is over.
    """
    async with pool.acquire() as connection, connection.transaction():
        reserved = await connection.fetchval("SELECT reserved FROM control.models WHERE model = $1 FOR UPDATE", model)
        if version > (reserved or 0):
            raise ProblemError(
                409, f"version {version} of {model} was not reserved: POST /models/{model}/versions:reserve"
            )
        old = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM control.versions WHERE model = $1 AND version = $2",  # noqa: S608  # constants
            model, version,
        )  # fmt: skip
        if old is not None:
            different = [name for name in _CONTENT if old[name] != content[name]]
            if different:
                raise ProblemError(409, f"{model} {version} is registered with another {', '.join(different)}")
            return await _one(connection, model, version), False
        run_id = await runs.holder(connection, run)
        await connection.execute(
            "INSERT INTO control.versions (model, version, stage, artifact, parent, manifest, metrics, run_id) "
            "VALUES ($1, $2, 'GENERATED', $3, $4, $5, $6, $7)",
            model, version, *(content[name] for name in _CONTENT), run_id,
        )  # fmt: skip
        by = run_id or "api"
        event = await _write_history(
            connection, content, (model, version, "GENERATED", "stable"), (by, "registered", {}), now
        )
        told = await _one(connection, model, version)
        await append(connection, [event])
        return told, True


async def move(  # noqa: PLR0913  # the fields of the call
    pool: Pool,
    model: str,
    version: int,
    stage: str,
    *,
    by: str,
    why: str,
    details: Mapping[str, Any],
    track: str,
    run: str | None,
    now: Millis,
) -> Told:
    """Move a version to a stage, with the one that was deployed before in the same transaction.

    Raises:
        ProblemError: 404 unknown, 409 for a step that is not allowed or a run that is over.
    """
    async with pool.acquire() as connection, connection.transaction():
        # All moves of a model one after the other: two deployments at once can't both find nobody deployed.
        await connection.execute("SELECT 1 FROM control.models WHERE model = $1 FOR UPDATE", model)
        row = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM control.versions WHERE model = $1 AND version = $2",  # noqa: S608  # constants
            model, version,
        )  # fmt: skip
        if row is None:
            raise ProblemError(404, f"there is no version {version} of {model}")
        if row["stage"] == stage and (stage != "DEPLOYED" or row["track"] == track):
            return await _one(connection, model, version)
        if stage not in STEPS[row["stage"]]:
            allowed = ", ".join(sorted(STEPS[row["stage"]])) or "nothing"
            raise ProblemError(409, f"{model} {version} is {row['stage']}; what may follow is {allowed}, not {stage}")
        await runs.holder(connection, run)
        events = []
        if stage == "DEPLOYED":
            before = await connection.fetchrow(
                "UPDATE control.versions SET stage = 'DEPRECATED' WHERE model = $1 AND track = $2 AND stage = 'DEPLOYED' "
                "RETURNING version, artifact, parent",
                model, track,
            )  # fmt: skip
            if before is not None:
                subject = (model, before["version"], "DEPRECATED", track)
                reason: tuple[str, str, dict[str, Any]] = (by, f"superseded by version {version}", {})
                events.append(await _write_history(connection, before, subject, reason, now))
        else:
            track = row["track"]
        await connection.execute(
            "UPDATE control.versions SET stage = $3, track = $4 WHERE model = $1 AND version = $2",
            model, version, stage, track,
        )  # fmt: skip
        # The new one is told first, so that nobody who reads on sees a moment without one.
        events.insert(0, await _write_history(connection, row, (model, version, stage, track), (by, why, details), now))
        told = await _one(connection, model, version)
        await append(connection, events)
        return told


async def _write_history(
    connection: Connection,
    content: Mapping[str, Any],
    subject: tuple[str, int, str, str],
    reason: tuple[str, str, Mapping[str, Any]],
    now: Millis,
) -> NewEvent:
    """Write a change down; the event that tells of it."""
    model, version, stage, track = subject
    by, why, details = reason
    await connection.execute(
        "INSERT INTO control.version_history (model, version, stage, time, by, why, details, track) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        model, version, stage, now, by, why, details, track,
    )  # fmt: skip
    context = {
        "artifact": content["artifact"],
        "parent": content["parent"],
        "why": why,
        "by": by,
        "track": track,
        "details": details,
    }
    return NewEvent(model, str(version), f"MODEL_{stage}", context=context)


async def models(pool: Pool) -> list[Told]:
    """Every model with its newest and its deployed versions."""
    rows = await pool.fetch(
        "SELECT m.model, m.reserved, max(v.version) AS newest, count(v.version) AS versions, "
        "coalesce(jsonb_object_agg(v.track, v.version) FILTER (WHERE v.stage = 'DEPLOYED'), '{}') AS deployed "
        "FROM control.models m LEFT JOIN control.versions v USING (model) GROUP BY m.model, m.reserved ORDER BY m.model"
    )
    return [dict(row) for row in rows]


async def versions(pool: Pool, model: str, stage: str | None, limit: int, before: int | None) -> list[Told]:
    """Versions of a model with a lower number than `before`, newest first."""
    return await _read(
        pool,
        "model = $1 AND ($2::text IS NULL OR stage = $2) AND ($3::bigint IS NULL OR version < $3) "
        "ORDER BY version DESC LIMIT $4",
        model, stage, before, limit,
    )  # fmt: skip


async def version(pool: Pool | Connection, model: str, number: int) -> Told:
    """One version.

    Raises:
        ProblemError: 404.
    """
    return await _one(pool, model, number)


async def deployed(pool: Pool, model: str, track: str) -> Told:
    """The deployed version.

    Raises:
        ProblemError: 404 if there is none.
    """
    found = await _read(pool, "model = $1 AND track = $2 AND stage = 'DEPLOYED'", model, track)
    if not found:
        raise ProblemError(404, f"no version of {model} is deployed on {track}")
    return found[0]


async def record_metrics(pool: Pool, model: str, number: int, items: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics of a version; the same name, slice and time is replaced."""
    await _one(pool, model, number)
    # One row per key: ON CONFLICT can't touch a row twice.
    rows = {(i["name"], i["slice"], i["time"]): i["value"] for i in items}
    await pool.execute(
        "INSERT INTO control.version_metrics (model, version, name, slice, time, value) "
        "SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::bigint[], $6::float8[]) "
        "ON CONFLICT (model, version, name, slice, time) DO UPDATE SET value = excluded.value",
        model, number, [k[0] for k in rows], [k[1] for k in rows], [k[2] for k in rows], list(rows.values()),
    )  # fmt: skip


async def metrics(pool: Pool, model: str, number: int) -> list[Told]:
    """Metrics of a version, oldest first."""
    await _one(pool, model, number)
    rows = await pool.fetch(
        "SELECT name, value, time, slice FROM control.version_metrics WHERE model = $1 AND version = $2 "
        "ORDER BY time, name, slice",
        model, number,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def _one(connection: Pool | Connection, model: str, number: int) -> Told:
    found = await _read(connection, "model = $1 AND version = $2", model, number)
    if not found:
        raise ProblemError(404, f"there is no version {number} of {model}")
    return found[0]


async def _read(connection: Pool | Connection, where: str, *values: Any) -> list[Told]:
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM control.versions WHERE {where}", *values)  # noqa: S608  # constants
    told = [dict(row) | {"history": []} for row in rows]
    by_version = {(t["model"], t["version"]): t["history"] for t in told}
    if told:
        changes = await connection.fetch(
            "SELECT model, version, stage, time, by, why, details FROM control.version_history "
            "WHERE model = $1 AND version = ANY($2) ORDER BY id",
            told[0]["model"], [t["version"] for t in told],
        )  # fmt: skip
        for change in changes:
            entry = dict(change)
            by_version[entry.pop("model"), entry.pop("version")].append(entry)
    return told
