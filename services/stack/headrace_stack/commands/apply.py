"""`headrace apply`: definitions of a user's own, live."""

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from headrace_core.definitions.features import feature_set_version
from headrace_core.definitions.models import model_set_version
from headrace_core.definitions.watch import DefinitionError

from headrace_stack.applied import (
    FEATURES,
    KINDS,
    MODELS,
    WORKFLOWS,
    Definitions,
    Given,
    Placed,
    candidate,
    given,
    lay,
    placed,
)
from headrace_stack.commands import reach
from headrace_stack.commands.terminal import AwayError, CommandError, Json, WrongUsageError, hint, show, tell
from headrace_stack.layout import Layout
from headrace_stack.services import lay_beneath
from headrace_stack.stack import Stack

#: Who works by which definitions.
_USERS: Final = {
    FEATURES: ("gateway", "feature-worker"),
    MODELS: ("gateway", "trainer", "model-validator"),
    WORKFLOWS: (),
}
#: A trainer that starts anew imports TensorFlow.
_PATIENCE_SECONDS: Final = 90.0
_INFO: Final = re.compile(r'^headrace_definitions_info\{kind="(\w+)",version="(\w+)"\} 1\.0$', re.MULTILINE)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(apply)


@dataclass(frozen=True, slots=True)
class _Change:
    """What became of one definition.

    Attributes:
        kind, name: of it.
        change: new, changed, removed or unchanged.
        definition: of a feature or model its hash, of a workflow the snapshots.
    """

    kind: str
    name: str
    change: str
    definition: str


