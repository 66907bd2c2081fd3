"""Runs: each is done once, whoever is killed; processes are adopted, stopped, retried."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from headrace_core.control.client import ControlClient, ControlError, Run
from headrace_core.workflow import BatchTask, Workflow, all_of, any_of, count, event, sequence

from tests.integration.control.eventually import eventually
from tests.integration.control.flows import upload
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack


def python(code: str) -> str:
    """A command that runs Python code; braces of the code are its own."""
    return shlex.join([sys.executable, "-c", code])


def waiting_for(file: Path) -> str:
    """A command that ends when a file is there."""
    return python(f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.05)\nprint('finished')")


async def started(http: httpx.AsyncClient, name: str, run: str, **options: Any) -> str:
    """Upload a workflow of one task, start it by hand, and give back the run's id."""
    with Workflow(name) as flow:
        BatchTask("t", run=run, **options)
    await upload(http, flow)
    answer = await http.post(f"/workflows/{name}/tasks/t/start")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


async def when(client: ControlClient, run_id: str, *statuses: str) -> Run:
    """The run, when it has come to one of these."""

    async def look() -> Run | None:
        run = await client.run(run_id)
        return run if run.status in statuses else None

    return await eventually(look, f"{run_id} is {' or '.join(statuses)}", 90)


async def kinds(client: ControlClient, key: str) -> list[str]:
    """Types of the events of a key, oldest first."""
    return [one.type for one in (await client.events(keys=[key])).items]


async def process_of(table: Any, run_id: str) -> psutil.Process:
    """The process of a run."""
    return psutil.Process(await table.fetchval("SELECT pid FROM control.runs WHERE run_id = $1", run_id))


async def test_last_json_line_of_a_command_is_its_result(http: httpx.AsyncClient, client: ControlClient) -> None:
    code = (
        "import json, os\nprint(json.dumps(dict(n=1)))\nprint('text')\n"
        "print(json.dumps(dict(run=os.environ['HEADRACE_RUN'], token=bool(os.environ['HEADRACE_RUN_TOKEN']))))\nprint('bye')"
    )

    run_id = await started(http, "result", python(code))

    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.error) == ("SUCCEEDED", "")
    assert run.result == {"run": run_id, "token": True}
    assert await kinds(client, "result.t") == ["TASK_RUNNING", "TASK_SUCCEEDED"]
    assert run.started_at is not None
    assert run.ended_at is not None


@pytest.mark.parametrize(
    ("name", "command", "error"),
    [
        ("code", python("print('because'); raise SystemExit(3)"), "exit code 3: because"),
        ("error", python("import sys; print('{}'); sys.exit('tool: because\\n \\n')"), "exit code 1: tool: because"),
        ("progress", python("import sys; sys.exit('tool: 50 %\\rtool: because')"), "exit code 1: tool: because"),
        ("traceback", python("print('well'); 1 / 0"), "exit code 1: ZeroDivisionError: division by zero"),
        ("signal", python("import os; os.kill(os.getpid(), 9)"), "ended by SIGKILL"),
        ("missing", "no-such-command-anywhere", "No such file"),
    ],
)
async def test_command_that_fails_is_told_with_its_reason(
    http: httpx.AsyncClient, client: ControlClient, name: str, command: str, error: str
) -> None:
    run = await when(client, await started(http, f"fails-{name}", command), "FAILED", "SUCCEEDED")

    assert run.status == "FAILED"
    assert error in run.error


