"""Samples with two scores: the trainer's before it learned them, and the one that they were served with."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
from headrace_core.definitions.models import Model
from headrace_core.learning.progressive import ProgressiveScores
from numpy.typing import NDArray

from headrace_model_validator.slices import Slices

_AT_ONCE: Final = 2_000
#: Features are read where a slice needs them: they are most of a row.
_ROWS: Final = """
    SELECT request_id::text, user_id, page_id, model, model_version, items, label, score, CASE WHEN $3 THEN log END AS log
    FROM samples.requests WHERE day = ANY($1) AND request_id = ANY($2)
"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of scores, in parallel, and how many samples make none.

    Attributes:
        progressive: the candidate's, before it learned the sample.
        served: that the answer had.
        labels: 0 or 1, as the sample store has them now.
        requests: number of the request of each.
        slices: places of the samples of each slice.
        by_popularity: samples that no model served.
        gone: samples of which the store has no row or no finite score.
    """

    progressive: NDArray[np.float64]
    served: NDArray[np.float64]
    labels: NDArray[np.float64]
    requests: NDArray[np.int64]
    slices: Mapping[str, NDArray[np.intp]]
    by_popularity: int
    gone: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unpaired(self) -> str:
        """In words, what there is no second score of."""
        return (
            f"{self.by_popularity} samples served by popularity and {self.gone} that the store does not have are none"
        )


async def find_pairs(postgres: str, scores: ProgressiveScores, model: Model) -> Pairs:
    """The pairs of the definition's last minutes, back from the newest score.

    Args:
        postgres: DSN of the sample store.
        scores: of the trainer.
        model: whose window, label and slices.

    Raises:
        OSError, asyncpg.PostgresError: the store is away.
    """
    at = scores.times > scores.times.max(initial=0) - model.validation.window_ms
    newest = ProgressiveScores(**{name: array[at] for name, array in scores.arrays().items()})
    rows = await _rows(postgres, newest, with_log=Slices(model.validation.slices).need_log)
    return await asyncio.to_thread(pairs_of, newest, rows, model)


async def _rows(postgres: str, scores: ProgressiveScores, *, with_log: bool) -> list[Any]:
    ids = [UUID(r.decode()) for r in np.unique(scores.requests).tolist()]
    connection = await asyncpg.connect(postgres, timeout=10)
    try:
        found: list[Any] = []
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            found += await connection.fetch(_ROWS, sorted({_day(i) for i in part}), part, with_log)
        return found
    finally:
        await connection.close()


def pairs_of(scores: ProgressiveScores, rows: Sequence[Mapping[str, Any]], model: Model) -> Pairs:
    """Each sample with both scores and its label.

    Args:
        scores: of the trainer.
        rows: of samples.requests.
        model: whose label and slices.
    """
    known = {row["request_id"]: (number, row) for number, row in enumerate(rows)}
    logs: dict[str, Any] = {}
    slices = Slices(model.validation.slices)
    found: list[tuple[float, float, float, int]] = []
    by_popularity = gone = 0
    for told, shown, score in zip(scores.requests.tolist(), scores.items.tolist(), scores.scores.tolist(), strict=True):
        request, item = told.decode(), shown.decode()
        number, row = known.get(request, (0, None))
        if row is None or item not in row["items"]:
            gone += 1
            continue
        if row["model"] != model.name or not row["model_version"]:
            by_popularity += 1
            continue
        at = row["items"].index(item)
        if not math.isfinite(row["score"][at]):
            gone += 1
            continue
        found.append((score, row["score"][at], float(bool(row["label"][at] & model.label)), number))
        if request not in logs:
            logs[request] = msgspec.json.decode(row["log"]) if row["log"] is not None else {}
        slices.add(row, item, logs[request])
    mine, served, labels, requests = zip(*found, strict=True) if found else ((), (), (), ())
    return Pairs(
        np.array(mine, np.float64),
        np.array(served, np.float64),
        np.array(labels, np.float64),
        np.array(requests, np.int64),
        slices.places(),
        by_popularity,
        gone,
    )


def _day(request_id: UUID) -> date:
    """The partition of a request: UUIDv7 begin with their time, ms since the epoch."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, UTC).date()
