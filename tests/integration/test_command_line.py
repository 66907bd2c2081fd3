"""Every command of `headrace` that asks a running platform: with good input, with bad input, and with nothing to ask."""

import asyncio
import csv
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from headrace_core.runtime.kafka_clients import idempotent_producer
from headrace_core.settings import KafkaSettings
from headrace_stack.__main__ import app
from typer.testing import CliRunner

from tests.integration.stack_cli import Cli, running, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

SERVICES = ("gateway", "feature-worker", "sample-joiner", "control-plane")
WINDOW_MS = "2000"
BEHAVIOR_EVENTS = "behavior-events.v1"
FLOW = """
from headrace_core.workflow import BatchTask, Workflow, event

with Workflow("tested") as flow:
    greet = BatchTask("greet", run="echo {event.value}")
    greet.start_on(event("go", type="NOW"))
"""


@dataclass
class Done:
    """What a command left."""

    code: int
    output: str
    errors: str

    @property
    def told(self) -> Any:
        return json.loads(self.output)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.output.splitlines()]


@dataclass
class Platform:
    """A running stack with something of everything in it."""

    cli: Cli
    request_id: str = ""
    flow: Path = Path()

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Done:
        """Run a command in this process."""
        return invoke(*arguments, stdin=stdin, HEADRACE_HOME=str(self.cli.home), **environment)

    def good(self, *arguments: str, stdin: str | None = None) -> Done:
        done = self.run(*arguments, stdin=stdin)
        assert done.code == 0, done.errors
        assert "Traceback" not in done.errors
        return done


