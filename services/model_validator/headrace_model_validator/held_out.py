"""The newest samples that no trainer learns, from the sample store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import asyncpg
import msgspec
import numpy as np
from headrace_core.definitions.models import Model
from headrace_core.learning.inputs import Columns, InputColumns, Shown, held_out
from numpy.typing import NDArray

from headrace_model_validator.slices import Slices

#: Requests looked at for one that is held out are `held_out` times as many; read a page at a time.
_PAGE: Final = 5_000
_EVER_MS: Final = 1 << 60
_NEWEST: Final = """
    SELECT day, request_id FROM samples.requests
    WHERE (day, request_id) < ($1, $2) ORDER BY day DESC, request_id DESC LIMIT $3
"""
_ROWS: Final = """
    SELECT request_id::text, user_id, page_id, source, items, label, event_time, log
    FROM samples.requests WHERE day = ANY($1) AND request_id = ANY($2)
"""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Samples, in parallel.

    Attributes:
        columns: inputs of the model.
        labels: 0 or 1.
        requests: number of the request of each.
        users: number of the user of each.
        slices: places of the samples of each slice.
    """

    columns: Columns
    labels: NDArray[np.float64]
    requests: NDArray[np.int64]
    users: NDArray[np.int64]
    slices: Mapping[str, NDArray[np.intp]]

    def __len__(self) -> int:
        return len(self.labels)


async def newest_rows(postgres: str, one_in: int, requests: int) -> list[asyncpg.Record]:
    """The newest held-out requests, at most so many, newest first.

    Raises:
        OSError, asyncpg.PostgresError: the store is away.
    """
    connection = await asyncpg.connect(postgres, timeout=10)
    try:
        at: tuple[Any, Any] = (date.max, "ffffffff-ffff-ffff-ffff-ffffffffffff")
        found: list[asyncpg.Record] = []
        for _ in range(max(1, requests * one_in * 2 // _PAGE)):
            page = await connection.fetch(_NEWEST, *at, _PAGE)
            wanted = [r for r in page if held_out(str(r["request_id"]), one_in)]
            if wanted:
                days = sorted({r["day"] for r in wanted})
                found += await connection.fetch(_ROWS, days, [r["request_id"] for r in wanted])
            if len(page) < _PAGE or len(found) >= requests:
                break
            at = page[-1]["day"], page[-1]["request_id"]
    finally:
        await connection.close()
    return sorted(found, key=lambda r: str(r["request_id"]), reverse=True)[:requests]


def settled(rows: Sequence[Any], window_ms: int) -> list[tuple[Any, list[int]]]:
    """Each row with the places of its items whose label is final as far as attribution goes, and that are recent.

    A click is published at once, the lack of one when its time is over; what is newer than a source's newest negative would be
    clicks alone. What is older than the window before the newest of all is of a world that may have changed since: a candidate
    that follows the change would be blamed for it.
    """
    until: dict[int, int] = {}
    for row in rows:
        for label, time in zip(row["label"], row["event_time"], strict=True):
            if not label:
                until[row["source"]] = max(until.get(row["source"], 0), time)
    since = max(until.values(), default=0) - window_ms
    found = []
    for row in rows:
        end = until.get(row["source"], -1)
        if places := [n for n, time in enumerate(row["event_time"]) if since <= time <= end]:
            found.append((row, places))
    return found


def samples_of(rows: Sequence[Any], model: Model, window_ms: int = _EVER_MS) -> HeldOut:
    """Rows as the model sees them.

    Args:
        rows: of samples.requests.
        model: whose inputs and label.
        window_ms: how far back samples count, from the newest.
    """
    shown: list[Shown] = []
    labels: list[float] = []
    requests: list[int] = []
    users: list[str] = []
    slices = Slices(model.validation.slices)
    for number, (row, places) in enumerate(settled(rows, window_ms)):
        log = msgspec.json.decode(row["log"])
        user, context, features = log.get("user", {}), log.get("context", {}), log.get("items", {})
        items = [(row["items"][n], features.get(row["items"][n], {})) for n in places]
        shown.append(Shown(row["user_id"], row["page_id"], user, context, items))
        labels += [float(bool(row["label"][n] & model.label)) for n in places]
        requests += [number] * len(places)
        users += [row["user_id"]] * len(places)
        for n in places:
            slices.add(row, row["items"][n], log)
    return HeldOut(
        InputColumns(model.inputs).from_shown(shown) if shown else {},
        np.array(labels, np.float64),
        np.array(requests, np.int64),
        np.unique(users, return_inverse=True)[1].astype(np.int64) if users else np.zeros(0, np.int64),
        slices.places(),
    )
