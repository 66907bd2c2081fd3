"""What a version must hold before it serves, on a real model server, control plane and sample store."""

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import numpy as np
import pytest
from headrace_core.control.client import ModelVersion
from headrace_core.learning.progressive import PROGRESSIVE, ProgressiveScores
from headrace_core.learning.weights import weights_hash
from headrace_core.serving.client import AwayError, NotLoadedError
from headrace_model_validator.deployer import DeployError
from headrace_model_validator.fleet import LoadError, NotInTimeError, removed

from load_tests.serving.process import free_port
from load_tests.serving.saved_models import INPUTS, Weights, expected, inputs
from tests.conftest import Stores
from tests.integration.serving.conftest import a_world
from tests.integration.serving.world import Click, Samples, Served, World, item, why

pytestmark = pytest.mark.stack

#: Items i1 to i3 and how likely each is clicked.
CLICKS = {1: Click(0.1, {}), 2: Click(0.5, {}), 3: Click(0.9, {})}


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


#: Knows the world as it is.
TRUE = Weights(rows={item(k): logit(c.anywhere) for k, c in CLICKS.items()})
#: Knows little of it, yet enough for the absolute thresholds.
WORSE = Weights(rows={item(1): -0.4, item(2): 0.0, item(3): 0.4})


@pytest.fixture
async def samples(stores: Stores) -> AsyncIterator[Samples]:
    made = Samples(stores.postgres_dsn)
    try:
        yield made
    finally:
        await made.drop()


async def assert_serves(world: World, version: int, weights: Weights) -> None:
    answer = await world.score(None, item(1), item(2), item(3))
    assert answer.version == version
    np.testing.assert_allclose(answer.outputs["score"], expected(weights, inputs(item(1), item(2), item(3))), rtol=1e-6)
    assert await world.loaded() == [version]
    assert await world.loaded(f"{world.model.name}.candidate") == []


async def test_first_version_that_holds_the_absolute_thresholds_is_validated(world: World, samples: Samples) -> None:
    await samples.write(200, CLICKS, ["Shanghai"])

    version = await world.validate(await world.generate(TRUE))

    assert (version.stage, why(version)) == ("VALIDATED", why(version))
    details = version.history[-1]["details"]
    assert {f["check"] for f in details["findings"] if f["passed"]} >= {
        "manifest", "manifest_inputs", "weights_hash", "finite_weights", "signature", "golden_scores",
        "logloss", "auc", "calibration",
    }  # fmt: skip
    held_out = details["metrics"]["held_out"]
    assert held_out["count"] == 600
    assert held_out["logloss"] == pytest.approx(0.45, abs=0.05)  # the entropy of the clicks
    assert held_out["auc"] == pytest.approx(0.86, abs=0.03)
    assert held_out["calibration"] == pytest.approx(1.0, abs=0.1)


async def test_first_version_that_breaks_an_absolute_threshold_is_rejected_with_it(
    world: World, samples: Samples
) -> None:
    await samples.write(200, CLICKS, ["Shanghai"])

    version = await world.validate(await world.generate(Weights(bias=-4.0)))

    assert version.stage == "REJECTED"
    assert why(version).startswith("logloss is ")
    assert "≤ 0.69 is wanted" in why(version)
    assert "calibration is 0.0" in why(version)
    assert "0.3 to 3 is wanted" in why(version)


async def test_nan_weights_are_rejected_and_the_old_one_serves_on(world: World) -> None:
    first = await world.serve(TRUE)

    version = await world.validate(await world.generate(Weights(rows={item(1): math.nan}, bias=math.inf)))

    assert version.stage == "REJECTED"
    assert "finite_weights is 2, 0 that are NaN or infinite is wanted: 1 in bias, 1 in rows" in why(version)
    await assert_serves(world, first, TRUE)


async def test_wrong_signature_is_rejected_and_the_old_one_serves_on(world: World) -> None:
    first = await world.serve(TRUE)
    lying: dict[str, Any] = {
        "manifest": {"inputs": INPUTS}
    }  # the manifest says what is defined, the graph takes something else

    version = await world.validate(await world.generate(TRUE, dtypes={"rate": "float64"}, **lying))

    assert version.stage == "REJECTED"
    assert "signature: rate is float64 [-1] in the signature, float32 [-1] is defined" in why(version)
    await assert_serves(world, first, TRUE)


