"""The batch plan survives whatever a crash leaves of it."""

import os
from pathlib import Path

import pytest
from headrace_trainer.stream.plan import BatchPlan, OffsetRange, PlannedBatch


def a_batch(number: int) -> PlannedBatch:
    return PlannedBatch(number, (OffsetRange(0, 10 * number, 10 * number + 10), OffsetRange(3, number, number + 1)))


def write(folder: Path, *numbers: int) -> None:
    plan = BatchPlan(folder)
    plan.append([a_batch(n) for n in numbers])
    plan.close()


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    plan = BatchPlan(tmp_path)
    plan.append([a_batch(1), a_batch(2)])
    plan.append([a_batch(3)])
    plan.close()

    assert BatchPlan(tmp_path).after(0) == [a_batch(1), a_batch(2), a_batch(3)]
    assert BatchPlan(tmp_path).after(2) == [a_batch(3)]
    assert BatchPlan(tmp_path).after(3) == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_half_written_batch_is_as_if_it_never_was(tmp_path: Path, cut: int) -> None:
    write(tmp_path, 1, 2)
    (file,) = tmp_path.glob("*")
    os.truncate(file, file.stat().st_size - min(cut, file.stat().st_size // 2))

    assert BatchPlan(tmp_path).after(0) == [a_batch(1)]
    write(tmp_path, 2, 3)

    assert BatchPlan(tmp_path).after(0) == [a_batch(1), a_batch(2), a_batch(3)]


def test_flipped_bit_ends_the_plan(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (file,) = tmp_path.glob("*")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))

    assert BatchPlan(tmp_path).after(0) == [a_batch(1)]


def test_gap_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, 3)

    with pytest.raises(ValueError, match="not all there"):
        BatchPlan(tmp_path).after(0)


def test_old_files_go_the_newest_stays(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        write(tmp_path, n)
    for file in tmp_path.glob("*"):
        os.utime(file, (0, 0))

    plan = BatchPlan(tmp_path)
    plan.forget(older_than_ms=1_000)

    assert plan.after(2) == [a_batch(3)]
    assert len(list(tmp_path.glob("*"))) == 1
