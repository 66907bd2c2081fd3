import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from headrace_core.workflow import (
    BatchTask,
    StreamTask,
    Workflow,
    WorkflowError,
    compile_file,
    event,
    sequence,
    validate,
)
from headrace_core.workflow.durations import milliseconds
from headrace_core.workflow.templates import TemplateError, fill

ROOT = Path(__file__).resolve().parents[3]
EVENT = {
    "offset": 7,
    "key": "ctr",
    "value": "3",
    "type": "T",
    "namespace": "default",
    "sender": "s",
    "context": {"to": 12},
}


def a_document(**rule: Any) -> dict[str, Any]:
    with Workflow("shop") as flow:
        task = BatchTask("train", run="train --model {event.key}")
        task.start_on(event("a"))
    document = deepcopy(flow.compile())
    document["rules"][0] |= rule
    return document


def test_shipped_flow_closes_the_loop() -> None:
    (document,) = compile_file(ROOT / "definitions" / "workflows" / "realtime_recommender.py")

    single = [rule for rule in document["rules"] if rule["when"]["kind"] == "event"]
    told = {(rule["when"]["key"], rule["when"]["type"], rule["action"], rule["task"]) for rule in single}
    assert told == {
        ("samples", "JOINED_UNTIL", "start", "train_base"),
        ("ctr_base", "MODEL_GENERATED", "start", "validate_base"),
        ("ctr_base", "MODEL_VALIDATED", "restart", "train_incremental"),
        ("ctr", "MODEL_GENERATED", "start", "validate"),
        ("ctr", "MODEL_VALIDATED", "start", "deploy"),
    }
    assert document["tasks"]["deploy"]["run"] == ["headrace-deploy", "--model", "ctr", "--version", "{event.value}"]
    assert {document["tasks"][name]["service"] for name in ("validate_base", "validate", "deploy")} == {
        "model-validator"
    }


def test_documents_are_json_and_the_same_each_time() -> None:
    file = ROOT / "definitions" / "workflows" / "realtime_recommender.py"

    first, second = compile_file(file), compile_file(file)

    assert json.loads(json.dumps(first)) == second


def a_flow_with_a_parameter(folder: Path, parameters: str = "") -> Path:
    """A file that starts a task after `marks` events, 1 if nothing else is told."""
    file = folder / "flow.py"
    file.write_text(
        "from headrace_core.workflow import *\n"
        "with Workflow('w') as flow:\n"
        "    BatchTask('t', run='true').start_on(count(event('a'), parameter('marks', 1)))\n",
        encoding="utf-8",
    )
    if parameters:
        (folder / "flow.parameters.yaml").write_text(parameters, encoding="utf-8")
    return file


def test_parameter_is_its_default_unless_the_file_beside_the_flow_tells(tmp_path: Path) -> None:
    (without,) = compile_file(a_flow_with_a_parameter(tmp_path))
    (told,) = compile_file(a_flow_with_a_parameter(tmp_path, "marks: 14\n"))

    assert without["rules"][0]["when"] == {"kind": "event", "key": "a"}
    assert told["rules"][0]["when"] == {"kind": "count", "of": [{"kind": "event", "key": "a"}], "n": 14}


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ("marks: many\n", "marks is 'many': want one like 1"),
        ("mraks: 14\n", "has no parameter mraks"),
        ("- 14\n", "want names with values"),
        ("marks: [\n", "flow.parameters.yaml"),
    ],
)
def test_wrong_parameter_is_refused(tmp_path: Path, parameters: str, fault: str) -> None:
    with pytest.raises(WorkflowError, match=fault):
        compile_file(a_flow_with_a_parameter(tmp_path, parameters))


def test_rules_without_a_name_are_numbered() -> None:
    with Workflow("w") as flow:
        task = StreamTask("t", service="s")
        task.start_on(event("a"))
        task.start_on(event("b"))
        task.restart_on(event("c"))

    assert [rule["rule"] for rule in flow.compile()["rules"]] == ["t.start", "t.start.2", "t.restart"]


def test_status_of_a_task_is_an_event_of_the_workflow() -> None:
    with Workflow("w") as flow:
        one = BatchTask("one", run="true")
        two = BatchTask("two", run="true")
        two.start_on(one.succeeded())

    assert flow.compile()["rules"][0]["when"] == {"kind": "event", "key": "w.one", "type": "TASK_SUCCEEDED"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "nobody"}, "there is no task nobody"),
        ({"action": "explode"}, "explode"),
        ({"when": {"kind": "event"}}, "rules.0.when"),
        ({"when": {"kind": "event", "key": "a", "matches": "("}}, "matches"),
        ({"when": {"kind": "event", "key": "a", "value": {"at": "25:00", "timezone": "UTC"}}}, "rules.0.when"),
        ({"when": {"kind": "event", "key": "a", "value": {"at": "10:00", "timezone": "Mars"}}}, "no time zone Mars"),
        ({"when": {"kind": "sequence", "of": []}}, "rules.0.when"),
        ({"cron": "0 4 * * *", "timezone": "UTC"}, "rules.0"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_rule_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        validate(a_document(**change))


def test_clock_can_not_start_a_command_that_takes_a_field_of_an_event() -> None:
    with Workflow("w") as flow:
        BatchTask("t", run="train {event.value}").start_at(every="1h")

    with pytest.raises(WorkflowError, match="a clock gives none"):
        flow.compile()


@pytest.mark.parametrize("cron", ["0 4 * *", "61 * * * *", "daily", "0 4 * * * *"])
def test_wrong_cron_line_is_refused(cron: str) -> None:
    with Workflow("w") as flow:
        BatchTask("t", run="true").start_at(cron=cron)

    with pytest.raises(WorkflowError, match="cron"):
        flow.compile()


def test_unknown_field_of_an_event_is_refused_when_compiled() -> None:
    with Workflow("w") as flow:
        BatchTask("t", run="train {event.vlaue}")

    with pytest.raises(WorkflowError, match="no field of an event"):
        flow.compile()


def test_file_that_fails_is_told_as_such(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n", encoding="utf-8")

    with pytest.raises(WorkflowError, match="ZeroDivisionError"):
        compile_file(file)


def test_fields_stay_inside_their_argument() -> None:
    odd = EVENT | {"value": "3; rm -rf / --model x"}

    assert fill(["validate", "--version", "{event.value}", "{event.key}:{event.context[to]}"], odd) == [
        "validate", "--version", "3; rm -rf / --model x", "ctr:12",
    ]  # fmt: skip


def test_fields_of_a_field_are_not_filled_again() -> None:
    assert fill(["{event.value}"], EVENT | {"value": "{event.key}"}) == ["{event.key}"]


@pytest.mark.parametrize("event_", [EVENT, None])
def test_missing_field_is_an_error(event_: dict[str, Any] | None) -> None:
    with pytest.raises(TemplateError):
        fill(["{event.context[from]}"], event_)


@pytest.mark.parametrize(
    ("text", "ms"), [("1d", 86_400_000), ("12h", 43_200_000), ("30m", 1_800_000), ("10s", 10_000), ("5ms", 5)]
)
def test_durations(text: str, ms: int) -> None:
    assert milliseconds(text) == ms


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "0s", "1 h", "1w"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        sequence(event("a"), within=text)
