from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from headrace_control_plane.rules import rule as rules
from headrace_control_plane.rules.conditions import Happened
from headrace_core.workflow import event

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
EVERY = {"rule": "r", "task": "t", "action": "start", "every_ms": MINUTE}
DAILY = {"rule": "r", "task": "t", "action": "start", "cron": "0 4 * * *", "timezone": "Asia/Shanghai"}


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def an_event(offset: int, time: int) -> Happened:
    return Happened(offset, time, "k", "", "", "default", "")


def test_cron_is_read_in_its_time_zone() -> None:
    state = rules.begin(DAILY, ms("2026-11-25T12:00", "Asia/Shanghai"))

    assert datetime.fromtimestamp(state["next"] / 1000, UTC).isoformat() == "2026-11-25T20:00:00+00:00"


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_mark_that_is_on_time_fires_once_under_every_policy(catch_up: str) -> None:
    state = rules.begin(EVERY, 0)

    early, nothing = rules.tick(EVERY, state, MINUTE - 1, catch_up)
    later, fired = rules.tick(EVERY, early, MINUTE + 100, catch_up)
    _, again = rules.tick(EVERY, later, MINUTE + 200, catch_up)

    assert (nothing, [f.time for f in fired], again) == ([], [MINUTE], [])


@pytest.mark.parametrize(
    ("catch_up", "expected"), [("none", []), ("latest", [3 * HOUR]), ("all", [1 * HOUR, 2 * HOUR, 3 * HOUR])]
)
def test_missed_marks_are_caught_up_as_the_task_says(catch_up: str, expected: list[int]) -> None:
    hourly = EVERY | {"every_ms": HOUR}

    state, fired = rules.tick(hourly, rules.begin(hourly, 0), 3 * HOUR + 30 * MINUTE, catch_up)

    assert [f.time for f in fired] == expected
    assert state == {"next": 4 * HOUR}


def test_missed_cron_marks_end_at_the_last_one() -> None:
    state = rules.begin(DAILY, ms("2026-11-25T05:00", "Asia/Shanghai"))
    now = ms("2026-11-28T04:00", "Asia/Shanghai")

    after, latest = rules.tick(DAILY, state, now, "latest")
    _, every = rules.tick(DAILY, state, now, "all")

    assert [f.time for f in latest] == [now]
    assert [f.time for f in every] == [now - 2 * DAY, now - DAY, now]
    assert after == {"next": now + DAY}


def test_long_outage_costs_no_endless_catching_up() -> None:
    secondly = EVERY | {"every_ms": 1_000}

    state, fired = rules.tick(secondly, rules.begin(secondly, 0), 400 * DAY, "all")

    assert len(fired) == rules.MOST
    assert state["next"] > 400 * DAY


def test_local_hour_that_a_zone_skips_does_not_stop_the_clock() -> None:
    spring = {**DAILY, "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    state = rules.begin(spring, ms("2026-03-28T12:00", "Europe/Berlin"))
    marks = []
    for day in range(29, 32):
        state, fired = rules.tick(spring, state, ms(f"2026-03-{day}T23:00", "Europe/Berlin"), "latest")
        marks += [f.time for f in fired]

    assert len(marks) == 3


def test_guarded_rule_rests_after_it_fired() -> None:
    guarded = {"rule": "r", "task": "t", "action": "start", "when": event("k").document, "at_most_every_ms": DAY}
    state, fired = rules.begin(guarded, 0), []
    for offset, time in ((1, 0), (2, HOUR), (3, DAY - 1), (4, DAY), (5, DAY + HOUR)):
        state, one = rules.see(guarded, state, an_event(offset, time))
        fired += [ref.offset for ref in one.events] if one else []

    assert fired == [1, 4]
