"""Commands of backups: backup, restore."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from headrace_stack.backup import back_up
from headrace_stack.backup import restore as restore_stack
from headrace_stack.commands.terminal import Json, errors, show_facts, show_json
from headrace_stack.layout import Layout


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore):
        app.command()(command)


def backup(
    folder: Annotated[Path, typer.Argument(help="where to; not there yet, or empty")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Back up the running stack's database, models and applied definitions, see docs/operations/backup-and-restore.md."""
    told = back_up(Layout.from_environment(), folder)
    if as_json:
        show_json(told)
        return
    show_facts(
        {"backup": folder, "models": f"{len(told['models'])} versions", "applied": f"{len(told['applied'])} files"}
    )


def restore(
    folder: Annotated[Path, typer.Argument(help="a backup")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Set database and applied definitions of the stack, which is down, back to a backup; `headrace up` then goes on from there."""
    done = restore_stack(
        Layout.from_environment(), folder, lambda text: errors.print(Text(text, style="dim"))
    )  # fmt: skip
    facts = {
        "made_at": done.made_at,
        "incarnation": done.raised.incarnation,
        "epoch": done.raised.epoch,
        "models": done.models,
        "applied": done.applied,
        "aside": str(done.aside) if done.aside else None,
    }
    if as_json:
        show_json(facts)
        return
    made = datetime.fromtimestamp(done.made_at / 1000, UTC).isoformat(timespec="seconds")
    shown = {**facts, "made_at": made, "models": f"{len(done.models)} versions were missing and put back"}
    shown |= {"applied": f"{len(done.applied)} files", "aside": done.aside or "nothing else was applied"}
    show_facts(shown)
