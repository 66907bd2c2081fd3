"""When the shipped flow trains a base, by the rules as the scheduler goes through them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from headrace_control_plane.rules import rule as rules
from headrace_control_plane.rules.conditions import Happened
from headrace_core.workflow import compile_file
from headrace_core.workflow.templates import fill

FLOW: Final = Path(__file__).resolve().parents[3] / "definitions" / "workflows" / "realtime_recommender.py"
MINUTE: Final = 60_000
HOUR, DAY = 60, 1_440

Outcome = tuple[str, str, str]
FAILED: Final = ("realtime_recommender.train_base", "realtime_recommender.train_base.1", "TASK_FAILED")
REJECTED: Final = ("ctr_base", "1", "MODEL_REJECTED")
VALIDATED: Final = ("ctr_base", "1", "MODEL_VALIDATED")


def starts(minutes: int, outcome: Callable[[int], Outcome]) -> Iterator[tuple[int, list[str]]]:
    """The minutes, and the commands, of the bases that are started, of which the nth ends as `outcome` says.

    A mark is told every minute, and a base takes half of one.
    """
    (document,) = compile_file(FLOW)
    mine = {r["rule"]: r for r in document["rules"] if r["task"] == "train_base"}
    states = {name: rules.begin(rule, 0) for name, rule in mine.items()}
    offset = n = 0

    def see(time: int, key: str, value: str, kind: str) -> bool:
        nonlocal offset
        offset += 1
        event, fired = Happened(offset, time, key, value, kind, "default", ""), []
        for name, rule in mine.items():
            states[name], one = rules.see(rule, states[name], event)
            fired += [one] if one else []
        assert all(one.events[-1].offset == offset for one in fired)
        return bool(fired)

    for minute in range(minutes):
        if see(minute * MINUTE, "samples", str(minute * MINUTE), "JOINED_UNTIL"):
            mark = {"offset": offset, "context": {"to": minute * MINUTE}}
            yield minute, fill(document["tasks"]["train_base"]["run"], mark)
            see(minute * MINUTE + MINUTE // 2, *outcome(n))
            n += 1


def started(minutes: int, *outcomes: Outcome) -> list[int]:
    """The minutes of the starts; the last outcome is that of all further bases, too."""
    return [minute for minute, _ in starts(minutes, lambda n: outcomes[min(n, len(outcomes) - 1)])]


def test_good_base_is_made_once_a_day() -> None:
    assert started(2 * DAY + 1, VALIDATED) == [0, DAY, 2 * DAY]


@pytest.mark.parametrize(("outcome", "pause"), [(FAILED, 10), (REJECTED, HOUR)])
def test_base_that_came_to_nothing_is_tried_again_and_again(outcome: Outcome, pause: int) -> None:
    assert started(4 * pause + 1, outcome) == [n * pause for n in range(5)]


def test_base_that_succeeds_at_last_is_not_made_again_until_the_next_day() -> None:
    assert started(DAY + 1, FAILED, FAILED, REJECTED, VALIDATED) == [0, 10, 20, 20 + HOUR, DAY]


def test_each_base_learns_until_the_mark_that_starts_it() -> None:
    commands = [command for _, command in starts(21, lambda _: FAILED)]

    assert [command[-2:] for command in commands] == [["--until", str(n * 10 * MINUTE)] for n in range(3)]
