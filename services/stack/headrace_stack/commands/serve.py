"""What a caller of the gateway does: recommend, rank, send events, look at features."""

import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from headrace_core.definitions.features import DefinitionError, Top, feature_set_version, load_features
from rich.progress import Progress

from headrace_stack.commands import reach
from headrace_stack.commands.reach import Api, segment
from headrace_stack.commands.terminal import (
    AwayError,
    CommandError,
    Json,
    WrongUsageError,
    errors,
    hint,
    show,
    show_json,
    tell,
    when,
)

_BATCH: Final = 500
_PATIENCE_SECONDS: Final = 30.0
_BUSY: Final = frozenset({429, 503})
_VALUE_WIDTH: Final = 90

features = typer.Typer(help="Current feature values, as the gateway reads them.", no_args_is_help=True)

Page = Annotated[str, typer.Option("--page", help="page that shows the answer")]
ItemType = Annotated[str | None, typer.Option("--item-type", help="only items of this type, e.g. ad")]
Categories = Annotated[list[str] | None, typer.Option("--category", help="only items of it; may be repeated")]
Context = Annotated[list[str] | None, typer.Option("--context", help="KEY=VALUE of the request; may be repeated")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="item not to return; may be repeated")]
OnlyFeature = Annotated[str | None, typer.Option("--feature", help="only this one")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(recommend)
    app.command()(rank)
    app.command()(send)
    app.add_typer(features, name="features")


def recommend(  # noqa: PLR0913, PLR0917  # the fields of the call
    user_id: Annotated[str, typer.Argument(help="who asks")],
    page: Page = "home",
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100, help="how many")] = 10,
    item_type: ItemType = None,
    category: Categories = None,
    context: Context = None,
    exclude: Exclude = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Recommend items to a user."""
    body = {"user_id": user_id, "page_id": page, "count": count}
    _ranked("/v1/recommend", body | _choice(item_type, category, context, exclude), as_json=as_json)


def rank(  # noqa: PLR0913, PLR0917  # the fields of the call
    user_id: Annotated[str, typer.Argument(help="who asks")],
    items: Annotated[list[str], typer.Argument(metavar="ITEM...", help="candidates")],
    page: Page = "home",
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, max=500, help="how many; all if not told")
    ] = None,
    item_type: ItemType = None,
    category: Categories = None,
    context: Context = None,
    exclude: Exclude = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Rank candidates for a user."""
    body = {"user_id": user_id, "page_id": page, "candidates": items} | ({"count": count} if count else {})
    _ranked("/v1/rank", body | _choice(item_type, category, context, exclude), as_json=as_json)


def _choice(
    item_type: str | None, category: list[str] | None, context: list[str] | None, exclude: list[str] | None
) -> dict[str, Any]:
    told = {
        "item_type": item_type,
        "categories": category,
        "exclude": exclude,
        "context": dict(_pair(text) for text in context or ()),
    }
    return {name: value for name, value in told.items() if value}


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise WrongUsageError(f"--context {text}: want KEY=VALUE, e.g. --context device=phone")
    try:
        read = json.loads(value)
    except ValueError:
        return key, value
    return key, value if isinstance(read, dict | list) else read


def _ranked(path: str, body: dict[str, Any], *, as_json: bool) -> None:
    with reach.gateway() as api:
        told = api.call("POST", path, json=body)
    if as_json:
        show_json(told)
        return
    rows = [(i["position"] + 1, i["item_id"], i["score"], i["source"]) for i in told["items"]]
    show(told, rows, ("", "item", "score", "from"), as_json=False, none="nothing to recommend: are there items?")
    scorer = f"{told['model']} {told['model_version']}" if told["model_version"] else "popularity"
    missing = f", degraded: {', '.join(told['degraded'])}" if told["degraded"] else ""
    tell(f"scored by {scorer}{missing}; request {told['request_id']}", style="dim")


