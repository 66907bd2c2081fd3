from headrace_core.runtime.watermark import InputWatermark

IDLE_AFTER = 1_000


def tick(clock: InputWatermark, monotonic_ms: int, *, caught_up: bool = True, now: int = 1_000_000) -> None:
    clock.tick(caught_up=caught_up, idle_after_ms=IDLE_AFTER, monotonic_ms=monotonic_ms, now=now)


def test_watermark_is_the_highest_time_minus_lateness_and_never_goes_back() -> None:
    clock = InputWatermark(lateness_ms=100)

    clock.observe(1_000)
    clock.observe(500)

    assert clock.value == 900


def test_idle_input_advances_by_the_time_elapsed_and_does_not_jump_to_now() -> None:
    clock = InputWatermark(lateness_ms=100)
    clock.observe(1_000)

    tick(clock, 0)
    tick(clock, IDLE_AFTER)
    tick(clock, IDLE_AFTER + 250)

    assert clock.value == 900 + 250


def test_idle_input_never_passes_now_minus_lateness() -> None:
    clock = InputWatermark(lateness_ms=100)
    clock.observe(1_000)

    for monotonic in (0, IDLE_AFTER, IDLE_AFTER + 5_000):
        tick(clock, monotonic, now=1_300)

    assert clock.value == 1_200


def test_input_that_is_not_caught_up_stands_still() -> None:
    clock = InputWatermark(lateness_ms=100)
    clock.observe(1_000)

    for monotonic in (0, 5_000, 10_000):
        tick(clock, monotonic, caught_up=False)

    assert clock.value == 900


def test_outage_in_the_middle_of_idleness_does_not_count_as_elapsed() -> None:
    clock = InputWatermark(lateness_ms=100)
    clock.observe(1_000)
    tick(clock, 0)
    tick(clock, IDLE_AFTER + 100)

    tick(clock, 50_000, caught_up=False)
    tick(clock, 60_000)
    tick(clock, 60_000 + IDLE_AFTER)

    assert clock.value == 900 + 100


def test_idle_input_without_any_event_has_no_watermark() -> None:
    clock = InputWatermark(lateness_ms=100)

    tick(clock, 0)
    tick(clock, 10_000)

    assert clock.value is None
    assert clock.is_idle(IDLE_AFTER, 10_000)
