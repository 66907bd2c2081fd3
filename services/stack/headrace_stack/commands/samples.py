"""Commands of the training samples: look, changes, follow, export, audit."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.progress import Progress
from rich.text import Text

from headrace_stack import look, tail
from headrace_stack.commands.reach import address
from headrace_stack.commands.terminal import (
    CommandError,
    Defaulting,
    Json,
    Limit,
    WrongUsageError,
    errors,
    hint,
    moment,
    show,
    show_json,
    tell,
    when,
)

_ACTIONS: Final = ("click", "favorite", "cart", "consult", "comment", "purchase")
_SUMS: Final = (
    "impressions",
    "joined",
    "positive",
    "negative",
    "orphaned",
    "duplicate",
    "pending",
    "corrected",
    "rows",
)


class _Samples(Defaulting):
    default = "changes"


samples = typer.Typer(cls=_Samples, help="Training samples: `headrace samples REQUEST_ID` tells the changes of one request.",
                      no_args_is_help=True)  # fmt: skip

RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="as the answer told it")]
Since = Annotated[str | None, typer.Option("--since", help="impressions from then on: 15m (ago), ISO 8601, or ms")]
Until = Annotated[str | None, typer.Option("--until", help="impressions before it")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(samples, name="samples")


@samples.command("look")
def look_at(
    user: Annotated[str | None, typer.Option("--user", help="only of this user")] = None,
    item: Annotated[str | None, typer.Option("--item", help="only of this item")] = None,
    request: Annotated[str | None, typer.Option("--request", help="only of this request")] = None,
    limit: Limit = 20,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show the newest samples; as JSON with the features that served them."""
    wanted = {"user_id": user, "item_id": item, "request_id": _request_id(request) if request else None}
    rows = look.newest_samples(address("postgres"), limit, wanted, features=as_json)
    cells = [
        (when(r["event_time"]), r["request_id"], r["user_id"], r["item_id"], _label(r["label"]), r["version"],
         f"{r['model']} {r['model_version']}" if r["model_version"] else "popularity", r["score"])
        for r in rows
    ]  # fmt: skip
    columns = ("shown", "request", "user", "item", "label", "version", "scored by", "score")
    show(
        {"items": rows, "next": None},
        cells,
        columns,
        as_json=as_json,
        none="no sample yet: a negative takes its whole window",
    )


def _label(bits: int) -> Text:
    """A mask of labels in words."""
    words = [name for n, name in enumerate(_ACTIONS) if bits >> n & 1]
    return Text(", ".join(words), style="green") if words else Text("none", style="dim")


@samples.command()
def changes(
    request_id: RequestId,
    as_json: Json = False,  # noqa: ARG001, FBT002  # it is JSON anyway
) -> None:
    """Show what samples.v1 tells of a request: a line of JSON per change, oldest first."""
    for change in tail.changes(address("kafka"), _request_id(request_id)):
        show_json(change)


def _request_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise WrongUsageError(
            f"{text} is no request id (a UUID, which every answer tells) and no command: see `headrace samples --help`"
        ) from None


@samples.command()
def follow(
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="end after so many")] = None,
    corrections: Annotated[bool, typer.Option("--corrections", help="only what changes a published label")] = False,  # noqa: FBT002  # a flag
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show changes of samples as they are published, until Ctrl-C."""
    left = limit

    def take(change: dict[str, Any]) -> bool:
        nonlocal left
        correction = change["operation"] == "OPERATION_CORRECT"
        if corrections and not correction:
            return True
        if as_json:
            show_json(change)
        else:
            sample = change["sample"]
            before = f"{_label(change['previous_label'])} → " if correction else ""
            tell(
                f"{when(int(change['change_time']))} {sample['request_id']} {sample['user_id']} {sample['item_id']} "
                f"{before}{_label(sample['label'])} (version {sample['version']})"
            )
        left = None if left is None else left - 1
        return left != 0

    hint("following samples.v1")
    tail.follow_changes(address("kafka"), take)


@samples.command()
def export(
    file: Annotated[Path, typer.Argument(help="ends in .parquet, .jsonl or .csv")],
    since: Since = None,
    until: Until = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Write samples to a file, of one moment: newest version of each, features as JSON."""
    write = _WRITERS.get(file.suffix)
    if write is None:
        raise WrongUsageError(f"{file}: want a name that ends in {', '.join(_WRITERS)}")
    if not file.parent.is_dir():
        raise WrongUsageError(f"{file}: there is no folder {file.parent}")
    pages = look.exported_samples(address("postgres"), moment(since, "--since"), moment(until, "--until"))
    partial = file.with_name(f".{file.name}.partial")  # what is there under its name is whole
    try:
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
            task = progress.add_task("exporting", total=None)
            count = write(partial, _counted(pages, progress, task))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        show_json({"file": str(file), "samples": count})
    else:
        tell(f"{count:,} samples in {file}")


def _counted(pages: Iterable[list[look.Row]], progress: Progress, task: Any) -> Iterator[list[look.Row]]:
    done = 0
    for page in pages:
        yield page
        done += len(page)
        progress.update(task, completed=done, description=f"{done:,} samples")


_SCHEMA: Final = pa.schema([
    ("request_id", pa.string()), ("item_id", pa.string()), ("user_id", pa.string()), ("event_time", pa.int64()),
    ("label", pa.int32()), ("version", pa.int32()), ("joined_at", pa.int64()), ("model", pa.string()),
    ("model_version", pa.int64()), ("feature_set_version", pa.int64()), ("page_id", pa.string()), ("position", pa.int32()),
    ("score", pa.float64()), ("propensity", pa.float64()), ("source_partition", pa.int32()), ("features", pa.string()),
])  # fmt: skip


def _write_parquet(file: Path, pages: Iterable[list[look.Row]]) -> int:
    count = 0
    with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        for page in pages:
            writer.write_table(pa.Table.from_pylist(page, _SCHEMA))
            count += len(page)
    return count


def _write_lines(file: Path, pages: Iterable[list[look.Row]]) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as target:
        for page in pages:
            target.writelines(json.dumps(look.features_of(row)) + "\n" for row in page)
            count += len(page)
    return count


def _write_csv(file: Path, pages: Iterable[list[look.Row]]) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, _SCHEMA.names)
        writer.writeheader()
        for page in pages:
            writer.writerows(page)
            count += len(page)
    return count


_WRITERS: Final = {".parquet": _write_parquet, ".jsonl": _write_lines, ".csv": _write_csv}


@samples.command()
def audit(as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Check that every impression is accounted for; exit code 1 when a sum does not hold.

    Per source partition, in one snapshot: impressions = joined + orphaned + duplicate + pending, joined = positive + negative,
    and the table has no other rows. Fewer rows than joined are days that were dropped, or users that were erased.
    """
    found = look.accounts(address("postgres"))
    items = [account.counts | {"faults": account.faults} for account in found]
    faults = [f"partition {a.counts['source_partition']}: {fault}" for a in found for fault in a.faults]
    if as_json:
        show_json({"holds": not faults, "items": items, "next": None})
    else:
        rows = [tuple(i[name] for name in ("source_partition", *_SUMS)) for i in items]
        total = [sum(i[name] for i in items) for name in _SUMS]
        rows += [("all", *total)] if len(rows) > 1 else []
        show(items, rows, ("partition", *_SUMS), as_json=False, none="no impression yet")
        if not faults:
            tell("every sum holds", style="green")
    if faults:
        raise CommandError("; ".join(faults))