def invoke(*arguments: str, stdin: str | None = None, **environment: str) -> Done:
    done = CliRunner().invoke(app, arguments, input=stdin, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def one_line(done: Done) -> str:
    """The only line of stderr: an error is told in one."""
    lines = done.errors.splitlines()
    assert len(lines) == 1, done.errors
    assert lines[0].startswith("headrace: ")
    return lines[0]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("cli")
    only = [word for service in SERVICES for word in ("--only", service)]
    for cli in running(Cli(folder / "home"), "--profile", "demo", *only, HEADRACE_ATTRIBUTION_WINDOW_MS=WINDOW_MS):
        platform = Platform(cli)
        seed(platform, folder)
        yield platform


def seed(platform: Platform, folder: Path) -> None:
    """Users, items, a click, a sample, a model with a history, a workflow, a dead letter."""
    stack = platform.cli.stack()
    with httpx.Client(base_url=stack["gateway"], timeout=20) as http:
        http.put("/v1/users/u1", json={"country": "China", "gender": "male", "city": "Shanghai"}).raise_for_status()
        for n in (1, 2, 3):
            http.put(f"/v1/items/ad{n}", json={"item_type": "ad", "category": "sport"}).raise_for_status()
    wait_until(lambda: len(platform.good("recommend", "u1", "--page", "100", "--json").told["items"]) == 3, "three ads")
    platform.request_id = platform.good("recommend", "u1", "--page", "100", "--json").told["request_id"]
    for action in ("impression", "click"):
        platform.good("send", *look("u1", "ad1", action, platform.request_id))
    register_models(stack["control"])
    platform.flow = folder / "flow.py"
    platform.flow.write_text(FLOW)
    platform.good("workflows", "apply", str(platform.flow))
    asyncio.run(poison(stack["kafka"]))
    wait_until(lambda: bool(platform.good("samples", "look", "--json").told["items"]), "a sample")


def look(user: str, item: str, action: str, request_id: str) -> list[str]:
    """Options of an event."""
    return [
        "--user",
        user,
        "--item",
        item,
        "--action",
        action,
        "--item-type",
        "ad",
        "--page",
        "100",
        "--request",
        request_id,
    ]


def register_models(control: str) -> None:
    with httpx.Client(base_url=f"{control}/api/v1", timeout=20) as http:

        def post(path: str, **body: Any) -> None:
            http.post(path, json=body).raise_for_status()

        def register(model: str, version: int, parent: dict[str, Any] | None) -> None:
            post(f"/models/{model}/versions:reserve")
            manifest = {"samples": {"count": 100 * version, "positives": 10, "to": 1_700_000_000_000}}
            post(
                f"/models/{model}/versions", version=version, artifact=f"file:///{model}/{version}", parent=parent,
                manifest=manifest, metrics={"logloss": 0.4 - version / 100, "auc": 0.7},
            )  # fmt: skip

        register("ctr_base", 1, None)
        post("/models/ctr_base/versions/1/stage", stage="VALIDATED", by="validator", why="1 checks hold")
        for version in range(1, 7):
            register(
                "ctr",
                version,
                {"model": "ctr_base", "version": 1} if version == 1 else {"model": "ctr", "version": version - 1},
            )
        findings = [{"check": "auc", "passed": True, "value": 0.7, "threshold": "≥ 0.5"}]
        post(
            "/models/ctr/versions/1/stage",
            stage="VALIDATED",
            by="validator",
            why="1 checks hold",
            details={"findings": findings},
        )
        post("/models/ctr/versions/1/stage", stage="DEPLOYED", by="deployer", why="the first to serve")
        post("/models/ctr/versions/2/stage", stage="REJECTED", by="validator", why="logloss is 0.9, ≤ 0.8 is wanted")
        for version, value in ((1, 0.41), (2, 0.92)):
            post(
                f"/models/ctr/versions/{version}/metrics",
                items=[{"name": "held_out_logloss", "value": value, "time": 1}],
            )


async def poison(kafka: str) -> None:
    """A message that no consumer can decode."""
    producer = idempotent_producer(KafkaSettings(kafka=kafka))
    await producer.start()
    try:
        await (await producer.send(BEHAVIOR_EVENTS, b"\xff\xffnot a protobuf", key=b"u1"))
    finally:
        await producer.stop()


# What a caller of the gateway does


def test_recommend_tells_items_who_scored_and_the_request(platform: Platform) -> None:
    # A version is noted as deployed, and no server runs here.
    done = platform.good("recommend", "u1", "--page", "100", "-n", "2", "--context", "device=phone", "--exclude", "ad3")

    assert "ad1" in done.output
    assert "ad3" not in done.output
    assert "scored by popularity, degraded: model_unavailable" in done.output


def test_rank_orders_the_callers_candidates(platform: Platform) -> None:
    told = platform.good("rank", "u1", "ad2", "ad1", "stranger", "--page", "100", "--json").told

    assert {item["item_id"] for item in told["items"]} == {"ad1", "ad2", "stranger"}
    assert [item["source"] for item in told["items"]] == ["candidates"] * 3


def test_events_are_sent_from_a_file_and_each_fault_is_told_with_its_line(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    good = json.dumps({"user_id": "u9", "action": "view", "item_id": "ad1"})
    file.write_text(f"{good}\n\nnot json\n[1]\n{json.dumps({'user_id': 'u9'})}\n{good}\n")

    done = platform.run("send", str(file))
    told = platform.run("send", str(file), "--json").told

    assert done.code == 1
    assert "accepted 2, rejected 3" in done.output
    assert [line.split(":")[1].strip() for line in done.errors.splitlines()] == ["line 3", "line 4", "line 5"]
    assert (told["accepted"], [fault["line"] for fault in told["rejected"]]) == (2, [3, 4, 5])


def test_more_events_than_a_call_takes_are_sent_from_stdin(platform: Platform) -> None:
    event = {"user_id": "u8", "action": "view", "item_id": "ad1"}

    told = platform.good("send", "-", "--json", stdin=f"{json.dumps(event)}\n" * 1_200).told

    assert (told["accepted"], told["rejected"]) == (1_200, [])


def test_features_of_a_user_an_item_and_a_ranked_list_are_told(platform: Platform) -> None:
    wait_until(lambda: bool(platform.good("features", "user", "u1", "--json").told["items"]), "features of u1")

    user = platform.good("features", "user", "u1", "--feature", "user_last_5_minutes", "--json").told
    entry = user["items"][0]["value"][0]
    definitions = platform.good("features", "list", "--json").told
    top = platform.good("features", "top", "top_ads_by_segment", "China", "male", "100", "--json").told

    assert entry["item_id"] == "ad1"
    assert entry["item_id"] in platform.good("features", "user", "u1").output
    assert top["key"] == "China|male|100"
    assert {d["feature"] for d in definitions["items"]} >= {"user_last_5_minutes", top["feature"]}
    assert platform.good("features", "item", "ad1", "--json").told["entity"] == "items"


# Samples


def test_samples_of_a_request_are_told_as_rows_and_as_changes(platform: Platform) -> None:
    rows = platform.good("samples", "look", "--request", platform.request_id, "--json").told["items"]
    changes = platform.good("samples", platform.request_id).lines
    person = platform.good("samples", "look", "--user", "u1", "--item", "ad1")

    assert [(row["item_id"], row["label"]) for row in rows] == [("ad1", 1)]
    assert set(rows[0]["features"]) == {"user", "context", "item"}
    assert [change["sample"]["label"] for change in changes] == [1]
    assert changes == platform.good("samples", "changes", platform.request_id, "--json").lines
    assert "click" in person.output


def test_followed_samples_are_told_when_they_are_published(platform: Platform) -> None:
    following = platform.cli.start("samples", "follow", "-n", "1", "--json")

    def clicked() -> bool:
        told = platform.good("recommend", "u1", "--page", "100", "--json").told
        for action in ("impression", "click"):
            platform.good("send", *look("u1", told["items"][0]["item_id"], action, told["request_id"]))
        return following.poll() is not None

    wait_until(clicked, "a change that was followed")

    output, errors = following.communicate()
    assert following.returncode == 0, errors
    assert json.loads(output)["operation"] == "OPERATION_INSERT"


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_export_holds_every_sample(platform: Platform, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"samples.{kind}"

    told = platform.good("samples", "export", str(file), "--since", "1h", "--json").told

    read: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "parquet": lambda: pq.read_table(file).to_pylist(),
        "jsonl": lambda: [json.loads(line) for line in file.read_text().splitlines()],
        "csv": lambda: list(csv.DictReader(file.read_text().splitlines())),
    }
    rows = read[kind]()
    assert len(rows) == told["samples"] > 0
    assert platform.request_id in {row["request_id"] for row in rows}
    assert list(tmp_path.iterdir()) == [file]


def test_export_of_a_time_without_samples_is_empty(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "samples.parquet"

    assert "0 samples" in platform.good("samples", "export", str(file), "--until", "2020-01-01").output
    assert pq.read_table(file).num_rows == 0


def test_audit_finds_every_sum_to_hold(platform: Platform) -> None:
    told = platform.good("samples", "audit", "--json").told

    assert told["holds"] is True
    assert sum(row["positive"] for row in told["items"]) >= 1
    assert "every sum holds" in platform.good("samples", "audit").output


# Models


def test_models_are_listed_with_what_serves(platform: Platform) -> None:
    items = platform.good("models", "list", "--json").told

    assert {item["model"]: item["deployed"] for item in items} == {"ctr": {"stable": 1}, "ctr_base": {}}
    assert "1 (stable)" in platform.good("models", "list").output


def test_versions_are_shown_newest_first_and_by_stage(platform: Platform) -> None:
    versions = [item["version"] for item in platform.good("models", "show", "ctr", "--json").told]
    rejected = platform.good("models", "show", "ctr", "--stage", "rejected", "--json").told

    assert versions == sorted(versions, reverse=True)
    assert [item["version"] for item in rejected] == [2]
    assert "logloss is 0.9" in platform.good("models", "show", "ctr").output


def test_a_version_is_shown_with_metrics_checks_and_what_it_stands_on(platform: Platform) -> None:
    done = platform.good("models", "show", "ctr", "1")
    told = platform.good("models", "show", "ctr", "1", "--json").told

    for words in (
        "DEPLOYED",
        "ctr_base 1 (VALIDATED)",
        "held_out_logloss",
        "holds auc 0.7, wanted ≥ 0.5",
        "the first to serve",
    ):
        assert words in done.output
    assert told["recorded"][0]["name"] == "held_out_logloss"


def test_versions_are_compared_metric_by_metric(platform: Platform) -> None:
    items = platform.good("models", "compare", "ctr", "1", "2", "--json").told["items"]

    by_name = {item["metric"]: item["difference"] for item in items}
    assert by_name["held_out_logloss"] == pytest.approx(0.51)
    assert by_name["logloss"] == pytest.approx(-0.01)
    assert "+0.51" in platform.good("models", "compare", "ctr", "1", "2").output


def test_lineage_goes_down_to_the_base(platform: Platform) -> None:
    items = platform.good("models", "lineage", "ctr", "3", "--json").told["items"]

    assert [(item["model"], item["version"]) for item in items] == [("ctr", 3), ("ctr", 2), ("ctr", 1), ("ctr_base", 1)]


def test_a_person_forces_and_forbids_with_a_reason(platform: Platform) -> None:
    forced = platform.good("models", "force", "ctr", "4", "--why", "looked at by hand", "--json").told
    forbidden = platform.good("models", "forbid", "ctr", "4", "--why", "seen again", "--json").told
    rejected = platform.good("models", "forbid", "ctr", "5", "--why", "made of a broken hour", "--json").told
    serving = platform.run("models", "forbid", "ctr", "1", "--why", "no more")

    assert (forced["stage"], forced["history"][-1]["why"]) == ("VALIDATED", "looked at by hand")
    assert (forbidden["stage"], rejected["stage"]) == ("DEPRECATED", "REJECTED")
    assert serving.code == 1
    assert "ctr 1 serves" in one_line(serving)


def test_a_step_that_may_not_follow_is_refused_with_those_that_may(platform: Platform) -> None:
    done = platform.run("models", "stage", "ctr", "6", "DEPLOYED")

    assert done.code == 1
    assert "VALIDATED" in one_line(done)
    assert "ctr 6: VALIDATED" in platform.good("models", "stage", "ctr", "6", "validated").output


# Workflows, and why


def test_a_workflow_is_compiled_applied_listed_and_shown(platform: Platform) -> None:
    compiled = platform.good("workflows", "compile", str(platform.flow)).told
    applied = platform.good("workflows", "apply", str(platform.flow), "--json").told
    listed = {item["workflow"]: item for item in platform.good("workflows", "list", "--json").told}
    shown = platform.good("workflows", "show", "tested")

    assert compiled["workflow"] == "tested"
    assert applied == [{"workflow": "tested", "snapshot": 1}]  # as it was applied before: no other snapshot
    assert set(listed) >= {"tested", "realtime_recommender"}
    for words in ("greet", "echo {event.value}", "event go NOW"):
        assert words in shown.output
    assert platform.good("workflows", "show", "tested", "--json").told["tasks"][0]["task"] == "greet"


def test_a_run_tells_which_event_started_it_and_the_rule_what_it_waits_for(platform: Platform) -> None:
    before = platform.good("why", "tested", "greet.start").output
    offset = platform.good("events", "send", "go", "hello", "--type", "NOW", "--json").told["offset"]

    def ended() -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = platform.good("workflows", "runs", "tested", "--task", "greet", "--json").told
        return [run for run in runs if run["status"] == "SUCCEEDED" and run["cause"]["events"][0]["offset"] == offset]

    wait_until(lambda: bool(ended()), "a run that succeeded")
    run_id = ended()[0]["run_id"]
    run = platform.good("why", run_id)
    rule = platform.good("why", "tested", "greet.start")

    assert "has not fired" in before
    assert "missing: event go NOW" in before
    assert f"was started by greet.start\n  #{offset} go NOW hello\n  command: echo hello" in run.output
    assert f"#{offset} go NOW hello" in rule.output
    assert platform.good("why", run_id, "--json").told["run_id"] == run_id
    assert platform.good("why", "tested", "greet.start", "--json").told["firings"][0]["run_id"] == run_id
    assert "tested greet.start" in platform.good("why", "tested").output
    assert run_id in platform.good("workflows", "runs", "--status", "succeeded").output


def test_a_paused_workflow_says_so_until_it_is_resumed(platform: Platform) -> None:
    assert "paused" in platform.good("workflows", "pause", "tested").output
    assert "the workflow is paused" in platform.good("why", "tested", "greet.start").output
    assert platform.good("workflows", "resume", "tested", "--json").told == {"workflow": "tested", "paused": False}
    assert "paused" not in platform.good("why", "tested", "greet.start").output


def test_a_task_is_started_by_hand_with_the_fields_of_an_event(platform: Platform) -> None:
    offset = platform.good("events", "send", "other", "by hand", "--json").told["offset"]

    told = platform.good("workflows", "start", "tested", "greet", "--event", str(offset), "--json").told

    assert told["effect"] == "started"
    assert "echo by hand" in platform.good("why", told["run_id"]).output


# Events


def test_newest_events_of_a_key_are_told_however_many_came_since(platform: Platform) -> None:
    for n in range(5):
        platform.good("events", "send", "rare", str(n))
    for n in range(30):
        platform.good("events", "send", "frequent", str(n))

    rare = platform.good("events", "--key", "rare", "-n", "2", "--json").lines
    frequent = platform.good("events", "--key", "frequent", "-n", "3", "--json").lines
    both = platform.good("events", "list", "--key", "rare", "--key", "frequent", "-n", "32", "--json").lines

    assert [event["value"] for event in rare] == ["3", "4"]
    assert [event["value"] for event in frequent] == ["27", "28", "29"]
    assert [event["value"] for event in both][:3] == ["3", "4", "0"]
    assert platform.good("events", "--key", "never").output == ""


def test_events_after_an_offset_are_the_oldest_of_them(platform: Platform) -> None:
    assert [event["offset"] for event in platform.good("events", "--after", "1", "-n", "2", "--json").lines] == [2, 3]
    assert platform.good("events", "--after", "0", "-n", "1").output.count("#1 ") == 1


def test_followed_events_are_told_as_they_come(platform: Platform) -> None:
    following = platform.cli.start("events", "--key", "followed", "-n", "1", "-f", "--json")
    assert following.stdout is not None
    try:
        platform.good("events", "send", "followed", "now", "--context", '{"n": 1}')
        event = json.loads(following.stdout.readline())
    finally:
        following.terminate()
        following.communicate()

    assert (event["value"], event["context"]) == ("now", {"n": 1})


# Dead letters


def test_dead_letters_are_listed_with_their_reasons_and_shown_with_their_bytes(platform: Platform) -> None:
    wait_until(lambda: len(platform.good("dlq", "--json").told["items"]) >= 2, "letters of both workers")

    letters = platform.good("dlq", "list", BEHAVIOR_EVENTS, "--json").told["items"]
    place = f"{letters[0]['topic']}/{letters[0]['partition']}/{letters[0]['offset']}"

    assert {letter["consumer"] for letter in letters} == {"feature-worker", "sample-joiner"}
    assert {letter["key"] for letter in letters} == {"u1"}
    assert letters[0]["reason"] in platform.good("dlq").output
    assert "not a protobuf" in platform.good("dlq", "show", place).output
    assert bytes.fromhex(platform.good("dlq", "show", place, "--json").told["raw"]).endswith(b"not a protobuf")
    assert platform.good("dlq", "items.v1").output == ""


# What can't be done


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["recommend"], 2, "Missing argument 'user_id'"),
        (["recommend", "u1", "--context", "phone"], 2, "want KEY=VALUE"),
        (["recommend", "u1", "-n", "0"], 2, "see `headrace recommend --help`"),
        (["recommend", "u1", "--page", "p" * 300], 1, "page_id"),
        (["rank", "u1"], 2, "Missing argument 'ITEM"),
        (["send"], 2, "want a FILE of JSON lines"),
        (["send", "/nowhere.jsonl"], 1, "/nowhere.jsonl"),
        (["send", "x.jsonl", "--user", "u1"], 2, "want a FILE of JSON lines"),
        (["features", "user", "u1", "--feature", "nope"], 1, "`headrace features list`"),
        (["features", "top", "nope", "x"], 1, "there are: "),
        (["features", "of"], 2, "No such command 'of'"),
        (["samples", "nope"], 2, "no request id"),
        (["samples", "look", "--request", "nope"], 2, "no request id"),
        (["samples", "export", "x.txt"], 2, ".parquet, .jsonl, .csv"),
        (["samples", "export", "/no/folder/x.csv"], 2, "there is no folder /no/folder"),
        (["samples", "export", "x.csv", "--since", "yesterday"], 2, "--since yesterday: want 15m"),
        (["models", "show", "nope"], 1, "there are: ctr, ctr_base"),
        (["models", "show", "ctr", "99"], 1, "no version 99 of ctr"),
        (["models", "show", "ctr", "0"], 2, "greater than or equal to 1"),
        (["models", "show", "ctr", "--stage", "nope"], 2, "want one of GENERATED"),
        (["models", "compare", "ctr", "1", "99"], 1, "no version 99 of ctr"),
        (["models", "lineage", "nope", "1"], 1, "no version 1 of nope"),
        (["models", "frozen", "nope"], 1, "no version of nope is deployed"),
        (["models", "frozen", "ctr", "--since", "soon"], 2, "--since soon: want 15m"),
        (["models", "stage", "ctr", "1", "SHINY"], 2, "SHINY is no stage"),
        (["models", "force", "ctr", "3"], 2, "Missing option '--why'"),
        (["workflows", "show", "nope"], 1, "nope"),
        (["workflows", "apply", "/nowhere.py"], 2, "there is no file /nowhere.py"),
        (["workflows", "compile", str(Path(__file__).parents[2] / "Makefile")], 1, "Makefile"),
        (["workflows", "pause", "nope"], 1, "nope"),
        (["workflows", "runs", "--status", "DANCING"], 2, "want one of INIT"),
        (["workflows", "runs", "nope"], 1, "nope"),
        (["workflows", "start", "tested", "nope"], 1, "no task nope"),
        (["why", "nope"], 1, "`headrace workflows list`"),
        (["why", "tested", "nope"], 1, "there are: greet.start"),
        (["why", "nope", "nope"], 1, "nope"),
        (["events", "--after", "-1"], 2, "see `headrace events list --help`"),
        (["events", "send", "k", "v", "--context", "[1]"], 2, "want a JSON object"),
        (["events", "send", "k", "v", "--context", "{"], 2, "no JSON"),
        (["dlq", "nope"], 1, "topics that may: "),
        (["dlq", "show", "items.v1/0/0"], 1, "`headrace dlq` lists them"),
        (["address", "nope"], 2, "gateway, control"),
        (["sql", "SELEC 1"], 1, "syntax error"),
        (["sql", "CREATE TABLE x ()"], 1, "read-only"),
        (["logs", "nope"], 1, "gateway-0"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_told_in_one_line(
    platform: Platform, arguments: list[str], code: int, told: str
) -> None:
    done = platform.run(*arguments)

    assert told in one_line(done)
    assert done.code == code
    assert done.output == ""


#: A good call of every command that asks the platform.
NEEDS = [
    ["status"], ["address", "gateway"], ["sql", "SELECT 1"],
    ["recommend", "u1"], ["rank", "u1", "ad1"], ["send", "--user", "u1", "--action", "view", "--item", "ad1"],
    ["features", "user", "u1"], ["features", "item", "ad1"], ["features", "top", "top_ads_by_segment", "x"],
    ["samples", "look"], ["samples", "changes", str(uuid.UUID(int=1))], ["samples", "follow"], ["samples", "export", "x.csv"],
    ["samples", "audit"],
    ["models", "list"], ["models", "show", "ctr"], ["models", "compare", "ctr", "1", "2"], ["models", "lineage", "ctr", "1"],
    ["models", "frozen", "ctr"], ["models", "stage", "ctr", "1", "DEPLOYED"], ["models", "force", "ctr", "1", "--why", "x"],
    ["models", "forbid", "ctr", "1", "--why", "x"],
    ["workflows", "list"], ["workflows", "show", "tested"], ["workflows", "pause", "tested"], ["workflows", "resume", "tested"],
    ["workflows", "runs"], ["workflows", "start", "tested", "greet"], ["workflows", "stop", "tested", "greet"],
    ["workflows", "restart", "tested", "greet"], ["why", "tested"], ["why", "tested", "greet.start"],
    ["events"], ["events", "-f"], ["events", "send", "k", "v"], ["dlq"], ["dlq", "show", "items.v1/0/0"],
]  # fmt: skip


def named(value: object) -> str:
    return " ".join(value[:3]) if isinstance(value, list) else ""


@pytest.mark.parametrize("arguments", NEEDS, ids=named)
def test_without_a_stack_the_next_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    done = invoke(*arguments, HEADRACE_HOME=str(tmp_path / "home"))

    assert done.code == 3
    assert "start one with `headrace up`" in "\n".join(
        line for line in done.errors.splitlines() if "headrace: " in line
    )
    assert done.output == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [a for a in NEEDS if a[0] not in {"status", "address"}], ids=named)
def test_a_part_that_does_not_answer_is_named_and_the_next_step_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    away = {
        "HEADRACE_GATEWAY": "http://127.0.0.1:9", "HEADRACE_CONTROL": "http://127.0.0.1:9", "HEADRACE_KAFKA": "127.0.0.1:9",
        "HEADRACE_POSTGRES": "postgresql://headrace@127.0.0.1:9/headrace",
    }  # fmt: skip

    done = invoke(*arguments, HEADRACE_HOME=str(tmp_path / "home"), **away)

    assert done.code == 3
    last = done.errors.splitlines()[-1]
    assert last.startswith("headrace: ")
    assert "not answer" in last
    assert "`headrace status`" in last
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_stack_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")

    done = invoke("recommend", "u1", HEADRACE_HOME=str(tmp_path))

    assert done.code == 1
    assert "stack.json is damaged" in one_line(done)


def test_a_stack_without_the_part_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"kafka": "127.0.0.1:9"}))

    done = invoke("models", "list", HEADRACE_HOME=str(tmp_path))

    assert done.code == 3
    assert "runs without the control plane" in one_line(done)


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(platform: Platform) -> None:
    for n in range(3):
        platform.good("events", "send", "page", "x" * 90_000 + str(n))  # more than a pipe holds
    showing = platform.cli.start("events", "--key", "page", "--json")
    assert showing.stdout is not None
    assert showing.stderr is not None

    showing.stdout.read(10)
    showing.stdout.close()
    told = showing.stderr.read()
    showing.stderr.close()

    assert (showing.wait(60), told) == (0, "")


def test_shells_complete_names_that_the_platform_knows(platform: Platform) -> None:
    environment = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": "headrace models show ", "COMP_CWORD": "3"}

    done = platform.cli.run(**environment)
    nowhere = Cli(Path(os.devnull).parent / "none").run(**environment)

    assert done.stdout.split() == ["ctr", "ctr_base"]
    assert (nowhere.stdout.strip(), nowhere.stderr) == ("", "")