async def test_input_that_is_not_defined_is_rejected(world: World) -> None:
    other = [*INPUTS[:2], {"name": "price", "kind": "number", "dtype": "float32", "shape": [None]}]

    version = await world.validate(await world.generate(TRUE, manifest={"inputs": other}))

    assert version.stage == "REJECTED"
    assert "the manifest has no rate; the manifest has price, which is not defined" in why(version)


async def test_worse_log_loss_is_rejected_with_value_and_interval_and_the_old_one_serves_on(
    world: World, samples: Samples
) -> None:
    await samples.write(200, CLICKS, ["Shanghai"])
    first = await world.serve(TRUE)

    version = await world.validate(await world.generate(WORSE))

    assert version.stage == "REJECTED"
    findings = {f["check"]: f for f in version.history[-1]["details"]["findings"] if not f["passed"]}
    assert findings.keys() == {"logloss_increase"}
    assert findings["logloss_increase"]["value"] > 0.1
    assert "logloss_increase is 0." in why(version)
    assert "≤ 0.02 is wanted: interval 0." in why(version)
    await assert_serves(world, first, TRUE)


async def test_worse_log_loss_in_one_slice_is_rejected_with_the_slice(world: World, samples: Samples) -> None:
    # One item turns around in Beijing alone, a small part of all.
    clicks = {1: Click(0.2, {"Beijing": 0.8}), 2: Click(0.5, {})}
    await samples.write(480, clicks, ["Shanghai", "Shanghai", "Shanghai", "Beijing"])
    await world.serve(Weights(rows={item(1): logit(0.35)}))

    version = await world.validate(await world.generate(Weights(rows={item(1): logit(0.2)})))

    assert version.stage == "REJECTED"
    failed = [f for f in version.history[-1]["details"]["findings"] if not f["passed"]]
    assert [(f["check"], f["slice"]) for f in failed] == [("logloss_increase", "user.city=Beijing")]
    assert "logloss_increase of user.city=Beijing is 0." in why(version)


async def test_better_version_is_validated_and_its_figures_are_kept(world: World, samples: Samples) -> None:
    await world.serve(WORSE)
    await samples.write(200, CLICKS, ["Shanghai"])

    version = await world.validate(await world.generate(TRUE))

    assert version.stage == "VALIDATED"
    measured = version.history[-1]["details"]["metrics"]
    assert measured["held_out"]["logloss"] < measured["held_out_deployed"]["logloss"] - 0.1


async def test_base_is_held_against_what_serves(world: World, samples: Samples) -> None:
    await samples.write(200, CLICKS, ["Shanghai"])
    await world.serve(TRUE)
    base = world.model.base_name

    worse = await world.validate(await world.generate(WORSE, base), base)
    as_good = await world.validate(await world.generate(TRUE, base), base)

    assert (worse.stage, as_good.stage) == ("REJECTED", "VALIDATED")
    assert "logloss_increase" in why(worse)


async def test_too_few_samples_pass_with_a_remark(world: World, samples: Samples) -> None:
    await samples.write(10, CLICKS, ["Shanghai"])
    world.workers.validator._settings = world.workers.validator._settings.model_copy(update={"validate_requests": 10})

    version = await world.validate(await world.generate(WORSE, metrics={"count": 0}))

    assert version.stage == "VALIDATED"
    assert any("too few" in f["note"] for f in version.history[-1]["details"]["findings"])


