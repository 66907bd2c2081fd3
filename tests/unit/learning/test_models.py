"""Model definitions: what is wrong is told with its line."""

import math
from pathlib import Path

import pytest
from headrace_core.contracts import Label
from headrace_core.definitions.models import (
    CrossInput,
    IdInput,
    IdsInput,
    ModelError,
    NumberInput,
    load_model,
    load_models,
)

SHIPPED = Path(__file__).resolve().parents[3] / "definitions" / "models"
GOOD = """\
model: ctr
label: click
inputs:
  item_id: {id: item_id}
  city: {id: user.city}
  seen: {ids: "user.views[].item_id", length: 3, table: item_id}
  rate: {number: item.click_rate.rate, default: 0.02, transform: logit}
  city_item: {cross: [city, item_id]}
architecture: {kind: wide_and_deep}
training: {every: 15s}
validation: {auc: {min: 0.6}}
"""


def a_file(folder: Path, text: str) -> Path:
    (folder / "model.schema.json").write_bytes((SHIPPED / "model.schema.json").read_bytes())
    file = folder / "ctr.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_inputs_are_read_by_kind_in_the_order_of_the_file(tmp_path: Path) -> None:
    model = load_model(a_file(tmp_path, GOOD))

    item, city, seen, rate, cross = model.inputs
    assert isinstance(item, IdInput)
    assert isinstance(city, IdInput)
    assert isinstance(seen, IdsInput)
    assert isinstance(rate, NumberInput)
    assert isinstance(cross, CrossInput)
    assert (item.table, item.path.of_item, city.path.of_item) == ("item_id", True, False)
    assert (seen.table, seen.path.keys, seen.path.of_each, seen.length) == ("item_id", ("views",), ("item_id",), 3)
    assert (rate.default, rate.transform) == (0.02, "logit")
    assert model.label is Label.CLICK
    assert model.training.every_ms == 15_000
    assert model.validation.min_auc == 0.6


@pytest.mark.parametrize(
    ("before", "after", "line", "told"),
    [
        ("label: click", "label: applause", 2, "applause"),
        ("{id: user.city}", "{id: city}", 5, "does not match"),
        ("length: 3, ", "", 6, "not valid"),
        ('"user.views[].item_id"', "user.views", 6, "written with []"),
        ("[city, item_id]", "[city, rate]", 8, "rate is none"),
        ("table: item_id", "table: rate", 6, "can't share rows with rate"),
        ("{every: 15s}", "{every: 15}", 10, "15"),
        ("{kind: wide_and_deep}", "{kind: oracle}", 9, "oracle"),
        ("{auc: {min: 0.6}}", "{slices: ['user.views[]']}", 11, "does not match"),
        ("{auc: {min: 0.6}}", "{gauc_decrease: {min: 0.6}}", 11, "'min' was unexpected"),
        ("architecture:", "architecture: [", 10, ""),
    ],
)
def test_fault_is_told_with_its_line(tmp_path: Path, before: str, after: str, line: int, told: str) -> None:
    file = a_file(tmp_path, GOOD.replace(before, after))

    with pytest.raises(ModelError) as error:
        load_model(file)

    assert str(error.value).startswith(f"{file}:{line}: ")
    assert told in str(error.value)


def test_definition_is_told_by_its_meaning(tmp_path: Path) -> None:
    first = load_model(a_file(tmp_path, GOOD)).definition

    assert load_model(a_file(tmp_path, "# a remark\ndescription: words\n" + GOOD)).definition == first
    assert load_model(a_file(tmp_path, GOOD.replace("length: 3", "length: 4"))).definition != first


def test_thresholds_can_be_changed_without_a_new_line_of_weights(tmp_path: Path) -> None:
    first = load_model(a_file(tmp_path, GOOD)).definition

    assert load_model(a_file(tmp_path, GOOD.replace("min: 0.6", "min: 0.7"))).definition == first


def test_validation_tells_window_slices_and_bounds(tmp_path: Path) -> None:
    told = "{window: 30s, slices: [page_id, user.city, item.category], ndcg: {min: 0.4}, gauc_decrease: {max: 0.01}}"

    validation = load_model(a_file(tmp_path, GOOD.replace("{auc: {min: 0.6}}", told))).validation

    assert validation.window_ms == 30_000
    assert [s.name for s in validation.slices] == ["page_id", "user.city", "item.category"]
    assert (validation.min_ndcg, validation.max_gauc_decrease) == (0.4, 0.01)
    assert (validation.min_gauc, validation.max_auc_decrease) == (-math.inf, math.inf)


def test_shipped_models_are_right() -> None:
    ctr = load_models(SHIPPED)["ctr"]

    assert ctr.base_name == "ctr_base"
    assert ctr.training.held_out == 20
