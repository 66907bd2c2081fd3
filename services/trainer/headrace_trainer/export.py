"""From weights to a registered version."""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Final

from headrace_core.contracts import Millis
from headrace_core.control.client import ControlClient, ModelVersion, Parent
from headrace_core.definitions.models import CrossInput, IdInput, IdsInput, Model, NumberInput, told_of
from headrace_core.learning.inputs import Columns
from headrace_core.learning.progressive import ProgressiveScores

from headrace_trainer.metrics import EXPORT_SECONDS, EXPORTED_VERSION
from headrace_trainer.network.learner import Arrays, Learner
from headrace_trainer.network.serving import architecture_of, hash_of, padded
from headrace_trainer.store.artifacts import Artifacts, Graphs, add_extra
from headrace_trainer.store.states import State

_GOLDEN: Final = 16
_KINDS: Final = {IdInput: "id", IdsInput: "ids", NumberInput: "number", CrossInput: "cross"}


@dataclass(slots=True)
class Learned:
    """Which samples the weights come from.

    Attributes:
        first, last: event times, ms since the epoch; 0 while there is none.
        seqs: per source, (incarnation, seq) of the last change of samples.v1 that was taken; of a base, increments go on after it.
        count, positives: samples.
        taken_at: of a bulk scan, when its snapshot was taken.
        until: of a bulk scan, end of its requests' times, ms since the epoch; 0 for none.
        seen: of a bulk scan, per source the (incarnation, seq) up to which changes of requests before `until` are in it.
        settled: of increments, per source until when (event time) samples are learned; newer positives wait for their window.
        feature_set_version: that served the newest of them.
    """

    first: Millis = 0
    last: Millis = 0
    seqs: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int = 0
    positives: int = 0
    taken_at: Millis = 0
    feature_set_version: int = 0
    until: Millis = 0
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    settled: dict[int, Millis] = field(default_factory=dict)

    def add(self, first: Millis, last: Millis, count: int, positives: int) -> None:
        """More samples."""
        self.first = min(self.first or first, first)
        self.last = max(self.last, last)
        self.count += count
        self.positives += positives

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "from": self.first, "to": self.last, "seqs": {str(s): list(p) for s, p in sorted(self.seqs.items())},
            "count": self.count, "positives": self.positives, "taken_at": self.taken_at,
            "feature_set_version": self.feature_set_version, "until": self.until,
            "seen": {str(s): list(p) for s, p in sorted(self.seen.items())},
            "settled": {str(s): time for s, time in sorted(self.settled.items())},
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Learned":
        """What `as_json` gave."""
        seqs = {int(s): (int(p[0]), int(p[1])) for s, p in told["seqs"].items()}
        seen = {int(s): (int(p[0]), int(p[1])) for s, p in told["seen"].items()}
        settled = {int(s): int(time) for s, time in told["settled"].items()}
        return cls(told["from"], told["to"], seqs, told["count"], told["positives"], told["taken_at"],
                   told["feature_set_version"], told["until"], seen, settled)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version as of one moment; the learner may learn on.

    Attributes:
        model: its definition.
        variables: what serves.
        manifest: all but what the version's number tells.
        state: to go on training from, carried along; None for increments.
        progressive: scores before learning, carried along; none of a base.
    """

    model: Model
    variables: Arrays
    manifest: dict[str, Any]
    state: State | None
    progressive: ProgressiveScores


def prepare(  # noqa: PLR0913  # what a version tells of itself
    learner: Learner,
    learned: Learned,
    metrics: Mapping[str, float],
    golden: Columns | None,
    state: State | None = None,
    *,
    progressive: ProgressiveScores | None = None,
) -> Prepared:
    """Take what a version needs.

    Args:
        learner: weights.
        learned: what they come from.
        metrics: quality of the weights.
        golden: columns of some rows; the first few go into the manifest with their scores.
        state: to go on training from, carried along.
        progressive: scores of the newest samples before they were learned, carried along.
    """
    model = learner.model
    scores = progressive or ProgressiveScores.none()
    variables = padded(model, learner.served())
    manifest = {
        "architecture": architecture_of(model, variables),
        "definition": model.definition,
        "feature_set_version": learned.feature_set_version,
        "inputs": [_described(i) for i in model.inputs],
        "samples": learned.as_json(),
        "metrics": dict(metrics),
        "progressive": len(scores),
        "golden": _golden(learner, golden),
        "weights": hash_of(variables),
        "code": package_version("headrace-trainer"),
    }
    return Prepared(model, variables, manifest, state, scores)


class Exporter:
    """Writes versions and registers them."""

    def __init__(self, artifacts: Artifacts, graphs: Graphs, control: ControlClient) -> None:
        """Write to `artifacts`, with graphs kept in `graphs`, and register with `control`."""
        self._artifacts, self._graphs, self._control = artifacts, graphs, control

    async def publish(
        self, name: str, prepared: Prepared, parent: Parent | None, run: str | None = None
    ) -> ModelVersion:
        """Make a version; it is registered when its artifact is in place.

        A number whose artifact is there is passed over: after a restore the control plane gives out again what was
        used since the backup, and nobody may find other weights under a number than those that he knows.

        Args:
            name: ctr or ctr_base.
            prepared: what it is.
            parent: the version that it stands on.
            run: token of the run that this is.

        Raises:
            ControlError: the control plane is away or refuses.
            OSError: the artifact can't be written.
        """
        version = await self._control.reserve_version(name)
        while await asyncio.to_thread(self._artifacts.has, name, version):
            version = await self._control.reserve_version(name)
        manifest = {
            "model": name,
            "version": version,
            "parent": {"model": parent.model, "version": parent.version} if parent else None,
            **prepared.manifest,
            "created_at": int(time.time() * 1000),
        }
        with EXPORT_SECONDS.labels(name).time():
            url = await asyncio.to_thread(self._write, name, version, prepared, manifest)
        told = {key: value for key, value in manifest.items() if key != "golden"}
        made = await self._control.register(
            name, version, url, parent=parent, manifest=told, metrics=prepared.manifest["metrics"], run=run
        )
        EXPORTED_VERSION.labels(name).set(version)
        return made

    def _write(self, name: str, version: int, prepared: Prepared, manifest: Mapping[str, Any]) -> str:
        with tempfile.TemporaryDirectory(prefix="headrace-export-") as folder:
            target = Path(folder) / "model"
            self._graphs.write(prepared.model, prepared.manifest["architecture"], prepared.variables, target)
            add_extra(target, manifest, prepared.state, prepared.progressive)
            return self._artifacts.publish(name, version, target)


def _described(told: Any) -> dict[str, Any]:
    ids = isinstance(told, IdsInput)
    return {
        "name": told.name,
        "kind": _KINDS[type(told)],
        "dtype": "float32" if isinstance(told, NumberInput) else "int64",
        "shape": [-1, told.length] if ids else [-1],
        "reads": told_of(told),
    }


def _golden(learner: Learner, columns: Columns | None) -> dict[str, Any]:
    if columns is None:
        return {"inputs": {}, "scores": []}
    rows = {name: column[:_GOLDEN] for name, column in columns.items()}
    return {"inputs": {n: c.tolist() for n, c in rows.items()}, "scores": learner.score(rows).tolist()}
