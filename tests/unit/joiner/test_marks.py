"""Until when samples are complete."""

import pytest
from headrace_core.runtime.progress import Progress
from headrace_sample_joiner.marks import next_mark


@pytest.mark.parametrize(
    ("watermark", "last", "mark"),
    [
        (None, 0, None),
        (1_059_999, 0, 990_000),
        (1_060_000, 990_000, 1_000_000),
        (1_060_000, 1_000_000, None),
        (1_000_000, 1_000_000, None),
    ],
)
def test_mark_is_the_newest_whose_windows_have_passed(watermark: int | None, last: int, mark: int | None) -> None:
    progress = Progress(watermark, {0: (1, 5)})

    assert next_mark(progress, window_ms=60_000, every_ms=10_000, last=last) == mark
