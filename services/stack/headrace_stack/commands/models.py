"""Commands of the model center."""

import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from headrace_stack.commands import reach
from headrace_stack.commands.reach import Api, segment
from headrace_stack.commands.terminal import (
    EXIT_AWAY,
    AwayError,
    CommandError,
    Json,
    Limit,
    WrongUsageError,
    hint,
    moment,
    out,
    show,
    show_facts,
    show_json,
    state,
    tell,
    when,
)

_STAGES: Final = ("GENERATED", "VALIDATED", "REJECTED", "DEPLOYED", "DEPRECATED", "DELETED")
_MOST_PARENTS: Final = 50
_FIGURES: Final = {"logloss": "log loss", "auc": "AUC", "calibration": "calibration"}
#: What is kept of a comparison with the frozen base.
_BESIDE: Final = (*(f"{side}_{name}" for side in ("live", "frozen") for name in _FIGURES), "gap", "gap_low", "gap_high")
_HEADLINES: Final = ("logloss", "auc", "calibration", "count")

models = typer.Typer(help="Versions of models: stages, metrics, lineage.", no_args_is_help=True)


def _models(incomplete: str) -> list[str]:
    return reach.complete("/models", "model", incomplete)


def _stages(incomplete: str) -> list[str]:
    return [name for name in _STAGES if name.startswith(incomplete.upper())]


Model = Annotated[str, typer.Argument(help="its name, e.g. ctr", autocompletion=_models)]
Version = Annotated[int, typer.Argument(min=1)]
Why = Annotated[str, typer.Option("--why", help="kept in its history")]

Record = Annotated[bool, typer.Option("--record", help="keep the figures with the version; the console draws them")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models, name="models")


def _path(model: str, version: int) -> str:
    return f"/models/{segment(model)}/versions/{version}"


