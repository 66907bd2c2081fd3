"""A serving version beside the base that it began with, in the quantities that validation decides by."""

import pytest
from headrace_model_validator.compare import compare
from headrace_model_validator.settings import ModelValidatorSettings

from load_tests.serving.saved_models import Weights
from tests.integration.serving.test_validation import CLICKS, TRUE, WORSE, samples, scored
from tests.integration.serving.world import Samples, Served, World

__all__ = ["samples"]
pytestmark = pytest.mark.stack

FIGURES = ("logloss", "auc", "gauc", "ndcg", "calibration")


async def of_base(world: World, weights: Weights) -> int:
    base = world.model.base_name
    version = await world.validate(await world.generate(weights, base), base)
    assert version.stage == "VALIDATED"
    return version.version


async def test_comparison_tells_figures_of_both_their_changes_and_the_pairs(world: World, samples: Samples) -> None:
    base = await of_base(world, WORSE)
    await samples.write(200, CLICKS, ["Shanghai"])
    served = [Served(world.model.name, {1: 0.5, 2: 0.5, 3: 0.5}), Served()]
    kept = await samples.write(100, CLICKS, ["Shanghai"], served=served, held=False, first=200, seed=4)
    live = await world.serve(TRUE, progressive=scored(kept, {1: 0.1, 2: 0.5, 3: 0.9}))

    told = await compare(ModelValidatorSettings(**world.settings), world.model.name, live, samples.start_ms)

    assert told is not None
    assert (told["base"], told["version"], told["count"]) == (base, live, 600)
    assert told.keys() >= {f"{side}_{f}" for side in ("live", "frozen") for f in FIGURES}
    assert told["live_logloss"] < told["frozen_logloss"]
    assert told["gap_low"] > 0.1
    assert told["change"]["logloss_increase"]["value"] == -told["gap"]
    assert told["change"].keys() == {"logloss_increase", "auc_decrease", "gauc_decrease", "ndcg_decrease"}
    assert told["change"]["gauc_decrease"]["value"] == pytest.approx(told["frozen_gauc"] - told["live_gauc"])
    assert (told["pairs"]["count"], told["pairs"]["by_popularity"]) == (150, 150)
    assert told["pairs"]["increase_high"] < 0


async def test_too_few_samples_tell_nothing(world: World, samples: Samples) -> None:
    live = await world.serve(TRUE)
    await samples.write(3, CLICKS, ["Shanghai"])

    assert await compare(ModelValidatorSettings(**world.settings), world.model.name, live, samples.start_ms) is None
