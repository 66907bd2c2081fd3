"""Logs replayed through the HTTP API while services and the replay itself are killed: nothing is lost, nothing counts twice."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from headrace_stack.commands.terminal import AwayError
from headrace_stack.layout import Layout, StackError, checkout
from headrace_stack.replay.delay import drawn_delay
from headrace_stack.replay.journal import Journal
from headrace_stack.replay.mapping import Mapping
from headrace_stack.replay.open_bandit import OpenBandit, obtain
from headrace_stack.replay.own_log import OwnLog
from headrace_stack.replay.slate import Log
from headrace_stack.replay.table import columns_of
from headrace_stack.simulate.visitors import Habits
from headrace_stack.simulate.world import LatentWorld
from headrace_stack.simulate.written import write_log
from headrace_stack.stack import Stack

from tests.integration.stack_cli import Cli, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

KILLED: Final = ("sample-joiner-0", "feature-worker-0", "gateway-0")
#: A busy machine must not make the client give up, and the report must see every sample.
SETTLE_S: Final = 150
DEADLINE_S: Final = 120.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What takes events and answers, with a short attribution window."""
    running = Stack(Layout(tmp_path_factory.mktemp("replay") / "home"), "demo", services=_services())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_ATTRIBUTION_WINDOW_MS", "12000")
        patch.setenv("HEADRACE_DEFINITIONS", str(checkout() / "definitions"))
        running.up()
        try:
            yield running
        finally:
            running.down()


def _services() -> tuple[str, ...]:
    return tuple(name.rpartition("-")[0] for name in reversed(KILLED))


