"""An artifact's files, wherever they are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import fsspec
from headrace_core.learning.progressive import PROGRESSIVE, ProgressiveScores
from numpy.typing import NDArray

from headrace_model_validator.bundle import BundleError, read_index, read_variables

_MANIFEST: Final = "assets.extra/manifest.json"
_VARIABLES: Final = "variables/variables"


class ArtifactError(Exception):
    """The artifact is not whole. The message tells which part and why."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a trainer wrote.

    Attributes:
        manifest: what the artifact says of itself.
        variables: its weights by name.
        progressive: scores of samples before it learned them; none of a base.
    """

    manifest: Mapping[str, Any]
    variables: Mapping[str, NDArray[Any]]
    progressive: ProgressiveScores


def read_manifest(url: str) -> dict[str, Any]:
    """What an artifact says of itself.

    Raises:
        ArtifactError: it is missing or broken.
        OSError: the store is away.
    """
    try:
        manifest = json.loads(_content(url, _MANIFEST))
    except ValueError as error:
        raise ArtifactError(f"{_MANIFEST} is no JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{_MANIFEST} is no object")
    return manifest


def read_artifact(url: str) -> Artifact:
    """Read an artifact's manifest and weights.

    Raises:
        ArtifactError: a part is missing or broken.
        OSError: the store is away.
    """
    manifest = read_manifest(url)
    _content(url, "saved_model.pb")
    index = _content(url, f"{_VARIABLES}.index")
    try:
        shards, _ = read_index(index)
        data = {n: _content(url, f"{_VARIABLES}.data-{n:05d}-of-{shards:05d}") for n in range(shards)}
        return Artifact(manifest, read_variables(index, data), read_progressive(url, manifest))
    except BundleError as error:
        raise ArtifactError(str(error)) from error


def read_progressive(url: str, manifest: Mapping[str, Any]) -> ProgressiveScores:
    """Scores of samples before they were learned.

    Raises:
        ArtifactError: they are missing, broken or not as many as the manifest tells.
        OSError: the store is away.
    """
    count = manifest.get("progressive") or 0
    if not count:
        return ProgressiveScores.none()
    try:
        found = ProgressiveScores.from_bytes(_content(url, PROGRESSIVE))
    except ValueError as error:
        raise ArtifactError(f"{PROGRESSIVE} can't be read: {error}") from error
    if len(found) != count:
        raise ArtifactError(f"{PROGRESSIVE} has {len(found)} scores, the manifest says {count}")
    return found


def _content(url: str, part: str) -> bytes:
    files, root = fsspec.url_to_fs(url)
    try:
        return bytes(files.cat_file(f"{root}/{part}"))
    except FileNotFoundError:
        raise ArtifactError(f"{part} is missing") from None
