"""What the server is to serve: told by ReloadConfig, kept for the next start. Pure but for its file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from headrace_core.serving.messages import ModelConfig, ModelServerConfig, SpecificVersions, VersionPolicy

from headrace_model_server.artifact import versions_in
from headrace_model_server.errors import InvalidError

#: Of TensorFlow Serving's own --model_config_file format.
_FILE: Final = "models.config"


@dataclass(frozen=True, slots=True)
class AspiredModel:
    """One model.

    Attributes:
        base_path: folder or URL with a folder for each version.
        versions: exactly these; None for the newest ones that the folder has.
        newest: so many of the newest; None for all.
        labels: versions by label.
    """

    base_path: str
    versions: tuple[int, ...] | None = None
    newest: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def follows_folder(self) -> bool:
        """Whether the versions change with the folder."""
        return self.versions is None

    def numbers(self) -> tuple[int, ...]:
        """Versions that are to be served now, ascending."""
        if self.versions is not None:
            return self.versions
        found = versions_in(self.base_path)
        return tuple(found if self.newest is None else found[-self.newest :])


def aspired_models(config: ModelServerConfig) -> dict[str, AspiredModel]:
    """The models of a configuration, by name.

    Raises:
        InvalidError: it says something that can't be.
    """
    found: dict[str, AspiredModel] = {}
    for told in config.model_config_list.config:
        if not told.name or not told.base_path:
            raise InvalidError("a model without a name or a base_path")
        if told.name in found:
            raise InvalidError(f"{told.name}: is told twice")
        if told.model_platform not in {"", "tensorflow"}:
            raise InvalidError(f"{told.name}: the platform {told.model_platform} is not served, only tensorflow")
        found[told.name] = _model(told)
    return found


def _model(told: ModelConfig) -> AspiredModel:
    labels, policy = dict(told.version_labels), told.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "specific":
            versions = tuple(sorted(set(policy.specific.versions)))
            if not versions:
                raise InvalidError(f"{told.name}: names no version")
            if any(v < 0 for v in versions):
                raise InvalidError(f"{told.name}: versions are not negative")
            if strange := {label for label, version in labels.items() if version not in versions}:
                raise InvalidError(f"{told.name}: labels of versions that are not served: {sorted(strange)}")
            return AspiredModel(told.base_path, versions, labels=labels)
        case "all":
            return AspiredModel(told.base_path, labels=labels)
        case _:
            return AspiredModel(told.base_path, newest=policy.latest.num_versions or 1, labels=labels)


def with_version(config: ModelServerConfig, name: str, version: int, base_path: str) -> ModelServerConfig:
    """A configuration with a version more; one by which the versions follow the folder is left to do so.

    Args:
        config: stays as it is.
        name: of the model.
        version: to be served as well.
        base_path: of the model, where the configuration does not have it.
    """
    whole = ModelServerConfig()
    whole.CopyFrom(config)
    for told in whole.model_config_list.config:
        if told.name == name:
            policy = told.model_version_policy
            if policy.WhichOneof("policy_choice") == "specific" and version not in policy.specific.versions:
                policy.specific.versions.append(version)
            return whole
    policy = VersionPolicy(specific=SpecificVersions(versions=[version]))
    told = ModelConfig(name=name, base_path=base_path, model_platform="tensorflow", model_version_policy=policy)
    whole.model_config_list.config.append(told)
    return whole


def without_older(config: ModelServerConfig, name: str, version: int) -> ModelServerConfig:
    """A configuration without those versions of a model that are named and older than one."""
    whole = ModelServerConfig()
    for told in config.model_config_list.config:
        policy = told.model_version_policy
        if told.name == name and policy.WhichOneof("policy_choice") == "specific":
            left = [v for v in policy.specific.versions if v >= version]
            if not left:
                continue
            kept = ModelConfig()
            kept.CopyFrom(told)
            kept.model_version_policy.specific.versions[:] = left
            for label in [label for label, v in told.version_labels.items() if v < version]:
                del kept.version_labels[label]
            whole.model_config_list.config.append(kept)
        else:
            whole.model_config_list.config.append(told)
    return whole


class StateFile:
    """The last configuration, on disk.

    Args:
        folder: where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE

    def read(self) -> ModelServerConfig:
        """What was written last; empty when nothing was.

        Raises:
            InvalidError: the file is not what was written.
        """
        config = ModelServerConfig()
        try:
            text_format.Parse(self._file.read_text(encoding="utf-8"), config)
        except FileNotFoundError:
            pass
        except (OSError, text_format.ParseError, UnicodeDecodeError) as error:
            raise InvalidError(f"{self._file}: {error}") from error
        return config

    def write(self, config: ModelServerConfig) -> None:
        """Replace it, so that a crash leaves the old or the new one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text_format.MessageToString(config))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)
