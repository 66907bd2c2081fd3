"""Where the files of a version are."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import fsspec

from headrace_model_server.errors import ArtifactError

#: What Headrace writes into an artifact beside TensorFlow's own files.
MANIFEST: Final = "assets.extra/manifest.json"
_GRAPH: Final = "saved_model.pb"
_ASSETS: Final = "assets"


def local_folder(base_path: str) -> Path | None:
    """The folder of a path or file: URL; None for what is not on a disk of this machine."""
    parts = urlsplit(base_path)
    if not parts.scheme:
        return Path(base_path)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def versions_in(base_path: str) -> list[int]:
    """Numbers of the versions that a model's folder has, ascending."""
    if (folder := local_folder(base_path)) is not None:
        names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    else:
        files, root = fsspec.url_to_fs(base_path)
        names = [str(name).rsplit("/", 1)[-1] for name in files.ls(root, detail=False)] if files.exists(root) else []
    return sorted(int(name) for name in names if name.isdecimal())


def fetch(base_path: str, version: int, cache: Path) -> Path:
    """The folder of a version on this machine's disk; what is elsewhere is copied there first.

    Raises:
        ArtifactError: there is none, or it can't be read.
    """
    if (folder := local_folder(base_path)) is not None:
        found = folder / str(version)
        if not (found / _GRAPH).is_file():
            raise ArtifactError(f"{found}: holds no {_GRAPH}")
        return found
    url = f"{base_path.rstrip('/')}/{version}"
    copy = cache / hashlib.sha256(url.encode()).hexdigest()[:16] / str(version)
    if copy.is_dir():
        return copy  # a version never changes
    partial = copy.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        files, root = fsspec.url_to_fs(url)
        files.get(root.rstrip("/") + "/", f"{partial}/", recursive=True)
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError(f"{url}: {error}") from error
    if not (partial / _GRAPH).is_file():
        raise ArtifactError(f"{url}: holds no {_GRAPH}")
    partial.rename(copy)
    return copy


def drop_copy(folder: Path, cache: Path) -> None:
    """Delete a folder if it is a copy of ours."""
    if folder.is_relative_to(cache):
        shutil.rmtree(folder, ignore_errors=True)


def graph_of(folder: Path) -> tuple[bytes, str]:
    """The graph's file and a hash of all that is not variables: versions that share it differ in variables alone.

    Raises:
        ArtifactError: a file can't be read.
    """
    try:
        graph = (folder / _GRAPH).read_bytes()
        digest = hashlib.sha256(graph)
        for asset in sorted((folder / _ASSETS).rglob("*")):
            if asset.is_file():
                digest.update(asset.name.encode() + b"\0" + hashlib.sha256(asset.read_bytes()).digest())
    except OSError as error:
        raise ArtifactError(f"{folder}: {error.strerror}") from error
    return graph, digest.hexdigest()


def golden_inputs(folder: Path) -> dict[str, Any] | None:
    """The rows that the manifest gives with their scores, by input; None without a manifest that can be read."""
    try:
        golden = json.loads((folder / MANIFEST).read_bytes())["golden"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return golden if isinstance(golden, dict) else None
