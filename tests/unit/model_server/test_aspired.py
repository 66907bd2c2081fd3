from pathlib import Path

import pytest
from headrace_core.serving.messages import (
    AllVersions,
    LatestVersions,
    ModelConfig,
    ModelConfigList,
    ModelServerConfig,
    SpecificVersions,
    VersionPolicy,
)
from headrace_model_server.aspired import StateFile, aspired_models, with_version, without_older
from headrace_model_server.errors import InvalidError


def a_config(*models: ModelConfig) -> ModelServerConfig:
    return ModelServerConfig(model_config_list=ModelConfigList(config=models))


def a_model(policy: VersionPolicy | None = None, **told: object) -> ModelConfig:
    return ModelConfig(**{"name": "ctr", "base_path": "/m", "model_version_policy": policy, **told})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (None, (11,)),
        (VersionPolicy(latest=LatestVersions(num_versions=2)), (9, 11)),
        (VersionPolicy(all=AllVersions()), (2, 9, 11)),
        (VersionPolicy(specific=SpecificVersions(versions=[9, 2, 9])), (2, 9)),
    ],
)
def test_versions_by_policy(tmp_path: Path, policy: VersionPolicy | None, wanted: tuple[int, ...]) -> None:
    for name in ("2", "9", "11", ".12", "latest"):
        (tmp_path / name).mkdir()

    found = aspired_models(a_config(a_model(policy, base_path=str(tmp_path))))["ctr"]

    assert found.numbers() == wanted


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (a_config(a_model(), a_model()), "told twice"),
        (a_config(a_model(name="")), "without a name"),
        (a_config(a_model(model_platform="torch")), "the platform torch"),
        (a_config(a_model(VersionPolicy(specific=SpecificVersions(versions=[-1])))), "not negative"),
    ],
)
def test_configuration_that_can_not_be_is_refused(config: ModelServerConfig, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        aspired_models(config)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    config = a_config(a_model(VersionPolicy(specific=SpecificVersions(versions=[3])), version_labels={"stable": 3}))
    StateFile(tmp_path / "state").write(config)

    assert StateFile(tmp_path / "state").read() == config


def test_nothing_was_served_where_nothing_was_written(tmp_path: Path) -> None:
    assert StateFile(tmp_path).read() == ModelServerConfig()


def test_broken_state_is_told_with_its_file(tmp_path: Path) -> None:
    StateFile(tmp_path).write(a_config(a_model()))
    file = next(tmp_path.iterdir())
    file.write_text("model_config_list {", encoding="utf-8")

    with pytest.raises(InvalidError, match=file.name):
        StateFile(tmp_path).read()


def specific(*versions: int, **told: object) -> ModelConfig:
    return a_model(VersionPolicy(specific=SpecificVersions(versions=versions)), **told)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (a_config(), {"ctr": (4,)}),
        (a_config(specific(3)), {"ctr": (3, 4)}),
        (a_config(specific(4)), {"ctr": (4,)}),
        (a_config(specific(5, name="other")), {"other": (5,), "ctr": (4,)}),
        (a_config(a_model(VersionPolicy(latest=LatestVersions(num_versions=2)))), {"ctr": None}),
    ],
)
def test_version_more(before: ModelServerConfig, after: dict[str, tuple[int, ...] | None]) -> None:
    kept = before.SerializeToString(deterministic=True)

    whole = with_version(before, "ctr", 4, "/m/ctr")

    assert {name: model.versions for name, model in aspired_models(whole).items()} == after
    assert before.SerializeToString(deterministic=True) == kept


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (a_config(specific(3)), {}),
        (a_config(specific(3, 4, 5)), {"ctr": (4, 5)}),
        (a_config(specific(3, name="ctr.candidate")), {"ctr.candidate": (3,)}),
        (a_config(specific(3, 4, version_labels={"old": 3, "stable": 4})), {"ctr": (4,)}),
    ],
)
def test_versions_before_the_deployed_one_are_left_out(
    before: ModelServerConfig, after: dict[str, tuple[int, ...]]
) -> None:
    left = aspired_models(without_older(before, "ctr", 4))

    assert {name: model.versions for name, model in left.items()} == after