def send(  # noqa: PLR0913, PLR0917  # the fields of an event
    file: Annotated[str | None, typer.Argument(help="events as JSON lines; - is stdin")] = None,
    user: Annotated[str | None, typer.Option("--user", help="instead of a file: who did it")] = None,
    action: Annotated[str | None, typer.Option("--action", help="click, impression, view, purchase, …")] = None,
    item: Annotated[str | None, typer.Option("--item", help="on which item")] = None,
    item_type: Annotated[str | None, typer.Option("--item-type", help="goods, article, video, ad")] = None,
    page: Annotated[str | None, typer.Option("--page", help="on which page")] = None,
    request: Annotated[
        str | None, typer.Option("--request", help="request_id of the answer that showed the item")
    ] = None,
    corrects: Annotated[str | None, typer.Option("--corrects", help="event_id of the event to cancel")] = None,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Send behaviour events: a file of JSON lines, or one event by its options.

    An event without event_id or event_time gets a new id and the time of now. A gateway that is busy, or without Kafka, is asked
    again for 30 s; what was acknowledged is not sent twice. Exit code 1 when an event was rejected: each is told with its line.
    """
    fields = {
        "user_id": user, "action": action, "item_id": item, "item_type": item_type, "page_id": page, "request_id": request,
        "corrects": corrects,
    }  # fmt: skip
    one = {name: value for name, value in fields.items() if value is not None}
    if (file is None) == (not one):
        raise WrongUsageError(
            "want a FILE of JSON lines (- is stdin), or --user and --action with the event's other fields"
        )
    sending = _Sending()
    with reach.gateway() as api:
        sending.send(api, _numbered([json.dumps(one)] if file is None else _lines(file)))
    sending.report(as_json=as_json, by_line=file is not None)


def _lines(file: str) -> Iterator[str]:
    if file == "-":
        yield from sys.stdin
        return
    try:
        with Path(file).open(encoding="utf-8") as source:
            yield from source
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is no text in UTF-8 ({error.reason}): want JSON lines") from error


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


class _Sending:
    """Events on their way, in batches; what became of them."""

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected: list[dict[str, Any]] = []
        self.event_ids: list[str] = []

    def send(self, api: Api, lines: Iterable[tuple[int, str]]) -> None:
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
            task = progress.add_task("sending", total=None)
            rest = iter(lines)
            while batch := list(islice(rest, _BATCH)):
                self._send_batch(api, [(n, event) for n, line in batch if (event := self._read(n, line)) is not None])
                progress.update(task, advance=len(batch), description=f"sent {self.accepted:,}")

    def _read(self, number: int, line: str) -> dict[str, Any] | None:
        try:
            event = json.loads(line)
        except ValueError as error:
            self.rejected.append({"line": number, "reason": f"not JSON: {error}"})
            return None
        if not isinstance(event, dict):
            self.rejected.append({"line": number, "reason": "not a JSON object"})
            return None
        return {"event_id": str(uuid.uuid4()), "event_time": int(time.time() * 1000)} | event

    def _send_batch(self, api: Api, batch: Sequence[tuple[int, dict[str, Any]]]) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while batch:
            answer = api.ask("POST", "/v1/events", json={"events": [event for _, event in batch]})
            body = answer.json() if answer.status_code in _BUSY or not answer.is_server_error else reach.body_of(answer)
            faults = {fault["index"]: fault["reason"] for fault in body.get("rejected", ())}
            if answer.is_error and answer.status_code not in _BUSY and not faults:
                reach.refused(answer.status_code, str(body.get("detail", body)))
            self.rejected += [{"line": batch[n][0], "reason": reason} for n, reason in faults.items()]
            busy = answer.status_code in _BUSY
            taken = set(body.get("acknowledged", ())) if busy else set(range(len(batch))) - set(faults)
            taken = set() if answer.is_error and not busy else taken
            self.accepted += len(taken)
            self.event_ids += [str(batch[n][1]["event_id"]) for n in sorted(taken)]
            if not busy:
                return
            batch = [one for n, one in enumerate(batch) if n not in taken and n not in faults]
            wait = float(answer.headers.get("retry-after", "1"))
            if batch and time.monotonic() + wait > until:
                raise AwayError(
                    f"{body.get('detail', 'busy')}; {self.accepted} events were taken, send from line {batch[0][0]} on again"
                )
            time.sleep(wait if batch else 0)  # as the gateway asks

    def report(self, *, as_json: bool, by_line: bool) -> None:
        self.rejected.sort(key=lambda fault: fault["line"])
        if as_json:
            ids = {"event_ids": self.event_ids} if len(self.event_ids) <= _BATCH else {}
            show_json({"accepted": self.accepted, "rejected": self.rejected} | ids)
        else:
            for fault in self.rejected:
                where = f"line {fault['line']}: " if by_line else ""
                errors.print(f"headrace: {where}{fault['reason']}", style="red", markup=False)
            tell(f"accepted {self.accepted:,}" + (f", rejected {len(self.rejected):,}" if self.rejected else ""))
        if self.rejected:
            raise typer.Exit(1)


@features.command("user")
def of_user(user_id: str, feature: OnlyFeature = None, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Show a user's current values."""
    _values("users", user_id, feature, as_json=as_json)


@features.command("item")
def of_item(item_id: str, feature: OnlyFeature = None, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Show an item's current values."""
    _values("items", item_id, feature, as_json=as_json)


def _values(entity: str, name: str, feature: str | None, *, as_json: bool) -> None:
    with reach.gateway() as api:
        told = api.call("GET", f"/v1/features/{entity}/{segment(name)}")
    if feature is not None:
        known = ", ".join(one["feature"] for one in told["items"]) or "nothing"
        told["items"] = [one for one in told["items"] if one["feature"] == feature]
        if not told["items"]:
            raise CommandError(
                f"{name} has no value of {feature}, it has {known}: `headrace features list` shows them all"
            )
    rows = [
        (one["feature"], one["definition"], one["version"], when(one["event_time"]), _short(one["value"]))
        for one in told["items"]
    ]
    show(
        told,
        rows,
        ("feature", "definition", "version", "as of", "value"),
        as_json=as_json,
        none=f"nothing is known of {name}",
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


@features.command()
def top(
    feature: Annotated[str, typer.Argument(help="name of a ranked list, e.g. top_ads_by_segment")],
    values: Annotated[list[str], typer.Argument(metavar="VALUE...", help="its key's values, e.g. China male 100")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show the current ranked list of a key."""
    # As the platform writes keys; one that is joined already (China|male|100) is taken as it is.
    joined = values[0] if len(values) == 1 else "|".join(v.replace("%", "%25").replace("|", "%7C") for v in values)
    with reach.gateway() as api:
        told = api.call("GET", f"/v1/features/top/{segment(feature)}/{segment(joined)}")
    rows = [(n, i["item_id"], i["score"], i["numerator"], i["denominator"]) for n, i in enumerate(told["items"], 1)]
    columns = ("", "item", "score", "count", "of")
    show(told, rows, columns, as_json=as_json, none=f"no list of {feature} for {joined}")
    if not as_json and rows:
        hint(f"as of {when(told['event_time'])}")


@features.command("list")
def list_features(as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """List the definitions in force."""
    folder = reach.definitions() / "features"
    try:
        found = load_features(folder)
    except DefinitionError as error:
        raise CommandError(str(error)) from error
    items = [
        {"feature": f.name, "definition": f.definition, "kind": _kind(f.shape), "window_ms": f.window_ms, "every_ms": f.every_ms}
        for f in found
    ]  # fmt: skip
    rows = [
        (i["feature"], i["definition"], i["kind"], f"{f.window_ms / 1000:g} s", f"{f.every_ms / 1000:g} s")
        for i, f in zip(items, found, strict=True)
    ]
    version = feature_set_version(found)
    listed = {"feature_set_version": version, "items": items, "next": None}
    show(listed, rows, ("feature", "definition", "kind", "window", "every"), as_json=as_json)
    if not as_json:
        hint(f"feature set {version}, of {folder}")


def _kind(shape: object) -> str:
    if isinstance(shape, Top):
        return f"top {shape.k} by {'rate' if shape.by_rate else 'count'}"
    return "sequence"