@models.command("list")
def list_models(as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """List models with what is deployed."""
    with reach.control() as api:
        items = api.call("GET", "/models")["items"]
    rows = [
        (m["model"], m["versions"], m["newest"], ", ".join(f"{v} ({t})" for t, v in m["deployed"].items()))
        for m in items
    ]
    show(
        items,
        rows,
        ("model", "versions", "newest", "deployed"),
        as_json=as_json,
        none="no model yet: the trainer makes the first",
    )


@models.command("show")
def show_model(
    model: Model,
    version: Annotated[int | None, typer.Argument(min=1, help="all its versions if not told")] = None,
    stage: Annotated[str | None, typer.Option(help="only versions in this stage", autocompletion=_stages)] = None,
    limit: Limit = 20,
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Show a model's versions, newest first, or one with its metrics, history, checks and lineage."""
    with reach.control() as api:
        if version is not None:
            _show_version(api, model, version, as_json=as_json)
            return
        wanted = {"limit": limit, **({"stage": _stage(stage)} if stage else {})}
        items = api.call("GET", f"/models/{segment(model)}/versions", params=wanted)["items"]
        if not items and not stage:
            _refuse_unknown(api, model)
    rows = [
        (v["version"], state(v["stage"]), _parent(v["parent"]), _metrics(v["metrics"]), when(v["history"][0]["time"]),
         v["history"][-1]["why"])
        for v in items
    ]  # fmt: skip
    show(
        items,
        rows,
        ("version", "stage", "stands on", "metrics", "made", "why"),
        as_json=as_json,
        none="no such version",
    )


def _refuse_unknown(api: Api, model: str) -> None:
    known = [m["model"] for m in api.call("GET", "/models")["items"]]
    if model not in known:
        raise CommandError(f"there is no model {model}; there are: {', '.join(known) or 'none yet'}")


def _show_version(api: Api, model: str, version: int, *, as_json: bool) -> None:
    told = api.call("GET", _path(model, version))
    recorded = api.call("GET", f"{_path(model, version)}/metrics")["items"]
    lineage = [f"{parent['model']} {parent['version']} ({parent['stage']})" for parent in _ancestors(api, told)]
    if as_json:
        show_json(told | {"recorded": recorded})
        return
    samples = told["manifest"].get("samples") or {}
    show_facts({
        "version": f"{told['model']} {told['version']}", "stage": state(told["stage"]),
        "track": told["track"] if told["stage"] == "DEPLOYED" else None, "stands on": " ← ".join(lineage) or None,
        "samples": f"{samples['count']:,}, {samples.get('positives', 0):,} positive" if samples.get("count") else None,
        "to": when(samples["to"]) if samples.get("to") else None,
        "reads": ", ".join(i["name"] for i in told["manifest"].get("inputs") or ()) or None,
        "feature set": told["manifest"].get("feature_set_version"), "artifact": told["artifact"],
    })  # fmt: skip
    metrics = latest(told, recorded)
    tell("")
    show(
        metrics,
        [(name, value) for name, value in metrics.items()],
        ("metric", "value"),
        as_json=False,
        none="no metrics",
    )
    tell("")
    for change in told["history"]:
        line = Text.assemble(when(change["time"]), " ", state(change["stage"]), f" by {change['by']}: {change['why']}")
        out().print(line)
        for found in (change.get("details") or {}).get("findings") or ():
            _tell_finding(found)


def _tell_finding(found: Mapping[str, Any]) -> None:
    mark = Text("  holds ", style="green") if found.get("passed") else Text("  fails ", style="red")
    where = f" of {found['slice']}" if found.get("slice") else ""
    value = found.get("value")
    measured = "" if value is None else f" {value:.5g}" if isinstance(value, float) else f" {value}"
    wanted = f", wanted {found['threshold']}" if found.get("threshold") else ""
    note = f" ({found['note']})" if found.get("note") else ""
    out().print(Text.assemble(mark, f"{found.get('check')}{where}{measured}{wanted}{note}"))


def _ancestors(api: Api, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a version stands on, and so on."""
    for _ in range(_MOST_PARENTS):
        parent = told["parent"]
        if parent is None:
            return
        told = api.call("GET", _path(parent["model"], parent["version"]))
        yield told


def latest(told: Mapping[str, Any], recorded: list[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each metric of a version, those of slices under `name of slice`."""
    found = dict(told["metrics"])
    for item in sorted(recorded, key=lambda i: int(i["time"])):
        found[item["name"] if item["slice"] in {"", "all"} else f"{item['name']} of {item['slice']}"] = item["value"]
    return {name: value for name, value in sorted(found.items()) if value is not None}


@models.command()
def compare(model: Model, first: Version, second: Version, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Compare the metrics of two versions, each as it was measured; see `held_out` for those of the same samples."""
    with reach.control() as api:
        sides = [
            latest(api.call("GET", _path(model, version)), api.call("GET", f"{_path(model, version)}/metrics")["items"])
            for version in (first, second)
        ]
    names = sorted(set(sides[0]) | set(sides[1]))
    items: list[dict[str, Any]] = [
        {"metric": name, "first": a, "second": b, "difference": b - a if a is not None and b is not None else None}
        for name in names
        for a, b in [(sides[0].get(name), sides[1].get(name))]
    ]
    told = {"model": model, "first": first, "second": second, "items": items, "next": None}
    rows = [(i["metric"], i["first"], i["second"], _signed(i["difference"])) for i in items]
    columns = ("metric", f"{model} {first}", f"{model} {second}", "difference")
    show(told, rows, columns, as_json=as_json, none="neither has metrics")


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.4g}"


@models.command()
def lineage(model: Model, version: Version, as_json: Json = False) -> None:  # noqa: FBT002  # a flag
    """Show what a version stands on, down to the version that was trained from nothing."""
    with reach.control() as api:
        told = api.call("GET", _path(model, version))
        chain = [told, *_ancestors(api, told)]
    items = [
        {"model": v["model"], "version": v["version"], "stage": v["stage"], "samples": v["manifest"].get("samples"),
         "made": v["history"][0]["time"], "by": v["history"][0]["by"]}
        for v in chain
    ]  # fmt: skip
    rows = [
        (i["model"], i["version"], state(i["stage"]), (i["samples"] or {}).get("count"), when((i["samples"] or {}).get("to")),
         when(i["made"]), i["by"])
        for i in items
    ]  # fmt: skip
    columns = ("model", "version", "stage", "samples", "learned to", "made", "by")
    show({"items": items, "next": None}, rows, columns, as_json=as_json)


@models.command()
def frozen(
    model: Model,
    version: Annotated[int | None, typer.Argument(min=1, help="what serves if not told")] = None,
    since: Annotated[str, typer.Option("--since", help="requests from then on: 15m (ago), ISO 8601, or ms")] = "15m",
    record: Record = False,  # noqa: FBT002  # a flag
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Score a version beside the base that was the first, frozen, on held-out samples that neither has learned.

    The gap is the base's log loss minus the version's, with its 95 % interval: above zero the version is the better one. With
    --record, too few samples are no failure: there is nothing to keep yet.
    """
    since_ms = moment(since, "--since") or 0
    with reach.control() as api:
        if version is None:
            version = int(api.call("GET", f"/models/{segment(model)}/deployed")["version"])
        told = _compared(model, version, since_ms)
        if told is None:
            if not record:
                raise CommandError(f"too few held-out samples since {since}: `--since 1h` takes more of them")
            hint("too few held-out samples yet: nothing is recorded")
            return
        if record:
            now = int(time.time() * 1000)
            items = [{"name": name, "value": told[name], "time": now} for name in _BESIDE if told.get(name) is not None]
            api.call("POST", f"{_path(model, version)}/metrics", json={"items": items})
    rows = [(words, told[f"live_{name}"], told[f"frozen_{name}"]) for name, words in _FIGURES.items()]
    columns = (f"{told['count']} samples", f"{model} {version}", f"{model}_base {told['base']}, frozen")
    show(told, rows, columns, as_json=as_json)
    if not as_json:
        tell(f"gap {told['gap']:+.4f} ({told['gap_low']:+.4f} to {told['gap_high']:+.4f})")


def _compared(model: str, version: int, since_ms: int) -> dict[str, Any] | None:
    """What the validator's own comparison says; None while there are too few samples."""
    parts = ("postgres", "models", "control", "model_server")
    environment = os.environ | {f"HEADRACE_{part.upper()}": reach.address(part) for part in parts}
    environment["HEADRACE_DEFINITIONS"] = str(reach.definitions())
    command = [str(Path(sys.executable).parent / "headrace-compare"), "--model", model, "--version", str(version),
               "--since", str(since_ms)]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told
    said = [line.removeprefix("headrace-compare: ") for line in done.stderr.splitlines()] or ["it ended without a word"]
    if done.returncode == 1 and "too few" in said[-1]:
        return None
    raise (AwayError if done.returncode == EXIT_AWAY else CommandError)(said[-1])


@models.command("stage")
def move(  # noqa: PLR0913, PLR0917  # the fields of the call
    model: Model,
    version: Version,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help=", ".join(_STAGES), autocompletion=_stages)],
    why: Why = "by hand",
    track: Annotated[str, typer.Option(help="of a deployment")] = "stable",
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Move a version to a stage. It only notes the stage: what serves is moved by the deployer."""
    with reach.control() as api:
        _move(api, (model, version), _stage(stage), why, track=track, as_json=as_json)


@models.command()
def force(
    model: Model,
    version: Version,
    why: Annotated[str, typer.Option("--why", help="kept in its history")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Find a version good by hand, without its validation: the deployer then serves it."""
    with reach.control() as api:
        _move(api, (model, version), "VALIDATED", why, as_json=as_json)


@models.command()
def forbid(
    model: Model,
    version: Version,
    why: Annotated[str, typer.Option("--why", help="kept in its history")],
    as_json: Json = False,  # noqa: FBT002  # a flag
) -> None:
    """Keep a version that does not serve yet from serving: REJECTED before its validation, DEPRECATED after it."""
    with reach.control() as api:
        stage = api.call("GET", _path(model, version))["stage"]
        if stage == "DEPLOYED":
            raise CommandError(
                f"{model} {version} serves: force a better one, e.g. `headrace models force {model} VERSION --why …`"
            )
        _move(api, (model, version), "REJECTED" if stage == "GENERATED" else "DEPRECATED", why, as_json=as_json)


def _move(  # noqa: PLR0913  # the fields of the call
    api: Api, subject: tuple[str, int], stage: str, why: str, *, track: str = "stable", as_json: bool
) -> None:
    body = {"stage": stage, "by": _person(), "why": why, "track": track}
    told = api.call("POST", f"{_path(*subject)}/stage", json=body)
    if as_json:
        show_json(told)
    else:
        tell(f"{told['model']} {told['version']}: {told['stage']}")


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "cli"


def _stage(text: str) -> str:
    if text.upper() not in _STAGES:
        raise WrongUsageError(f"{text} is no stage: want one of {', '.join(_STAGES)}")
    return text.upper()


def _parent(parent: Mapping[str, Any] | None) -> str:
    return f"{parent['model']} {parent['version']}" if parent else ""


def _metrics(metrics: Mapping[str, float | None]) -> str:
    told = {name: value for name in _HEADLINES if (value := metrics.get(name)) is not None}
    return " ".join(f"{name}={value:.4g}" for name, value in told.items())
