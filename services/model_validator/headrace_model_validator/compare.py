"""`headrace-compare --model ctr --version V [--since MS]`: a serving version beside the base model that it began with.

Both score the newest held-out samples, which neither has learned; figures and intervals are those that validation decides by. One
line of JSON: `live_*` and `frozen_*` of each figure; `change` by threshold of change with its interval (above zero the version is
the worse one); `gap`, the base's log loss minus the version's (above zero it is the better one); and `pairs`: the scores that
samples had before the version's trainer learned them, beside those that they were served with. Exit codes as headrace-validate's,
and 1 also when there are too few samples to say anything.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from headrace_core.control.client import ControlClient, ModelVersion
from headrace_core.definitions.models import Model, ModelError, load_models
from headrace_core.serving.client import ModelServerClient, NotLoadedError, RefusedError
from headrace_core.serving.messages import DEFAULT_SIGNATURE
from headrace_core.telemetry import configure_logging
from numpy.typing import NDArray

from headrace_model_validator.artifact import ArtifactError, read_manifest, read_progressive
from headrace_model_validator.fleet import CANDIDATE, Fleet, LoadError, added, names_of, removed
from headrace_model_validator.held_out import HeldOut, newest_rows, samples_of
from headrace_model_validator.judge import changes, figures, paired_figures
from headrace_model_validator.pairs import Pairs, find_pairs
from headrace_model_validator.serving_check import score
from headrace_model_validator.settings import ModelValidatorSettings
from headrace_model_validator.workers import AWAY_ERRORS

_FIGURES: Final = ("logloss", "auc", "gauc", "ndcg", "calibration")
_FEWEST: Final = 20


async def compare(settings: ModelValidatorSettings, name: str, version: int, since_ms: int) -> dict[str, Any] | None:
    """Figures of both; None while there are too few samples.

    Raises:
        LookupError: no such model, version or base.
        ControlError, ServingError, OSError, asyncpg.PostgresError: a dependency refused or is away.
    """
    models = load_models(settings.definitions / "models")
    model = models[name]
    postgres = settings.postgres.get_secret_value()
    rows = await newest_rows(postgres, model.training.held_out, settings.validate_requests)
    samples = samples_of([r for r in rows if UUID(r["request_id"]).int >> 80 >= since_ms], model)
    if len(samples) < _FEWEST:
        return None
    async with (
        ControlClient(settings.control, "headrace-compare") as control,
        Fleet(settings.model_server, settings.models, names_of(models.values()), postgres) as fleet,
    ):
        live = await control.version(name, version)
        base = await _base(control, model)
        theirs = await _scores(fleet, settings, base, samples)
        mine = await _scores(fleet, settings, live, samples)
    wanted = model.validation
    told = changes(mine, theirs, samples, wanted, version)
    gap = told["logloss_increase"]
    sides = {"live": figures(mine, samples), "frozen": figures(theirs, samples)}
    return {
        "model": name, "version": version, "base": base.version, "count": len(samples), "since": since_ms,
        **{f"{side}_{f}": getattr(found, f) for side, found in sides.items() for f in _FIGURES},
        "gap": -gap.value, "gap_low": -gap.high, "gap_high": -gap.low,
        "change": {check: asdict(interval) for check, interval in told.items()},
        "pairs": paired_figures(await _pairs(postgres, live, model), wanted.confidence, version),
    }  # fmt: skip


async def _pairs(postgres: str, version: ModelVersion, model: Model) -> Pairs:
    """Of the samples that the version carries.

    Raises:
        LookupError: its artifact is broken.
    """
    try:
        manifest = await asyncio.to_thread(read_manifest, version.artifact)
        scores = await asyncio.to_thread(read_progressive, version.artifact, manifest)
    except ArtifactError as error:
        raise LookupError(str(error)) from error
    return await find_pairs(postgres, scores, model)


async def _base(control: ControlClient, model: Model) -> ModelVersion:
    """The first base that was found good."""
    found = await control.versions(model.base_name, stage="VALIDATED")
    if not found:
        raise LookupError(f"no version of {model.base_name} is validated")
    return min(found, key=lambda v: v.version)


async def _scores(
    fleet: Fleet, settings: ModelValidatorSettings, version: ModelVersion, samples: HeldOut
) -> NDArray[Any]:
    """Scores by a version, which is loaded for it unless it serves."""
    server = (await fleet.servers())[0]
    if await _serves(server, version):
        return await score(server, version.model, version.version, samples.columns, len(samples))
    name = f"{version.model}{CANDIDATE}"
    await fleet.change(added(name, version.version))
    try:
        await fleet.wait_available(name, version.version, settings.load_timeout_ms / 1000)
        return await score(server, name, version.version, samples.columns, len(samples))
    except LoadError as error:
        raise LookupError(str(error)) from error
    finally:
        await fleet.change(removed(name, version.version))


async def _serves(server: ModelServerClient, version: ModelVersion) -> bool:
    try:
        await server.signature(version.model, version.version, DEFAULT_SIGNATURE)
    except (NotLoadedError, RefusedError):
        return False
    return True


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ctr")
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--since", type=int, default=0, help="requests after it, ms since the epoch")
    told = parser.parse_args()
    settings = ModelValidatorSettings()
    configure_logging(settings)
    try:
        told_of_both = asyncio.run(compare(settings, told.model, told.version, told.since))
    except (ModelError, LookupError) as error:
        sys.stderr.write(f"headrace-compare: {error}\n")
        sys.exit(2)
    except AWAY_ERRORS as error:
        sys.stderr.write(f"headrace-compare: a dependency is away: {error}\n")
        sys.exit(3)
    if told_of_both is None:
        sys.stderr.write("headrace-compare: too few held-out samples\n")
        sys.exit(1)
    sys.stdout.write(json.dumps(told_of_both) + "\n")


if __name__ == "__main__":
    main()
