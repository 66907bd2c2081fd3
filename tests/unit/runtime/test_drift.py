"""In catch-up no input of a job leads another by more than the job, or the settings, allow."""

from pathlib import Path

import pytest
from headrace_core.runtime.partition import Partition, Position
from headrace_core.runtime.runner import JobRunner
from headrace_core.runtime.worker import make_runner
from headrace_sample_joiner.__main__ import joiner_job
from headrace_sample_joiner.joiner.operator import BEHAVIOR, LOGS
from headrace_sample_joiner.settings import SampleJoinerSettings

DEFINITIONS = Path(__file__).parents[3] / "definitions"
NOW = 1_790_000_000_000


def a_joiner(window_ms: int, max_drift_ms: int) -> JobRunner:
    settings = SampleJoinerSettings(definitions=DEFINITIONS, attribution_window_ms=window_ms, max_drift_ms=max_drift_ms)
    return make_runner("sample-joiner", joiner_job(settings), settings)


def lead(runner: JobRunner, by_ms: int) -> set[tuple[str, int]]:
    """Inputs to hold back while events lead the logs by so much, and both have more to read."""
    job = runner.job
    partition = Partition(0, job.inputs, job.operator(0), Position(1, 0, {}, {}, None), job.lateness_ms)
    partition.clocks[LOGS].observe(NOW)
    partition.clocks[BEHAVIOR].observe(NOW + by_ms)
    runner.partitions = {0: partition}
    pause, _ = runner.ahead(lambda *_: False)
    return pause


@pytest.mark.parametrize(
    ("window_ms", "max_drift_ms", "most"),
    [(20_000, 60_000, 5_000), (600_000, 60_000, 60_000), (600_000, 1_000, 1_000)],
)
def test_windows_do_not_end_before_the_logs_of_their_impressions_are_read(
    window_ms: int, max_drift_ms: int, most: int
) -> None:
    runner = a_joiner(window_ms, max_drift_ms)
    assert lead(runner, most) == set()
    assert lead(runner, most + 1) == {(BEHAVIOR, 0)}