@pytest.fixture(scope="module")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 impressions of 16 seconds, 3 a request."""
    file = tmp_path_factory.mktemp("log") / "small.parquet"
    write_log(
        file, LatentWorld(users=100, items=30), Habits(late=0.0), rows=2_000, rate=42.0, seed=4,
        start_ms=1_767_225_600_000,
    )  # fmt: skip
    return file


def own(file: Path) -> OwnLog:
    return OwnLog(file, Mapping.of("", columns_of(file)), drawn_delay(1))


class Replay:
    """`headrace replay` as a process."""

    def __init__(self, stack: Stack, state: Path, *arguments: str) -> None:
        self.state = state
        command = ("replay", *arguments, "--state", str(state), "--settle", str(SETTLE_S), "--json")
        self.process = Cli(stack.layout.home).start(*command)

    def journal(self) -> Journal | None:
        """What was sent so far."""
        return Journal.read(self.state)

    def sent(self) -> int:
        """Slates whose impressions were acknowledged."""
        assert self.process.poll() is None, self.process.communicate()
        journal = self.journal()
        return len(journal.sent) if journal else 0

    def report(self) -> dict[str, Any]:
        """What it ends with."""
        output, errors = self.process.communicate(timeout=1_500)
        assert self.process.returncode == 0, errors
        told: dict[str, Any] = json.loads(output)
        return told


def kill(stack: Stack, name: str) -> None:
    """Kill -9 a part; it is ready again when this returns."""
    before = stack.pid(name)
    os.kill(before, signal.SIGKILL)

    def replaced() -> bool:
        with suppress(StackError):  # between two processes there is none
            return stack.pid(name) != before
        return False

    wait_until(replaced, f"a new process of {name}", DEADLINE_S)
    stack.wait_ready(name)


def clicks_of(log: Log) -> list[dict[str, bool]]:
    """Per slate, which items were clicked."""
    return [{s.item_id: s.click_after_s is not None for s in slate.shown} for slate in log.slates()]


def labels_of_slate(replay: Replay, log: Log, number: int) -> dict[tuple[str, str], bool]:
    """Whether each (request id, item) of a slate was clicked."""
    journal = replay.journal()
    assert journal is not None
    return {(journal.answers[number].request_id, item): clicked for item, clicked in clicks_of(log)[number].items()}


def labels(stack: Stack, replay: Replay, log: Log) -> tuple[dict[tuple[str, str], bool], dict[tuple[str, str], bool]]:
    """Labels of (request id, item): those of the log, and of the samples that are there."""
    journal = replay.journal()
    assert journal is not None
    wanted = {
        (journal.answers[n].request_id, item): clicked
        for n, slate in enumerate(clicks_of(log)) for item, clicked in slate.items()
    }  # fmt: skip
    with psycopg.connect(stack.describe()["postgres"]) as connection:
        rows = connection.execute("SELECT request_id::text, item_id, label <> 0 FROM samples.current").fetchall()
    return wanted, {(request_id, item): label for request_id, item, label in rows if (request_id, item) in wanted}


def assert_counted_once(told: dict[str, Any], log: Log) -> None:
    """What was sent is all of the log, and the platform counted every impression."""
    slates = clicks_of(log)
    accounting = told["accounting"]
    assert told["impressions"] == sum(len(slate) for slate in slates)
    assert told["clicks"] == sum(sum(slate.values()) for slate in slates)
    assert told["bad_rows"]["count"] == told["refused"]["count"] == 0
    assert told["lost"] == 0
    assert told["faults"] == []
    assert accounting["pending"] == 0
    assert accounting["impressions"] == accounting["joined"] + accounting["orphaned"] + accounting["duplicate"]
    assert accounting["impressions"] - accounting["duplicate"] == told["impressions"]


def assert_samples_are_the_log_s(told: dict[str, Any], stack: Stack, replay: Replay, log: Log) -> set[tuple[str, str]]:
    """Every impression is a sample with its label, once, or is known as an orphan; the orphans."""
    wanted, found = labels(stack, replay, log)
    assert found == {key: label for key, label in wanted.items() if key in found}
    orphans = wanted.keys() - found.keys()
    assert told["accounting"]["orphaned"] == len(orphans)
    assert told["positives"] == sum(found.values())
    return orphans


def test_replay_survives_a_kill_of_each_service(stack: Stack, small_log: Path, tmp_path: Path) -> None:
    log = own(small_log)
    slates = len(clicks_of(log))
    replay = Replay(stack, tmp_path / "state", str(small_log), "--speed", "real")

    for n, name in enumerate(KILLED, 1):
        wait_until(lambda n=n: replay.sent() > slates * n // 5, f"{n} fifths sent", DEADLINE_S)  # type: ignore[misc]  # binds n
        kill(stack, name)
    told = replay.report()

    assert_counted_once(told, log)
    assert not assert_samples_are_the_log_s(told, stack, replay, log)


def test_replay_that_was_interrupted_and_killed_goes_on(stack: Stack, small_log: Path, tmp_path: Path) -> None:
    log = own(small_log)
    slates = len(clicks_of(log))
    state = tmp_path / "state"

    for n, number in enumerate((signal.SIGINT, signal.SIGKILL), 1):
        replay = Replay(stack, state, str(small_log), "--speed", "4")
        wait_until(lambda n=n, replay=replay: replay.sent() > slates * n // 3, f"{n} thirds sent", DEADLINE_S)  # type: ignore[misc]  # binds both
        replay.process.send_signal(number)
        replay.process.communicate(timeout=100)
        assert replay.process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        journal = replay.journal()
        assert journal is not None
        on_the_way = journal.answers.keys() - journal.sent
        assert number == signal.SIGKILL or not on_the_way
    replay = Replay(stack, state, str(small_log))
    told = replay.report()

    assert_counted_once(told, log)
    # What was killed on its way may come after its window: then its feature log is gone and it is an orphan, known as such.
    late = {key for n in on_the_way for key in labels_of_slate(replay, log, n)}
    assert assert_samples_are_the_log_s(told, stack, replay, log) <= late


@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_all_of_open_bandit_survives_two_kills_of_each_service(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        log = OpenBandit(obtain(None), drawn_delay(1))
    except AwayError as error:
        pytest.skip(str(error))
    slates = log.rows
    replay = Replay(stack, tmp_path / "state", "open-bandit")

    for n, name in enumerate([*KILLED, *KILLED], 1):
        wait_until(lambda n=n: replay.sent() > slates * n // 8, f"{n} eighths sent", 600)  # type: ignore[misc]  # binds n
        kill(stack, name)
    told = replay.report()

    with capsys.disabled():
        sys.stdout.write(f"\nOpen Bandit: {told['impressions_per_s']} impressions/s; {json.dumps(told)}\n")
    assert (told["impressions"], told["clicks"], told["positives"]) == (60_000, 287, 287)
    assert_counted_once(told, log)
    assert_samples_are_the_log_s(told, stack, replay, log)
    assert {name: e["rows"] for name, e in told["estimates"].items()} == {"as_served": 30_000, "by_model": 0}
