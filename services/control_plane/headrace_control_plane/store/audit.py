"""The table of what was asked to be changed, by whom, and how it was answered."""

from collections.abc import Mapping
from typing import Any

from headrace_core.contracts import Millis

from headrace_control_plane.store.database import Pool


async def begin(  # noqa: PLR0913  # the columns
    pool: Pool, *, time: Millis, by: str, address: str, method: str, path: str, body: str
) -> int:
    """Write down a call before its work begins; the number of the row."""
    return int(
        await pool.fetchval(
            "INSERT INTO control.audit (time, by, address, method, path, body) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            time, by, address, method, path, body,
        )
    )  # fmt: skip


async def end(pool: Pool, number: int, status: int, time: Millis) -> None:
    """Write down how it was answered."""
    await pool.execute("UPDATE control.audit SET status = $2, ended = $3 WHERE id = $1", number, status, time)


async def listed(pool: Pool, by: str | None, limit: int, before: int | None) -> list[Mapping[str, Any]]:
    """Calls, newest first."""
    return [
        dict(row)
        for row in await pool.fetch(
            "SELECT id, time, by, address, method, path, body, status, ended FROM control.audit "
            "WHERE ($1::text IS NULL OR by = $1) AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
            by, before, limit,
        )
    ]  # fmt: skip