async def test_standard_error_of_a_command_that_succeeds_is_neither_error_nor_result(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    code = "import json, sys\nprint(json.dumps(dict(n=1)))\nprint(json.dumps(dict(level='info')), file=sys.stderr)"

    run = await when(client, await started(http, "chatty", python(code)), "SUCCEEDED", "FAILED")

    assert (run.status, run.result, run.error) == ("SUCCEEDED", {"n": 1}, "")


async def test_output_is_passed_on_whole_however_much_and_long(
    control: ControlPlane, http: httpx.AsyncClient, client: ControlClient
) -> None:
    code = (
        "import os, sys\n"
        "for n in range(3):\n"
        "    os.write(2, b'e' * 3_000_000 + b'\\n')\n"
        "    sys.stdout.write('o' * 3_000_000 + '\\n')\n"
        "    sys.stdout.flush()\n"
        "print('{\"n\": 1}', flush=True)\n"
        "sys.exit('e' * 3_000_000)"
    )

    run_id = await started(http, "loud", python(code))

    run = await when(client, run_id, "FAILED", "SUCCEEDED")
    assert (run.status, run.result) == ("FAILED", {"n": 1})
    assert run.error == ("exit code 1: " + "e" * 2_000)[:2_000]
    log = (control.log_file.parent / "runs" / f"{run_id}.log").read_bytes()
    assert (log.count(b"e"), log.count(b"o")) == (12_000_000, 9_000_000)


async def test_error_is_passed_on_before_its_line_ends(
    control: ControlPlane, http: httpx.AsyncClient, client: ControlClient, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    run_id = await started(http, "halves", f"sh -c 'printf half >&2; while ! test -e {go}; do sleep 0.1; done'")
    log = control.log_file.parent / "runs" / f"{run_id}.log"

    async def there() -> bool:
        return log.exists() and log.read_bytes() == b"half"

    await eventually(there, "half a line")
    go.touch()
    assert (await when(client, run_id, "SUCCEEDED", "FAILED")).status == "SUCCEEDED"


async def test_run_does_not_wait_for_what_its_command_left_behind(
    http: httpx.AsyncClient, client: ControlClient, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    command = shlex.join(["sh", "-c", f"while ! test -e {go}; do sleep 0.1; done > /dev/null & echo left >&2"])

    try:
        run = await when(client, await started(http, "leaves", command), "SUCCEEDED", "FAILED")
    finally:
        go.touch()

    assert run.status == "SUCCEEDED", run


async def test_status_of_the_newest_run_is_a_metric(
    control: ControlPlane, http: httpx.AsyncClient, client: ControlClient, tmp_path: Path
) -> None:
    async def told() -> list[str]:
        async with httpx.AsyncClient() as web:
            page = (await web.get(f"{control.url}/metrics")).text
        return re.findall(r'headrace_task_status{status="(\w+)",task="t",workflow="told"} 1.0', page)

    run_id = await started(http, "told", waiting_for(tmp_path / "go"))
    await eventually(lambda: _is(told, ["RUNNING"]), "it is told that the task runs")
    (tmp_path / "go").touch()
    await when(client, run_id, "SUCCEEDED")

    await eventually(lambda: _is(told, ["SUCCEEDED"]), "it is told that the task has ended")


async def _is(look: Callable[[], Awaitable[list[str]]], wanted: list[str]) -> bool:
    return await look() == wanted


async def test_failed_run_is_tried_again_and_then_fails(http: httpx.AsyncClient, client: ControlClient) -> None:
    run_id = await started(http, "retries", python("raise SystemExit(1)"), retries=2, backoff="50ms")

    run = await when(client, run_id, "FAILED")

    assert run.attempt == 3
    assert await kinds(client, "retries.t") == [
        "TASK_RUNNING", "TASK_RETRYING", "TASK_RUNNING", "TASK_RETRYING", "TASK_RUNNING", "TASK_FAILED",
    ]  # fmt: skip


async def test_run_whose_process_was_killed_is_seen_and_tried_again(
    http: httpx.AsyncClient, client: ControlClient, table: Any, tmp_path: Path
) -> None:
    run_id = await started(http, "vanishes", waiting_for(tmp_path / "go"), retries=1, backoff="50ms")
    await when(client, run_id, "RUNNING")
    runner = await process_of(table, run_id)
    (command,) = await eventually(lambda: _children(runner), "the command runs")

    runner.kill()

    async def second() -> bool:
        return (await client.run(run_id)).attempt == 2 and (await client.run(run_id)).status == "RUNNING"

    await eventually(second, "it is tried again")
    await eventually(lambda: _gone(command), "the command of the first attempt died with its runner")
    (tmp_path / "go").touch()
    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 2)


async def _children(process: psutil.Process) -> list[psutil.Process]:
    return process.children()


async def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_run_outlives_a_control_plane_that_is_killed(
    http: httpx.AsyncClient, client: ControlClient, control: ControlPlane, table: Any, tmp_path: Path
) -> None:
    run_id = await started(http, "adopted", waiting_for(tmp_path / "go"))
    await when(client, run_id, "RUNNING")
    runner = await process_of(table, run_id)

    control.kill()
    (tmp_path / "go").touch()
    await asyncio.to_thread(control.start)

    run = await when(client, run_id, "SUCCEEDED", "FAILED")
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)
    await eventually(lambda: _gone(runner), "its process ends")


async def test_stop_ends_the_command(
    http: httpx.AsyncClient, client: ControlClient, table: Any, tmp_path: Path
) -> None:
    run_id = await started(http, "stops", waiting_for(tmp_path / "never"), retries=3)
    await when(client, run_id, "RUNNING")
    runner = await process_of(table, run_id)

    await http.post("/workflows/stops/tasks/t/stop")

    run = await when(client, run_id, "STOPPED", "FAILED", "RETRYING")
    assert run.status == "STOPPED"
    await eventually(lambda: _gone(runner), "its process ends")


async def test_command_that_ignores_sigterm_is_killed(
    http: httpx.AsyncClient, client: ControlClient, table: Any
) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    run_id = await started(http, "deaf", python(code))
    await when(client, run_id, "RUNNING")
    runner = await process_of(table, run_id)
    (command,) = await eventually(lambda: _children(runner), "the command runs")

    await http.post("/workflows/deaf/tasks/t/stop")

    await when(client, run_id, "STOPPED")
    await eventually(lambda: _gone(command), "the command is gone")


async def test_run_that_takes_too_long_is_ended_and_fails(
    http: httpx.AsyncClient, client: ControlClient, tmp_path: Path
) -> None:
    run_id = await started(http, "slow", waiting_for(tmp_path / "never"), timeout="300ms")

    run = await when(client, run_id, "FAILED", "STOPPED")

    assert (run.status, run.error) == ("FAILED", "took longer than 0.3 s")


async def test_restart_waits_for_the_end_of_the_run_before(
    http: httpx.AsyncClient, client: ControlClient, tmp_path: Path
) -> None:
    run_id = await started(http, "again", waiting_for(tmp_path / "go"))
    await when(client, run_id, "RUNNING")

    answer = await http.post("/workflows/again/tasks/t/restart")

    assert (await when(client, run_id, "STOPPED")).status == "STOPPED"
    (tmp_path / "go").touch()
    assert (await when(client, answer.json()["run_id"], "SUCCEEDED")).attempt == 1


async def test_claim_is_accepted_once(http: httpx.AsyncClient, client: ControlClient) -> None:
    run_id = await started(http, "claims", "work", resident="nobody")

    tokens = await asyncio.gather(*(client.claim(run_id, f"worker {n}") for n in range(20)))

    (token,) = [token for token in tokens if token is not None]
    assert await client.heartbeat(run_id, token) is False
    await client.finish(run_id, token, "SUCCEEDED", result={"n": 1})
    await client.finish(run_id, token, "SUCCEEDED", result={"n": 1})  # its answer may have been lost
    assert (await client.run(run_id)).result == {"n": 1}
    assert await kinds(client, "claims.t") == ["TASK_RUNNING", "TASK_SUCCEEDED"]
    with pytest.raises(ControlError) as over:
        await client.heartbeat(run_id, token)
    assert over.value.status == 409


async def test_same_claim_sent_again_has_the_same_token(http: httpx.AsyncClient) -> None:
    run_id = await started(http, "nonces", "work", resident="nobody")
    body = {"worker": "w", "nonce": "n1"}

    first, again = [(await http.post(f"/runs/{run_id}/claim", json=body)).json() for _ in range(2)]
    other = await http.post(f"/runs/{run_id}/claim", json=body | {"nonce": "n2"})

    assert first == again
    assert other.status_code == 409


async def test_resident_service_is_told_of_its_work_and_finds_it_after_its_own_start(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    run_id = await started(http, "resident", "headrace-validate --model m", resident="some-validator")

    (told,) = (await client.events(keys=["run:some-validator"])).items
    (found,) = await client.runs(service="some-validator", status="STARTING")

    assert (told.type, told.value) == ("RUN_REQUESTED", run_id)
    assert told.context == {"run_id": run_id, "task": "t", "command": ["headrace-validate", "--model", "m"]}
    assert (found.run_id, found.command) == (run_id, ["headrace-validate", "--model", "m"])


async def test_resident_run_that_is_not_heard_of_is_requested_again(
    http: httpx.AsyncClient, make_control: Any, client: ControlClient, control: ControlPlane
) -> None:
    run_id = await started(http, "silent", "work", resident="silent", retries=1, backoff="50ms")
    lost = await client.claim(run_id)
    assert lost is not None
    control.stop()
    strict = make_control(HEADRACE_RUN_LOST_MS="1000")
    await asyncio.to_thread(strict.start)

    async with ControlClient(strict.url, "silent") as again:

        async def twice() -> bool:
            return len((await again.events(keys=["run:silent"])).items) == 2

        await eventually(twice, "it is requested again")
        with pytest.raises(ControlError) as late:
            await again.finish(run_id, lost, "SUCCEEDED")
        assert late.value.status == 409
        token = await again.claim(run_id)
        assert token is not None
        await again.finish(run_id, token, "SUCCEEDED")
        assert (await again.run(run_id)).attempt == 2
    strict.stop()
    await asyncio.to_thread(control.start)


async def test_run_that_takes_a_field_needs_an_event_when_started_by_hand(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    with Workflow("hand") as flow:
        BatchTask("t", run="work {event.value}", resident="nobody").start_on(event("never"))
    await upload(http, flow)
    offset = await client.append("hand-given", "7")

    without = await http.post("/workflows/hand/tasks/t/start")
    given = await http.post("/workflows/hand/tasks/t/start", json={"event": offset})

    assert without.status_code == 422
    assert (await client.run(given.json()["run_id"])).command == ["work", "7"]


async def test_start_by_hand_takes_the_newest_event_that_a_rule_of_the_task_looks_for(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    with Workflow("hand_newest") as flow:
        task = BatchTask("t", run="work {event.value}", resident="nobody")
        task.start_on(count(event("hand-newest", type="MARK"), 100))
    await upload(http, flow)
    for value, kind in (("1", "MARK"), ("2", "MARK"), ("3", "ELSE")):
        await client.append("hand-newest", value, type=kind)

    started_by_hand = await http.post("/workflows/hand_newest/tasks/t/start")

    assert (await client.run(started_by_hand.json()["run_id"])).command == ["work", "2"]


async def test_start_by_hand_takes_no_event_that_only_begins_a_sequence(
    http: httpx.AsyncClient, client: ControlClient
) -> None:
    with Workflow("hand_sequence") as flow:
        task = BatchTask("t", run="work {event.context[to]}", resident="nobody")
        task.start_on(sequence(event("hand-failed"), all_of(event("hand-mark"), any_of(event("hand-other")))))
    await upload(http, flow)
    await client.append("hand-mark", "1", context={"to": 7})
    await client.append("hand-failed", "2")

    started_by_hand = await http.post("/workflows/hand_sequence/tasks/t/start")

    assert started_by_hand.status_code == 202, started_by_hand.text
    assert (await client.run(started_by_hand.json()["run_id"])).command == ["work", "7"]


async def test_control_plane_ends_cleanly_and_leaves_its_runs_alone(
    http: httpx.AsyncClient, client: ControlClient, control: ControlPlane, table: Any, tmp_path: Path
) -> None:
    run_id = await started(http, "left", waiting_for(tmp_path / "go"))
    await when(client, run_id, "RUNNING")
    runner = await process_of(table, run_id)

    code = await asyncio.to_thread(control.stop)

    assert code == 0
    assert runner.is_running()
    await asyncio.to_thread(control.start)
    os.kill(runner.pid, signal.SIGTERM)
    run = await when(client, run_id, "FAILED")
    assert json.loads(json.dumps(run.error)) == "stopped by SIGTERM"