async def test_progressive_figures_decide_where_held_out_samples_are_too_few(world: World, samples: Samples) -> None:
    await samples.write(10, CLICKS, ["Shanghai"])
    world.workers.validator._settings = world.workers.validator._settings.model_copy(update={"validate_requests": 10})
    metrics = {"auc": 0.45, "logloss": 0.9, "calibration": 1.0, "count": 5_000}

    version = await world.validate(await world.generate(TRUE, metrics=metrics))

    assert version.stage == "REJECTED"
    assert "logloss is 0.9, ≤ 0.69 is wanted" in why(version)
    assert "auc is 0.45, ≥ 0.5 is wanted" in why(version)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("cut off", "is missing or cut off"),
        ("no variables", "variables/variables.index is missing"),
        ("no manifest", "assets.extra/manifest.json is missing"),
        ("no graph", "saved_model.pb is missing"),
        ("broken graph", "load: "),
        ("other weights", "weights_hash"),
        ("other scores", "golden_scores is 0."),
        ("other version", "manifest is "),
    ],
)
async def test_broken_artifact_is_rejected_with_its_fault(world: World, fault: str, says: str) -> None:
    first = await world.serve(TRUE)
    number = await world.generate(TRUE)
    folder = world.models / world.model.name / str(number)
    manifest = folder / "assets.extra" / "manifest.json"
    told: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    data = folder / "variables" / "variables.data-00000-of-00001"
    match fault:
        case "cut off":
            data.write_bytes(data.read_bytes()[:-9])
        case "no variables":
            (folder / "variables" / "variables.index").unlink()
        case "no manifest":
            manifest.unlink()
        case "no graph":
            (folder / "saved_model.pb").unlink()
        case "broken graph":
            (folder / "saved_model.pb").write_bytes(b"\x0a\x03abc")
        case "other weights":
            told["weights"] = weights_hash({})
        case "other scores":
            told["golden"]["scores"][0] += 0.001
        case "other version":
            told["version"] = 99
    if manifest.exists():
        manifest.write_text(json.dumps(told), encoding="utf-8")

    version = await world.validate(number)

    assert version.stage == "REJECTED"
    assert says in why(version)
    await assert_serves(world, first, TRUE)


async def test_newest_wins_and_the_passed_over_are_superseded(world: World) -> None:
    first, second = await world.generate(TRUE), await world.generate(TRUE)

    passed_over = await world.validate(first)
    newest = await world.validate(second)

    assert (passed_over.stage, why(passed_over)) == ("DEPRECATED", f"superseded by {second}")
    assert newest.stage == "VALIDATED"


async def test_versions_that_nobody_asked_to_look_at_are_superseded_by_a_later_one(world: World) -> None:
    forgotten, validated = await world.generate(TRUE), await world.generate(TRUE)
    await world.validate(validated)
    newest = await world.generate(TRUE)
    await world.validate(newest)

    await world.deploy(newest)

    for version, by in ((forgotten, validated), (validated, newest)):
        found = await world.control.version(world.model.name, version)
        assert (found.stage, why(found)) == ("DEPRECATED", f"superseded by {by}")


async def test_only_what_is_validated_is_deployed(world: World) -> None:
    first = await world.serve(TRUE)
    number = await world.generate(WORSE)

    with pytest.raises(DeployError, match="is GENERATED, only what is VALIDATED is deployed"):
        await world.deploy(number)

    await assert_serves(world, first, TRUE)


async def test_artifact_that_breaks_after_its_validation_is_not_deployed(world: World) -> None:
    first = await world.serve(TRUE)
    number = await world.generate(TRUE)
    await world.validate(number)
    (world.models / world.model.name / str(number) / "variables" / "variables.index").unlink()

    with pytest.raises(LoadError, match="variables can't be restored"):
        await world.deploy(number)

    assert (await world.control.version(world.model.name, number)).stage == "VALIDATED"
    await assert_serves(world, first, TRUE)


async def test_decided_version_is_not_decided_again(world: World) -> None:
    version = await world.validate(await world.generate(TRUE))

    again = await world.validate(version.version)

    assert again.history == version.history


async def test_without_model_server_the_version_stays_generated(
    stores: Stores, control_plane: str, tmp_path: Any
) -> None:
    async with a_world(stores, control_plane, f"127.0.0.1:{free_port()}", tmp_path) as world:
        number = await world.generate(TRUE)

        with pytest.raises(AwayError):
            await world.validate(number)

        assert (await world.control.version(world.model.name, number)).stage == "GENERATED"


