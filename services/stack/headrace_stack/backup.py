"""Backup and restore of the embedded stack: PostgreSQL, the models and what was applied; the rest follows from these and Kafka."""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from headrace_core.init.migrations import migrate
from headrace_core.init.restored import Raised, raise_after_restore

from headrace_stack.layout import Layout, StackError
from headrace_stack.stack import Stack
from headrace_stack.stores.postgres import binary

_DUMP: Final = "postgres.dump"
_MODELS: Final = "models"
_APPLIED: Final = "applied"
#: Written last: a folder without it is no backup.
_TOLD: Final = "backup.json"
_NEW, _OLD = "headrace_restored", "headrace_before_restore"


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a restore.

    Attributes:
        made_at: of the backup, ms since the epoch.
        raised: incarnation and epochs.
        models: versions that were put back, as model/version.
        applied: files of definitions that are applied from now on, as kind/file.
        aside: where what was applied instead is now; None where it was the same, or nothing.
    """

    made_at: int
    raised: Raised
    models: list[str]
    applied: list[str]
    aside: Path | None


def back_up(layout: Layout, folder: Path) -> dict[str, Any]:
    """Write a backup of the running stack; it works on meanwhile. What the backup says of itself.

    The dump is of one moment. The models are copied after it, so every version that it knows is there; so is what was applied,
    so no workflow is missing that it knows.

    Raises:
        StackError: no stack runs, the folder holds something, or the dump failed.
    """
    stack = Stack(layout)
    told = stack.describe()
    if folder.exists() and any(folder.iterdir()):
        raise StackError(f"{folder} is not empty: name a folder that is not there yet")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made_at = int(time.time() * 1000)
    _run("pg_dump", "--format=custom", "--file", str(folder / _DUMP), told["postgres"])
    models = layout.data / "models"
    if models.is_dir():
        shutil.copytree(models, folder / _MODELS, ignore=shutil.ignore_patterns(".writing-*"))
    # Several files may be one change of somebody who applies them now.
    with layout.locked(f"another `headrace` is at work in {layout.home}: waiting for it"):
        _copy_applied(layout.applied, folder / _APPLIED)
    content = {
        "made_at": made_at,
        "profile": told.get("profile"),
        "models": _versions(folder / _MODELS),
        "applied": _files(folder / _APPLIED),
    }
    (folder / _TOLD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def restore(layout: Layout, folder: Path, progress: Callable[[str], None] = lambda _: None) -> Restored:
    """Set PostgreSQL and what was applied to a stack that is down back to a backup; missing versions of models come back, too.

    The new database is made, raised and only then put in the place of the old one, so a restore that fails changes nothing.
    What was applied since then is put aside.

    Raises:
        StackError: the stack is up, its database is not the embedded one, or the folder is no backup.
    """
    if os.environ.get("HEADRACE_POSTGRES"):
        raise StackError("HEADRACE_POSTGRES names a database of your own: see docs/operations/backup-and-restore.md")
    try:
        told = json.loads((folder / _TOLD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StackError(f"{folder} is no backup: it has no {_TOLD}") from None
    if Stack(layout).is_up():
        raise StackError(f"a stack runs in {layout.home}: `headrace down` ends it")
    stores = Stack(layout, told["profile"], services=(), progress=progress)
    dsn = stores.up()["postgres"]
    try:
        raised = _restore_database(dsn, folder / _DUMP, f"{told['made_at']}-{uuid.uuid4()}", progress)
    finally:
        stores.down()
    models = _put_back(folder / _MODELS, layout.data / "models")
    # A backup of an earlier release tells nothing of what was applied: then it stays.
    aside = _set_back(folder / _APPLIED, layout.applied) if "applied" in told else None
    return Restored(told["made_at"], raised, models, _files(layout.applied), aside)


def _restore_database(dsn: str, dump: Path, name: str, progress: Callable[[str], None]) -> Raised:
    server, _, database = dsn.rpartition("/")
    new = f"{server}/{_NEW}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        for left in (_NEW, _OLD):
            connection.execute(f"DROP DATABASE IF EXISTS {left} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {_NEW} TEMPLATE template0")
        progress("restoring the database")
        _run("pg_restore", "--exit-on-error", "--no-owner", "--jobs=2", "--dbname", new, str(dump))
        migrate(new)
        raised = raise_after_restore(new, name)
        progress("putting it in place")
        connection.execute(f"ALTER DATABASE {database} RENAME TO {_OLD}")
        connection.execute(f"ALTER DATABASE {_NEW} RENAME TO {database}")
        connection.execute(f"DROP DATABASE {_OLD} WITH (FORCE)")
    return raised


def _put_back(source: Path, target: Path) -> list[str]:
    """Copy the versions that are not there; one that is there stays as it is."""
    missing = [v for v in _versions(source) if not (target / v).exists()]
    for version in missing:
        beside = target / f"{version}.restoring"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source / version, beside)
        beside.rename(target / version)
    return missing


def _copy_applied(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    else:
        target.mkdir()


def _set_back(source: Path, target: Path) -> Path | None:
    """Make what is applied what the backup has; where that replaces something else, where this is now."""
    if _contents(source) == _contents(target):
        return None
    beside, aside = target.with_name(f"{target.name}.restoring"), target.with_name(f"{target.name}-before-restore")
    shutil.rmtree(beside, ignore_errors=True)
    _copy_applied(source, beside)
    replaced = bool(_files(target))
    if replaced:
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    else:
        shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
    return aside if replaced else None


def _files(folder: Path) -> list[str]:
    return sorted(_contents(folder))


def _contents(folder: Path) -> dict[str, bytes]:
    files = [f for f in folder.glob("*/*") if f.is_file() and not f.name.startswith(".")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def _versions(models: Path) -> list[str]:
    return sorted(str(p.relative_to(models)) for p in models.glob("*/*") if p.is_dir() and p.name.isdigit())


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run([str(binary(name)), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise StackError(f"{name} failed: {last}")
