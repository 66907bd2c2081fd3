"""What an increment tells of its samples' scores before learning."""

import numpy as np
from headrace_core.contracts import Sample
from headrace_core.learning.progressive import ProgressiveScores
from headrace_trainer.stream.recent import RecentScores


def samples(*times: int, item: str = "2002") -> list[Sample]:
    return [Sample(request_id=f"r{t}", item_id=item, event_time=t) for t in times]


def test_samples_older_than_the_window_before_the_newest_go() -> None:
    recent = RecentScores(window_ms=100)

    recent.add(samples(10, 50), np.array([0.1, 0.2], np.float32))
    recent.add(samples(110, 60, item="ü"), np.array([0.3, 0.4], np.float32))

    assert recent.kept.requests.tolist() == [b"r50", b"r110", b"r60"]
    assert recent.kept.items.tolist() == [b"2002", "ü".encode(), "ü".encode()]
    np.testing.assert_array_equal(recent.kept.scores, np.array([0.2, 0.3, 0.4], np.float32))


def test_no_more_than_the_last_few_are_kept() -> None:
    recent = RecentScores(window_ms=1_000, most=3)

    for t in range(5):
        recent.add(samples(t), np.array([0.5], np.float32))

    assert recent.kept.times.tolist() == [2, 3, 4]


def test_restored_goes_on_as_the_one_that_was_never_away() -> None:
    whole = RecentScores(window_ms=50, most=4)
    whole.add(samples(100, 40), np.array([0.1, 0.2], np.float32))
    whole.add(samples(60, 61, 62, 63), np.array([0.1, 0.2, 0.3, 0.4], np.float32))  # the newest of all is pushed out
    again = RecentScores(window_ms=50, most=4)
    again.restore(whole.arrays())

    for one in (whole, again):
        one.add(samples(109, 70), np.array([0.5, 0.6], np.float32))

    for name, array in whole.arrays().items():
        assert array.tobytes() == again.arrays()[name].tobytes()


def test_file_is_read_as_it_was_written() -> None:
    recent = RecentScores(window_ms=1_000)
    recent.add(samples(10, 50), np.array([0.1, 0.2], np.float32))

    found = ProgressiveScores.from_bytes(recent.kept.to_bytes())

    for name, array in recent.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array)