async def test_deployed_version_replaces_the_one_before_at_once(world: World) -> None:
    first = await world.serve(TRUE)
    second = await world.serve(WORSE)

    assert (await world.control.version(world.model.name, first)).stage == "DEPRECATED"
    await world.workers.finish()
    await assert_serves(world, second, WORSE)
    with pytest.raises(NotLoadedError):
        await world.score(first, item(1))


def scored(told: ProgressiveScores, scores: dict[int, float]) -> ProgressiveScores:
    """The same samples with these scores of the trainer, by item."""
    return replace(told, scores=np.array([scores[int(i[1:])] for i in told.items], np.float32))


#: What the world is, and what has it half wrong, as scores by item.
RIGHT = {k: c.anywhere for k, c in CLICKS.items()}
FLAT = {1: 0.5, 2: 0.5, 3: 0.5}


def findings_of(version: ModelVersion) -> dict[str, dict[str, Any]]:
    return {f["check"]: f for f in version.history[-1]["details"]["findings"] if not f["slice"]}


async def test_increment_is_judged_by_its_scores_before_learning_against_those_that_were_served(
    world: World, samples: Samples
) -> None:
    first = await world.serve(TRUE)
    kept = await samples.write(150, CLICKS, ["Shanghai"], served=[Served(world.model.name, FLAT)], held=False)

    better = await world.validate(
        await world.generate(TRUE, progressive=scored(kept, RIGHT), parent=(world.model.name, first))
    )

    assert better.stage == "VALIDATED"
    found = findings_of(better)["served_logloss_increase"]
    assert found["value"] < -0.1
    assert "450 pairs; 0 samples served by popularity" in found["note"]
    measured = better.history[-1]["details"]["metrics"]["pairs"]
    assert measured["served_logloss"] == pytest.approx(math.log(2))
    assert measured["progressive_logloss"] == pytest.approx(0.45, abs=0.06)


async def test_increment_that_is_worse_than_what_was_served_is_rejected(world: World, samples: Samples) -> None:
    first = await world.serve(TRUE)
    kept = await samples.write(150, CLICKS, ["Shanghai"], served=[Served(world.model.name, RIGHT)], held=False)

    version = await world.validate(await world.generate(TRUE, progressive=scored(kept, FLAT)))

    assert version.stage == "REJECTED"
    assert why(version).startswith("served_logloss_increase is 0.")
    assert "≤ 0.02 is wanted: interval 0." in why(version)
    await assert_serves(world, first, TRUE)


async def test_pairs_that_are_worse_in_one_slice_reject_with_the_slice(world: World, samples: Samples) -> None:
    await world.serve(TRUE)
    shown, clicks = Served(world.model.name, {1: 0.35}), {1: Click(0.2, {"Beijing": 0.8})}
    kept = await samples.write(
        840, clicks, ["Shanghai"] * 7 + ["Beijing"], served=[shown], held=False
    )  # the window of ten minutes takes the newest 600

    narrow = replace(world.model, validation=replace(world.model.validation, min_samples=50))
    world.workers.validator._models = {narrow.name: narrow}
    version = await world.validate(await world.generate(TRUE, progressive=scored(kept, {1: 0.2})))

    assert version.stage == "REJECTED"
    failed = [f for f in version.history[-1]["details"]["findings"] if not f["passed"]]
    assert [(f["check"], f["slice"]) for f in failed] == [("served_logloss_increase", "user.city=Beijing")]
    assert "75 pairs" in failed[0]["note"]


async def test_corrected_labels_are_those_that_count(world: World, samples: Samples, stores: Stores) -> None:
    await world.serve(TRUE)
    kept = await samples.write(100, {1: Click(0.0, {}), 2: Click(0.0, {}), 3: Click(0.0, {})}, ["Shanghai"],
                               served=[Served(world.model.name, FLAT)], held=False)  # fmt: skip
    optimist = await world.generate(TRUE, progressive=scored(kept, {1: 0.9, 2: 0.9, 3: 0.9}))
    connection = await asyncpg.connect(stores.postgres_dsn)
    try:
        await connection.execute(f"UPDATE {samples._table} SET label = '{{1,1,1}}'")
    finally:
        await connection.close()

    version = await world.validate(optimist)

    assert version.stage == "VALIDATED"
    assert findings_of(version)["served_logloss_increase"]["value"] < -0.5


