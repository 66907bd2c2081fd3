"""The JSON document of a workflow: what it may say."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jsonschema
from croniter import croniter

from headrace_core.workflow import templates


class WorkflowError(ValueError):
    """A workflow is wrong; the message tells where and what to do."""


@cache
def _validator() -> jsonschema.Draft202012Validator:
    text = files("headrace_core.workflow").joinpath("workflow.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def validate(document: Any) -> None:
    """Refuse what is no workflow.

    Raises:
        WorkflowError: the first fault, by its place.
    """
    fault = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    if fault is not None:
        place = ".".join(str(part) for part in fault.absolute_path) or "document"
        raise WorkflowError(f"{place}: {fault.message}")
    for name, task in document["tasks"].items():
        _told(f"tasks.{name}.run", templates.check, task.get("run", []))
    names = [rule["rule"] for rule in document["rules"]]
    for n, rule in enumerate(document["rules"]):
        place = f"rules.{n} ({rule['rule']})"
        if names.count(rule["rule"]) > 1:
            raise WorkflowError(f"{place}: two rules have this name")
        _check_rule(place, rule, document["tasks"])


def leaves(condition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The event conditions inside a condition, in their order."""
    if condition["kind"] == "event":
        yield condition
    else:
        for inner in condition["of"]:
            yield from leaves(inner)


def last_leaves(condition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those of them whose event can be the one that meets the condition: of a sequence only what its last member looks for."""
    if condition["kind"] == "event":
        yield condition
    else:
        for inner in condition["of"][-1:] if condition["kind"] == "sequence" else condition["of"]:
            yield from last_leaves(inner)


def _check_rule(place: str, rule: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    task = tasks.get(rule["task"])
    if task is None:
        raise WorkflowError(f"{place}: there is no task {rule['task']}")
    if "when" in rule:
        for leaf in leaves(rule["when"]):
            if "matches" in leaf:
                _told(f"{place}.matches", re.compile, leaf["matches"])
            if isinstance(leaf.get("value"), Mapping):
                _told(f"{place}.value", _zone, leaf["value"]["timezone"])
        return
    if "cron" in rule:
        if len(rule["cron"].split()) != 5 or not croniter.is_valid(rule["cron"]):
            raise WorkflowError(f"{place}: {rule['cron']!r} is no cron line of five fields")
        _told(place, _zone, rule["timezone"])
    if templates.needs_event(task.get("run", [])):
        raise WorkflowError(f"{place}: the run of {rule['task']} takes a field of an event, a clock gives none")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name}") from error


def _told(place: str, check: Any, value: Any) -> None:
    try:
        check(value)
    except (ValueError, re.error) as error:
        raise WorkflowError(f"{place}: {error}") from error
