"""Whether a candidate answers as its trainer did, and fast enough; asked of every model server."""

import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from headrace_core.learning.inputs import Columns
from headrace_core.serving.client import ModelServerClient, RefusedError
from numpy.typing import NDArray

from headrace_model_validator.findings import Finding

_TIMEOUT_S: Final = 5.0
_ROUNDS: Final = 15
_ROWS: Final = 100
_CHUNK: Final = 512


def golden_columns(manifest: Mapping[str, Any]) -> Columns | None:
    """The manifest's rows; None when it has none.

    Raises:
        ValueError: they do not fit the manifest's inputs.
    """
    told = (manifest.get("golden") or {}).get("inputs") or {}
    if not told:
        return None
    kinds = {str(i["name"]): str(i["dtype"]) for i in manifest["inputs"]}
    try:
        return {name: np.array(rows, np.dtype(kinds[name])) for name, rows in told.items()}
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"golden rows that are no columns: {error!r}") from error


async def golden(
    server: ModelServerClient, name: str, version: int, manifest: Mapping[str, Any], tolerance: float
) -> Finding:
    """Whether the golden rows' scores are those that the trainer computed.

    Raises:
        AwayError: no answer.
    """
    wanted = f"≤ {tolerance:g} from the trainer's"
    try:
        columns = golden_columns(manifest)
        if columns is None:
            return Finding("golden_scores", True, threshold=wanted, note="the manifest has no golden rows")
        answer = await server.predict(name, version, columns, timeout_s=_TIMEOUT_S)
        told = np.array(manifest["golden"]["scores"], np.float64)
        scores = answer.outputs["score"].astype(np.float64)
        if scores.shape != told.shape:
            return Finding("golden_scores", False, threshold=wanted, note=f"{scores.shape} scores for {told.shape}")
    except (RefusedError, ValueError, KeyError, TypeError) as error:
        return Finding("golden_scores", False, threshold=wanted, note=str(error))
    furthest = float(np.abs(scores - told).max(initial=0.0)) if np.isfinite(scores).all() else float("nan")
    return Finding("golden_scores", furthest <= tolerance, furthest, wanted, note=f"{len(told)} rows")


async def latency(  # noqa: PLR0913, PLR0917  # two versions and a bound
    server: ModelServerClient,
    candidate: tuple[str, int],
    deployed: tuple[str, int],
    columns: tuple[Columns, Columns],
    ratio: float,
    floor_ms: float,
) -> Finding:
    """Whether a candidate is about as fast as what serves: medians of calls made in turn.

    Args:
        server: asked.
        candidate: name and version.
        deployed: likewise.
        columns: inputs of each.
        ratio: bound of the candidate's over the deployed version's.
        floor_ms: that is fast enough in any case.
    """
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(_ROUNDS):
        for (name, version), inputs, times in zip((candidate, deployed), columns, taken, strict=True):
            started = time.perf_counter()
            await server.predict(name, version, inputs, timeout_s=_TIMEOUT_S)
            times.append((time.perf_counter() - started) * 1_000)
    mine, theirs = (statistics.median(t) for t in taken)
    bound = max(floor_ms, ratio * theirs)
    return Finding("latency_ms", mine <= bound, round(mine, 3), f"≤ {bound:.3g}", note=f"deployed takes {theirs:.3g}")


def repeated(columns: Columns, rows: int = _ROWS) -> Columns:
    """The rows over and over, to so many."""
    return {name: column[np.arange(rows) % len(column)] for name, column in columns.items()}


async def score(
    server: ModelServerClient, name: str, version: int, columns: Columns, count: int
) -> NDArray[np.float64]:
    """Scores of many rows, asked in parts.

    Raises:
        ServingError: no answer.
    """
    parts = []
    for start in range(0, count, _CHUNK):
        part = {key: column[start : start + _CHUNK] for key, column in columns.items()}
        answer = await server.predict(name, version, part, timeout_s=_TIMEOUT_S)
        parts.append(answer.outputs["score"].astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)
