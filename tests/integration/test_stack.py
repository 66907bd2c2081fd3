"""The embedded stack, started and ended as a person does it, and through what may go wrong."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from headrace_core.workflow import BatchTask, Workflow

from tests.integration.stack_cli import Cli, answers, running, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

#: Enough to see a stack work; the other services are started by the tests of the platform.
SOME = ("--only", "gateway", "--only", "sample-joiner")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A stack below a folder that only its user may enter."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    yield from running(Cli(closed / "home"), *SOME, "--workers", "sample-joiner=2")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A home in which nothing runs yet; whatever a test starts there is ended."""
    cli = Cli(tmp_path / "home")
    yield cli
    cli.run("down")
    assert cli.processes() == []


def test_stack_file_tells_every_address_and_the_services_own_pids(up: Cli) -> None:
    stack = up.stack()

    assert {"gateway", "kafka", "postgres", "redis", "lake", "models", "processes"} <= set(stack)
    told = {(p["service"], p["replica"]): psutil.Process(p["pid"]) for p in stack["processes"]}
    assert set(told) == {
        ("kafka", 0), ("postgres", 0), ("valkey", 0), ("gateway", 0), ("sample-joiner", 0), ("sample-joiner", 1)
    }  # fmt: skip
    assert [p.name() for p in (told["kafka", 0], told["postgres", 0])] == ["java", "postgres"]
    assert told["valkey", 0].name().startswith("valkey")
    assert told["gateway", 0].cmdline()[-2:] == ["-m", "headrace_gateway"]
    assert told["sample-joiner", 1].cmdline()[-2:] == ["-m", "headrace_sample_joiner"]


def test_every_service_answers_where_the_stack_file_says(up: Cli) -> None:
    stack = up.stack()

    statuses = [
        answers(f"{p['metrics']}{path}")
        for p in stack["processes"]
        if "metrics" in p
        for path in ("/healthz", "/readyz", "/metrics")
    ]

    assert statuses == [200] * 9
    assert answers(f"{stack['gateway']}/healthz") == 200


def test_children_keep_none_of_the_callers_streams(up: Cli) -> None:
    for process in up.processes():
        streams = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert all(s == "/dev/null" or s.startswith(str(up.home / "logs")) for s in streams[1:]), (process, streams)
        assert streams[0] == "/dev/null", (process, streams)


@pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql (Debian: postgresql-client)")
def test_dsn_works_with_psql_and_asks_no_password(up: Cli) -> None:
    done = subprocess.run(
        ["psql", "--no-password", "-Atc", "SELECT count(*) FROM samples.accounting", up.stack()["postgres"]],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().isdigit()


def test_second_up_is_quick_and_tells_the_same(up: Cli) -> None:
    started = time.monotonic()

    again = up.up()

    assert again == up.stack()
    assert time.monotonic() - started < 5


def test_up_with_other_wishes_is_refused_and_changes_nothing(up: Cli) -> None:
    before = up.stack()

    done = up.run("up", "--workers", "sample-joiner=3")

    assert done.returncode == 3
    assert "headrace down" in done.stderr
    assert "sample-joiner=2" in done.stderr
    assert up.stack() == before


def test_status_is_ready_and_logs_are_shown(up: Cli) -> None:
    assert set(up.states().values()) == {"ready"}
    assert up.run("status").stdout.count("sample-joiner") == 2
    assert "listening" in up.run("logs", "gateway").stdout


@pytest.mark.parametrize(
    ("service", "replica"), [("gateway", 0), ("sample-joiner", 1), ("valkey", 0), ("postgres", 0), ("kafka", 0)]
)
def test_killed_part_comes_back_and_the_stack_file_follows(up: Cli, service: str, replica: int) -> None:
    before = up.pid(service, replica)

    os.kill(before, signal.SIGKILL)

    wait_until(lambda: up.pid(service, replica) != before, f"another pid of {service} in stack.json", 10)
    wait_until(lambda: set(up.states().values()) == {"ready"}, "readiness of all parts")
    assert psutil.Process(up.pid(service, replica)).is_running()


def test_two_stacks_run_side_by_side(up: Cli, cli: Cli) -> None:
    other = cli.up("--only-stores")

    mine = up.stack()
    assert not {mine[k] for k in ("kafka", "postgres", "redis")} & {other[k] for k in ("kafka", "postgres", "redis")}
    with psycopg.connect(other["postgres"]) as theirs, psycopg.connect(mine["postgres"]) as ours:
        question = "SELECT system_identifier FROM pg_control_system()"
        assert theirs.execute(question).fetchone() != ours.execute(question).fetchone()
    assert set(up.states().values()) == {"ready"}


def test_two_ups_at_once_start_one_stack(cli: Cli) -> None:
    starts = [cli.start("up", "--only-stores") for _ in range(2)]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in starts]

    assert [process.returncode for process in starts] == [0, 0]
    assert told[0] == told[1] == cli.stack()
    assert len([p for p in cli.processes() if "headrace_stack.keeper" in p.cmdline()]) == 1


