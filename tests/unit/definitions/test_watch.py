"""Definitions are followed while a service runs: what is valid is taken, what is not leaves the others in force."""

import asyncio
import logging
import shutil
from pathlib import Path

import pytest
from headrace_core.definitions.features import Feature, watch_features
from headrace_core.definitions.models import Model, input_of, load_models, model_set_version, told_of, watch_models
from headrace_core.definitions.watch import IN_FORCE, REFUSED, Watch

SHIPPED = Path(__file__).parents[3] / "definitions"
OWN = """\
feature: most_viewed
source: behavior-events
where: action = 'view'
by: [category]
window: {size: 10m, every: 1s}
top: {of: item_id, rank_by: count, k: 5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "definitions"))


@pytest.fixture
def watch(folder: Path) -> Watch[list[Feature]]:
    return watch_features(folder / "features")


def looked(watch: Watch[list[Feature]]) -> bool:
    """Two looks: what changed is taken once it is the same at two of them."""
    return [watch.look(), watch.look()][-1]


def names(watch: Watch[list[Feature]]) -> set[str]:
    return {f.name for f in watch.taken}


def shown(kind: str) -> list[str]:
    (metric,) = IN_FORCE.collect()
    return [s.labels["version"] for s in metric.samples if s.labels["kind"] == kind]


def refused(kind: str) -> float:
    return float(REFUSED.labels(kind)._value.get())


def test_valid_change_is_taken(watch: Watch[list[Feature]], folder: Path) -> None:
    (folder / "features" / "own.yaml").write_text(OWN, encoding="utf-8")

    assert looked(watch)
    assert "most_viewed" in names(watch)


def test_file_that_is_still_written_to_is_left_alone(watch: Watch[list[Feature]], folder: Path) -> None:
    file = folder / "features" / "own.yaml"
    file.write_text(OWN[:40], encoding="utf-8")
    first = watch.look()
    file.write_text(OWN, encoding="utf-8")

    assert (first, watch.look(), watch.look()) == (False, False, True)
    assert "most_viewed" in names(watch)


def test_invalid_change_leaves_the_others_in_force_and_is_told_once_with_file_and_line(
    watch: Watch[list[Feature]], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, count = names(watch), refused("features")
    file = folder / "features" / "own.yaml"
    file.write_text(OWN.replace("[category]", "[colour]"), encoding="utf-8")

    with caplog.at_level(logging.ERROR):
        taken = [watch.look() for _ in range(5)]

    assert not any(taken)
    assert names(watch) == before
    (record,) = caplog.records
    assert f"{file}:4: by: no such column: colour" in str(record.fields)  # type: ignore[attr-defined]  # given as extra
    assert refused("features") == count + 1


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"feature: 2020-01-01\n", b"- a\n- b\n", b"", b"a: *b\n", b"a: 1\na: 2\n"]
)
def test_file_that_is_nothing_at_all_leaves_the_others_in_force(
    watch: Watch[list[Feature]], folder: Path, content: bytes
) -> None:
    (folder / "features" / "own.yaml").write_bytes(content)

    assert not looked(watch)
    (folder / "features" / "own.yaml").write_text(OWN, encoding="utf-8")
    assert looked(watch)


def test_folder_that_is_gone_leaves_the_others_in_force(watch: Watch[list[Feature]], folder: Path) -> None:
    (folder / "features").rename(folder / "away")
    gone = looked(watch)
    (folder / "away").rename(folder / "features")

    assert not gone
    assert not looked(watch)
    assert "top_ads_by_segment" in names(watch)


def test_change_of_a_description_is_no_other_set(watch: Watch[list[Feature]], folder: Path) -> None:
    file = folder / "features" / "top_ads_by_segment.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("The ten", "Ten"), encoding="utf-8")

    assert not looked(watch)


async def test_who_follows_is_handed_each_new_set_and_shows_its_version(folder: Path) -> None:
    watch = watch_features(folder / "features")
    old, taken = shown("features"), asyncio.Queue[list[Feature]]()
    following = asyncio.create_task(watch.follow(taken.put_nowait, every_seconds=0.01))

    (folder / "features" / "own.yaml").write_text(OWN, encoding="utf-8")
    handed = await asyncio.wait_for(taken.get(), 30)
    await asyncio.sleep(0)
    following.cancel()

    assert "most_viewed" in {f.name for f in handed}
    assert shown("features") != old


async def test_who_is_to_end_for_a_new_set_does_not_show_its_version(folder: Path) -> None:
    watch = watch_models(folder / "models")
    old = shown("models")
    ending = asyncio.create_task(watch.renewed(lambda models: "clicks" in models))

    text = (folder / "models" / "ctr.yaml").read_text(encoding="utf-8")
    (folder / "models" / "clicks.yaml").write_text(text.replace("model: ctr", "model: clicks"), encoding="utf-8")
    await asyncio.wait_for(ending, 30)

    assert shown("models") == old


def test_inputs_are_told_so_that_they_can_be_made_again() -> None:
    model: Model = load_models(SHIPPED / "models")["ctr"]

    assert [input_of(i.name, told_of(i)) for i in model.inputs] == list(model.inputs)


def test_thresholds_belong_to_the_version_of_a_set_of_models(folder: Path) -> None:
    before = load_models(folder / "models")
    file = folder / "models" / "ctr.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("auc: {min: 0.5}", "auc: {min: 0.6}"), encoding="utf-8")
    after = load_models(folder / "models")

    assert model_set_version(before) != model_set_version(after)
    assert before["ctr"].definition == after["ctr"].definition