def apply(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="feature or model (.yaml), workflow (.py), or a folder of them"),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="KIND/NAME", help="take back what was applied, e.g. features/my_list"),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="show what was applied to this stack")] = False,  # noqa: FBT002  # a flag
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Apply definitions to the running stack, live: checked together with all others, then taken without a restart of the stack.

    Nothing is changed when one is wrong. What was applied lies over the shipped definitions at each start of this stack.
    """
    if list_ + bool(paths) + bool(remove) != 1:
        raise WrongUsageError("want PATHs to apply, or --remove KIND/NAME, or --list")
    layout = Layout.from_environment()
    described = reach.described()
    folder = Path(described["definitions"])
    if folder != layout.definitions:
        raise CommandError(
            f"this stack was started with HEADRACE_DEFINITIONS={folder}: change the files there, services take them live"
        )
    if list_:
        _show_applied(layout, as_json=as_json)
        return
    with layout.locked(f"another `headrace` is at work in {layout.home}: waiting for it"):
        try:
            files = given(paths or [])
            changes = placed(files, folder) if files else _removed(remove or [], layout, described["profile"])
            made = _apply(files, changes, layout)
        except DefinitionError as error:
            raise CommandError(str(error)) from error
    rows = [(c.kind, c.name, c.change, c.definition) for c in made["changes"]]
    told = made | {"changes": [asdict(c) for c in made["changes"]]}
    show(told, rows, ("kind", "name", "is", "definition"), as_json=as_json)
    if not as_json and made["taken_by"]:
        tell(f"taken by {', '.join(made['taken_by'])} within {made['seconds']:.1f} s", style="dim")


def _show_applied(layout: Layout, *, as_json: bool) -> None:
    files = [
        (kind, file) for kind in KINDS for file in sorted((layout.applied / kind).glob("*")) if file.name[0] != "."
    ]
    items = [{"kind": kind, "file": str(file)} for kind, file in files]
    rows = [(kind, file.name, file) for kind, file in files]
    show(
        {"items": items, "next": None},
        rows,
        ("kind", "file", "is kept in"),
        as_json=as_json,
        none="nothing was applied",
    )


def _removed(names: Sequence[str], layout: Layout, profile: str) -> list[Placed]:
    """What takes back what was applied: the shipped file, or none."""
    found: list[Placed] = []
    with tempfile.TemporaryDirectory(prefix="headrace-apply-") as made:
        beneath = Path(made) / "definitions"
        lay_beneath(beneath, profile)
        for told in names:
            kind, _, name = told.partition("/")
            places = [
                file.relative_to(layout.applied) for file in sorted((layout.applied / kind).glob("*"))
                if kind in KINDS and file.name.partition(".")[0] == name
            ]  # fmt: skip
            if not places:
                raise WrongUsageError(f"--remove {told}: was not applied; `headrace apply --list` tells what was")
            found += [
                Placed(kind, name, place, (beneath / place).read_bytes() if (beneath / place).is_file() else None)
                for place in places
            ]
    return found


def _apply(files: Sequence[Given], changes: Sequence[Placed], layout: Layout) -> dict[str, Any]:
    """Check, upload, lay and wait; the changes and who has taken them."""
    folder = layout.definitions
    before = _in_force(folder)
    with candidate(changes, files, folder) as after:
        snapshots = _upload(changes, after)
        made = [
            _change(c, before, after, folder, snapshots)
            for c in changes
            if not c.place.name.endswith(".parameters.yaml")
        ]
        kinds = {c.kind for c in made if c.change != "unchanged"}
        waited_for = _at_work(layout, kinds)
        removing = not files
        lay([Placed(c.kind, c.name, c.place, None) if removing else c for c in changes], layout.applied)
        lay(changes, folder)
        started = time.monotonic()
        versions = {
            FEATURES: str(feature_set_version(list(after.features.values()))), MODELS: model_set_version(after.models)
        }  # fmt: skip
        _wait(waited_for, {kind: versions[kind] for kind in kinds if kind in versions})
    return {
        "changes": made,
        "feature_set_version": int(versions[FEATURES]),
        "taken_by": sorted(waited_for),
        "seconds": round(time.monotonic() - started, 2),
    }


def _in_force(folder: Path) -> Definitions:
    """What is there now; nothing where it is wrong, which services do not take either: what is applied may mend it."""
    try:
        with candidate((), (), folder) as found:
            return found
    except DefinitionError:
        return Definitions({}, {}, {})


def _upload(changes: Sequence[Placed], after: Definitions) -> dict[str, str]:
    """Workflows to the control plane, first of all: it may refuse them. Their snapshots, by the name of the file."""
    names = dict.fromkeys(c.name for c in changes if c.kind == WORKFLOWS and c.content is not None)
    if not names:
        if any(c.kind == WORKFLOWS for c in changes):
            hint("the control plane keeps the workflow: `headrace workflows pause` stops its rules")
        return {}
    with reach.control() as api:
        return {
            name: ", ".join(
                f"{told['workflow']} {told['snapshot']}"
                for told in (api.call("POST", "/workflows", json=document) for document in after.documents[name])
            )
            for name in names
        }


def _change(
    change: Placed, before: Definitions, after: Definitions, folder: Path, snapshots: Mapping[str, str]
) -> _Change:
    old, new = _meaning(change, before), _meaning(change, after)
    if new is None:
        return _Change(change.kind, change.name, "removed", "")
    same = old == new and (change.kind != WORKFLOWS or (folder / change.place).is_file())
    word = "new" if old is None else "unchanged" if same else "changed"
    definition = snapshots.get(change.name, "") if change.kind == WORKFLOWS else str(getattr(new, "definition", ""))
    return _Change(change.kind, change.name, word, definition)


def _meaning(change: Placed, found: Definitions) -> Any:
    kinds: dict[str, Mapping[str, Any]] = {
        FEATURES: found.features, MODELS: found.models, WORKFLOWS: found.documents
    }  # fmt: skip
    of = kinds[change.kind]
    if (one := of.get(change.name)) is None or change.kind != FEATURES:
        return one
    return _Hashed(one.definition)


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A feature holds compiled functions: its hash tells whether it is the same."""

    definition: str


def _at_work(layout: Layout, kinds: set[str]) -> dict[str, str]:
    """The processes that work by definitions of these kinds, with the address of their metrics; stopped ones take them later."""
    users = {service for kind in kinds for service in _USERS[kind]}
    return {
        f"{row['service']}-{row['replica']}": row["metrics"]
        for row in Stack(layout).statuses()
        if row["service"] in users and row["pid"] is not None
    }


def _wait(processes: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Wait until all of them work by these versions.

    Raises:
        AwayError: one does not in time.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    left = dict(processes)
    with httpx.Client(timeout=5) as http:
        while left:
            left = {name: at for name, at in left.items() if not _has_taken(http, name, at, versions)}
            if left and time.monotonic() > until:
                name = min(left)
                raise AwayError(
                    f"the definitions are in place, but {', '.join(sorted(left))} did not take them within "
                    f"{_PATIENCE_SECONDS:.0f} s: `headrace logs {name.rpartition('-')[0]}` may tell why"
                )
            time.sleep(0.1)


def _has_taken(http: httpx.Client, name: str, address: str, versions: Mapping[str, str]) -> bool:
    service = name.rpartition("-")[0]
    wanted = {kind: version for kind, version in versions.items() if service in _USERS[kind]}
    try:
        if http.get(f"{address}/readyz").status_code != 200:
            return False
        shown = dict(_INFO.findall(http.get(f"{address}/metrics").text))
    except httpx.TransportError:  # it is being started anew
        return False
    return wanted.items() <= shown.items()
