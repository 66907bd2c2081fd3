"""Speeds of a replay."""

import pytest
from headrace_stack.commands.terminal import WrongUsageError
from headrace_stack.replay.pace import Pace


def test_log_time_passes_as_fast_as_told() -> None:
    assert Pace.of("real").due_s(61_000, 1_000) == 60
    assert Pace.of("600").due_s(601_000, 1_000) == 1
    assert Pace.of("max").due_s(10**12, 0) == 0


def test_click_keeps_its_distance_in_the_log_s_time() -> None:
    assert Pace.of("real").click_after_ms(90) == 90_000
    assert Pace.of("60").click_after_ms(90) == 1_500
    assert Pace.of("max").click_after_ms(1.5) == 1_500
    assert Pace.of("max").click_after_ms(86_400) == 10_000
    assert Pace.of("1e9").click_after_ms(1) == 1


@pytest.mark.parametrize("text", ["", "0", "-3", "fast", "inf", "nan"])
def test_other_speeds_are_refused(text: str) -> None:
    with pytest.raises(WrongUsageError, match="--speed"):
        Pace.of(text)