def test_down_ends_everything_and_ports_and_data_stay(cli: Cli) -> None:
    first = cli.up("--only-stores")
    with psycopg.connect(first["postgres"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")

    done = cli.run("down")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cli.processes() == []
    assert not (cli.home / "stack.json").exists()
    second = cli.up("--only-stores")
    assert {k: second[k] for k in ("kafka", "postgres", "redis")} == {
        k: first[k] for k in ("kafka", "postgres", "redis")
    }
    with psycopg.connect(second["postgres"]) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_down_ends_the_runs_of_batch_tasks(cli: Cli, tmp_path: Path) -> None:
    control = cli.up("--only", "control-plane")["control"]
    mark = tmp_path / "runs"
    with Workflow("waits") as flow:
        BatchTask("wait", run=shlex.join(["sh", "-c", f"touch {mark}; exec sleep 600"]))
    httpx.post(f"{control}/api/v1/workflows", json=flow.compile()).raise_for_status()
    httpx.post(f"{control}/api/v1/workflows/waits/tasks/wait/start").raise_for_status()
    wait_until(mark.exists, "the task's work", 60)
    (run,) = [p for p in psutil.process_iter() if "waits.wait.1" in p.cmdline()]
    (command,) = run.children()

    done = cli.run("down")

    assert done.returncode == 0, done.stderr
    assert not run.is_running()
    assert not command.is_running()


def test_down_without_a_stack_is_fine(cli: Cli) -> None:
    assert cli.run("down").returncode == 0
    assert not cli.home.exists()


def test_down_ends_everything_when_the_keeper_was_killed(cli: Cli) -> None:
    cli.up("--only-stores")
    cli.keeper().kill()
    cli.keeper().wait(10)
    left = cli.processes()

    done = cli.run("down")

    assert len(left) > 3
    assert done.returncode == 0, done.stderr
    assert cli.processes() == []


@pytest.mark.long
def test_up_after_the_keeper_was_killed_starts_anew(cli: Cli) -> None:
    cli.up("--only-stores")
    old = {p.pid for p in cli.processes()}
    cli.keeper().kill()
    cli.keeper().wait(10)

    cli.up("--only-stores")

    assert set(cli.states().values()) == {"ready"}
    assert not old & {p.pid for p in cli.processes()}


@pytest.mark.parametrize("until", ["pids.json", "data/postgres", "logs/valkey.log", "logs/gateway-0.log"])
def test_interrupted_up_leaves_nothing_running(cli: Cli, until: str) -> None:
    process = cli.start("up", "--only", "gateway")
    wait_until((cli.home / until).exists, f"{until} of a start", 30)

    process.send_signal(signal.SIGINT)

    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert "Traceback" not in errors
    assert cli.processes() == []


def test_up_after_a_killed_up_works(cli: Cli) -> None:
    process = cli.start("up", "--only-stores")
    wait_until((cli.home / "logs" / "valkey.log").exists, "a start of Valkey", 30)
    process.kill()
    process.communicate(timeout=10)

    cli.up("--only-stores")

    assert set(cli.states().values()) == {"ready"}
    assert len([p for p in cli.processes() if "headrace_stack.keeper" in p.cmdline()]) == 1


def test_missing_java_is_told_in_one_line(cli: Cli) -> None:
    done = cli.run("up", PATH="/nonexistent", JAVA_HOME="")

    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "headrace: Java is missing: install a JRE 17 or newer (Debian: apt-get install default-jre-headless)"
    ]
    assert cli.processes() == []


def test_taken_port_is_told_in_one_line(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        done = cli.run("up", HEADRACE_PORT_GATEWAY=str(port))

    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"headrace: port {port} for gateway-0 is taken: free it, or unset HEADRACE_PORT_GATEWAY"
    ]
    assert cli.processes() == []


def test_asked_port_is_used(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    told = cli.up("--only-stores", HEADRACE_PORT_POSTGRES=str(port))

    assert told["postgres"] == f"postgresql://headrace@127.0.0.1:{port}/headrace"


def test_full_disk_is_told_in_one_line_and_nothing_is_made(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        cli = Cli(small / "home")

        done = cli.run("up")

        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
        assert "MiB free, the stack needs 512 MiB" in done.stderr
        assert cli.processes() == []
        assert sorted(p.name for p in small.rglob("*")) == ["home", "lock"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_failing_service_is_told_with_its_last_log_lines_and_nothing_is_left(cli: Cli) -> None:
    done = cli.run("up", *SOME, HEADRACE_ATTRIBUTION_WINDOW_MS="5")

    assert done.returncode == 3
    assert "sample-joiner-0 keeps ending" in done.stderr
    assert "attribution_window_ms" in done.stderr
    assert cli.processes() == []
    assert not (cli.home / "stack.json").exists()


def test_failing_store_is_told_with_its_last_log_lines_and_nothing_is_left(cli: Cli) -> None:
    cli.up("--only-stores")
    cli.run("down")
    (cli.home / "data" / "postgres" / "PG_VERSION").write_text("11\n")

    done = cli.run("up", "--only-stores")

    assert done.returncode == 3
    assert "postgres keeps ending" in done.stderr
    assert "PostgreSQL version 11" in done.stderr
    assert cli.processes() == []


@pytest.mark.long
def test_long_home_works(tmp_path: Path) -> None:
    cli = Cli(tmp_path / ("long-" * 20) / "home")
    try:
        cli.up("--only-stores")

        assert set(cli.states().values()) == {"ready"}
    finally:
        cli.run("down")
    assert cli.processes() == []
