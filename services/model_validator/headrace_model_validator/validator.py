"""Decides on a version.

A version that fails is REJECTED with every threshold, value and slice; one that holds is VALIDATED. Anything else that goes wrong
(a store or server that is away or does not load in time, a crash) leaves it GENERATED, to be tried again.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from headrace_core.control.client import ControlClient, ModelVersion
from headrace_core.definitions.models import Model, told_of
from headrace_core.serving.client import ModelServerClient, NotLoadedError, RefusedError
from headrace_core.serving.messages import DEFAULT_SIGNATURE
from headrace_core.telemetry import STAGE_SECONDS

from headrace_model_validator.artifact import Artifact, ArtifactError, read_artifact
from headrace_model_validator.findings import Finding, failures, verdict
from headrace_model_validator.fleet import CANDIDATE, Fleet, LoadError, added, removed
from headrace_model_validator.held_out import HeldOut, newest_rows, samples_of
from headrace_model_validator.integrity import integrity, signature
from headrace_model_validator.job import Job
from headrace_model_validator.judge import Evidence, quality
from headrace_model_validator.lineage import lineage
from headrace_model_validator.pairs import find_pairs
from headrace_model_validator.serving_check import golden, golden_columns, latency, repeated, score
from headrace_model_validator.settings import ModelValidatorSettings

log = logging.getLogger(__name__)

_VALIDATE: Final = STAGE_SECONDS.labels("validate")
#: Figures by name, of each set of samples that was looked at.
Measured: TypeAlias = dict[str, dict[str, Any]]
_DECIDED: Final = ("VALIDATED", "REJECTED", "DEPLOYED", "DEPRECATED", "DELETED")


@dataclass(frozen=True, slots=True)
class _Serving:
    """What serves now.

    Attributes:
        version: deployed.
        columns: that it reads.
    """

    version: int
    columns: tuple[str, ...]


class Validator:
    """Decides on versions.

    Args:
        control: the control plane.
        fleet: the model servers.
        models: definitions by name.
        settings: bounds and addresses.
    """

    def __init__(
        self, control: ControlClient, fleet: Fleet, models: Mapping[str, Model], settings: ModelValidatorSettings
    ) -> None:
        self._control, self._fleet, self._models, self._settings = control, fleet, models, settings

    def definition(self, name: str) -> Model:
        """The definition of a model or of its base.

        Raises:
            LookupError: there is none.
        """
        for model in self._models.values():
            if name in {model.name, model.base_name}:
                return model
        raise LookupError(f"no definition is of the model {name}, only {sorted(self._models)}")

    async def validate(self, job: Job) -> dict[str, Any]:
        """Decide on a version; what was decided and why.

        Raises:
            LookupError: nobody knows the model.
            NotInTimeError: a model server takes too long to load it.
            ControlError, ServingError, OSError, asyncpg.PostgresError: a dependency refused or is away.
        """
        model = self.definition(job.model)
        found = await self._control.version(job.model, job.version)
        if found.stage in _DECIDED:
            return {"stage": found.stage, "why": "it was decided before"}
        if (newer := await self._newer(job)) is not None:
            why = f"superseded by {newer}"
            await self._control.move(job.model, job.version, "DEPRECATED", why, run=job.token)
            return {"stage": "DEPRECATED", "why": why}
        with _VALIDATE.time():
            findings, measured = await self._look(job, found, model)
        if measured:
            await self._record(job, measured)
        stage = "REJECTED" if failures(findings) else "VALIDATED"
        why = verdict(findings)
        details = {"findings": [f.as_json() for f in findings], "metrics": measured}
        await self._control.move(job.model, job.version, stage, why, details=details, run=job.token)
        await supersede(self._control, job, "GENERATED")
        log.info("a version was validated", extra={"fields": {**job.told(), "stage": stage, "why": why}})
        return {"stage": stage, "why": why}

    async def _newer(self, job: Job) -> int | None:
        """A later version that waits for its validation: only the newest is worth the time."""
        waiting = await self._control.versions(job.model, stage="GENERATED")
        newest = max((v.version for v in waiting), default=job.version)
        return newest if newest > job.version else None

    async def _look(self, job: Job, found: ModelVersion, model: Model) -> tuple[list[Finding], Measured]:
        if (barred := await lineage(self._control, found)) is not None:
            return [barred], {}
        try:
            artifact = await asyncio.to_thread(read_artifact, found.artifact)
        except ArtifactError as error:
            return [Finding("artifact", passed=False, note=str(error))], {}
        findings = list(integrity(artifact, job.model, job.version, model))
        if failures(findings):
            return findings, {}
        candidate = f"{job.model}{CANDIDATE}"
        await self._fleet.change(added(candidate, job.version))
        try:
            try:
                await self._fleet.wait_available(candidate, job.version, self._settings.load_timeout_ms / 1000)
            except LoadError as error:
                return [*findings, Finding("load", passed=False, note=str(error))], {}
            return await self._serve(job, artifact, model, findings)
        finally:
            await self._fleet.change(removed(candidate, job.version))

    async def _serve(
        self, job: Job, artifact: Artifact, model: Model, findings: list[Finding]
    ) -> tuple[list[Finding], Measured]:
        candidate = f"{job.model}{CANDIDATE}"
        for server in await self._fleet.servers():
            served = await server.signature(candidate, job.version, DEFAULT_SIGNATURE)
            findings.append(signature(served, model))
            if failures(findings):
                return findings, {}
            findings.append(
                await golden(server, candidate, job.version, artifact.manifest, model.validation.score_tolerance)
            )
            if failures(findings):
                return findings, {}
        server = (await self._fleet.servers())[0]
        serving = await self._serving(server, model)
        if serving is not None:
            findings += await self._latency(server, job, artifact, model, serving)
        more, measured = await self._quality(server, job, artifact, model, serving)
        return [*findings, *more], measured

    async def _serving(self, server: ModelServerClient, model: Model) -> _Serving | None:
        """What is deployed and can be asked; of a base it is what its increments would replace."""
        deployed = await self._control.deployed(model.name)
        if deployed is None:
            return None
        known = [i.name for i in model.inputs]
        told = deployed.manifest.get("inputs") or ()
        columns = tuple(str(i["name"]) for i in told) or tuple(known)
        reads = {str(i["name"]): i["reads"] for i in told if "reads" in i}
        if not set(columns) <= set(known) or any(reads.get(i.name, told_of(i)) != told_of(i) for i in model.inputs):
            return None  # of another definition: there is nothing to compare with
        try:
            await server.signature(model.name, deployed.version, DEFAULT_SIGNATURE)
        except (NotLoadedError, RefusedError):
            await self._fleet.change(added(model.name, deployed.version))
            try:
                await self._fleet.wait_available(model.name, deployed.version, self._settings.load_timeout_ms / 1000)
            except LoadError as error:  # no fault of the candidate's, and it may be what mends it
                log.warning("what is deployed can't be loaded", extra={"fields": {"error": str(error)}})
                return None
        return _Serving(deployed.version, columns)

    async def _latency(
        self, server: ModelServerClient, job: Job, artifact: Artifact, model: Model, serving: _Serving
    ) -> list[Finding]:
        columns = golden_columns(artifact.manifest)
        if columns is None:
            return []
        mine = repeated(columns)
        theirs = {name: mine[name] for name in serving.columns}
        return [
            await latency(
                server,
                (f"{job.model}{CANDIDATE}", job.version),
                (model.name, serving.version),
                (mine, theirs),
                self._settings.validate_latency_ratio,
                self._settings.validate_latency_floor_ms,
            )
        ]

    async def _quality(
        self, server: ModelServerClient, job: Job, artifact: Artifact, model: Model, serving: _Serving | None
    ) -> tuple[list[Finding], Measured]:
        samples, theirs = await self._samples(model), None
        scores = await score(server, f"{job.model}{CANDIDATE}", job.version, samples.columns, len(samples))
        if serving is not None:
            columns = {name: samples.columns[name] for name in serving.columns} if len(samples) else {}
            theirs = await score(server, model.name, serving.version, columns, len(samples))
        base = job.model == model.base_name
        postgres = self._settings.postgres.get_secret_value()
        pairs = None if base or serving is None else await find_pairs(postgres, artifact.progressive, model)
        told = artifact.manifest.get("metrics") or {}
        evidence = Evidence(samples, scores, theirs, told, pairs)
        return await asyncio.to_thread(quality, evidence, model.validation, job.version, base=base)

    async def _samples(self, model: Model) -> HeldOut:
        postgres = self._settings.postgres.get_secret_value()
        rows = await newest_rows(postgres, model.training.held_out, self._settings.validate_requests)
        return await asyncio.to_thread(samples_of, rows, model, self._settings.validate_window_ms)

    async def _record(self, job: Job, measured: Measured) -> None:
        now = time.time_ns() // 1_000_000
        items = [
            {"name": f"{whose}_{name}", "value": float(value), "time": now, "slice": ""}
            for whose, found in measured.items()
            for name, value in found.items()
            if value is not None
        ]
        await self._control.record_metrics(job.model, job.version, items)


async def supersede(control: ControlClient, job: Job, stage: str) -> None:
    """Versions before this one that still wait in a stage were passed over: nobody will look at them."""
    for passed in await control.versions(job.model, stage=stage):
        if passed.version < job.version:
            await control.move(job.model, passed.version, "DEPRECATED", f"superseded by {job.version}")