async def test_samples_that_popularity_served_are_no_pairs_and_too_few_pairs_leave_it_to_other_samples(
    world: World, samples: Samples
) -> None:
    await world.serve(TRUE)
    popularity = Served()
    kept = await samples.write(
        90, CLICKS, ["Shanghai"], served=[Served(world.model.name, RIGHT), popularity, popularity], held=False
    )
    metrics = {"auc": 0.45, "logloss": 0.9, "calibration": 1.0, "count": 5_000}

    version = await world.validate(await world.generate(TRUE, progressive=scored(kept, RIGHT), metrics=metrics))

    assert version.stage == "REJECTED"
    found = findings_of(version)
    assert (found["pairs"]["value"], found["pairs"]["passed"]) == (90, True)
    assert "too few pairs, other samples decide; 180 samples served by popularity" in found["pairs"]["note"]
    assert "logloss is 0.9, ≤ 0.69 is wanted: samples before they were learned" in why(version)


async def test_scores_before_learning_that_are_cut_off_are_a_fault_of_the_artifact(
    world: World, samples: Samples
) -> None:
    kept = await samples.write(5, CLICKS, ["Shanghai"])
    number = await world.generate(TRUE, progressive=kept)
    file = world.models / world.model.name / str(number) / PROGRESSIVE
    file.write_bytes(file.read_bytes()[:-30])

    version = await world.validate(number)

    assert version.stage == "REJECTED"
    assert f"artifact: {PROGRESSIVE} can't be read" in why(version)


async def test_server_that_does_not_load_in_time_leaves_the_version_generated(world: World) -> None:
    first = await world.serve(TRUE)
    number, validator = await world.generate(TRUE), world.workers.validator
    patient = validator._settings
    validator._settings = patient.model_copy(update={"load_timeout_ms": 1})

    with pytest.raises(NotInTimeError, match=r"after 0\.001 s"):
        await world.validate(number)

    assert (await world.control.version(world.model.name, number)).stage == "GENERATED"
    await assert_serves(world, first, TRUE)
    validator._settings = patient
    assert (await world.validate(number)).stage == "VALIDATED"


async def test_deployed_version_that_can_not_be_loaded_is_no_fault_of_the_candidate(world: World) -> None:
    first = await world.serve(TRUE)
    await world.workers.validator._fleet.change(removed(world.model.name, first))
    (world.models / world.model.name / str(first) / "variables" / "variables.index").unlink()

    assert (await world.validate(await world.generate(TRUE))).stage == "VALIDATED"


async def test_what_descends_from_weights_with_nan_is_barred_until_there_is_a_new_base(world: World) -> None:
    name = world.model.name
    broken = await world.generate(Weights(bias=math.nan))
    await world.validate(broken)
    passed_over = await world.generate(TRUE, parent=(name, broken))
    child = await world.generate(TRUE, parent=(name, passed_over))

    barred = await world.validate(child)
    barred_too = await world.validate(await world.generate(TRUE, parent=(name, child)))
    of_new_base = await world.validate(await world.generate(TRUE, parent=(world.model.base_name, 7)))

    assert (barred.stage, barred_too.stage) == ("REJECTED", "REJECTED")
    assert why(barred) == f"lineage: descends from {name} {broken}, whose weights were not finite"
    assert of_new_base.stage == "VALIDATED"


@pytest.mark.parametrize("fault", ["quality", "artifact"])
async def test_what_was_wrong_with_one_version_alone_does_not_bar_the_next(
    world: World, samples: Samples, fault: str
) -> None:
    await samples.write(200, CLICKS, ["Shanghai"])
    await world.serve(TRUE)
    wrong = await world.generate(WORSE if fault == "quality" else TRUE)
    if fault == "artifact":
        (world.models / world.model.name / str(wrong) / "saved_model.pb").unlink()
    assert (await world.validate(wrong)).stage == "REJECTED"

    version = await world.validate(await world.generate(TRUE, parent=(world.model.name, wrong)))

    assert version.stage == "VALIDATED"
