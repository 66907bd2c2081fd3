"""A written log is the world's: seeded, with known propensities and click probabilities."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from headrace_stack.replay.delay import drawn_delay
from headrace_stack.replay.mapping import Mapping
from headrace_stack.replay.own_log import OwnLog
from headrace_stack.replay.table import columns_of
from headrace_stack.simulate.visitors import Habits
from headrace_stack.simulate.world import LatentWorld
from headrace_stack.simulate.written import Written, drawn_lists, write_log


def write(file: Path, rows: int = 2_000, seed: int = 1, count: int = 4) -> Written:
    world = LatentWorld(users=50, items=40)
    return write_log(file, world, Habits(count=count), rows=rows, rate=10.0, seed=seed, start_ms=1_767_225_600_000)


def test_same_seed_writes_the_same_log(tmp_path: Path) -> None:
    written = [
        write(tmp_path / name, seed=seed) for name, seed in (("a.parquet", 1), ("b.parquet", 1), ("c.parquet", 2))
    ]

    tables = [pq.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.parquet")]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_log_replays_without_a_mapping(tmp_path: Path, name: str) -> None:
    written = write(tmp_path / name, rows=1_001)
    log = OwnLog(tmp_path / name, Mapping.of("", columns_of(tmp_path / name)), drawn_delay(1))

    slates = list(log.slates())

    shown = [s for slate in slates for s in slate.shown]
    assert log.faults.count == 0
    assert (len(shown), len(slates)) == (written.rows, written.requests) == (1_001, 251)
    assert sum(s.click_after_s is not None for s in shown) == written.clicks
    assert {s.propensity for s in shown} == {1 / 40}
    assert {user.country for slate in slates for user in slate.users} == {"China", "Japan", "France"}
    assert all([s.position for s in slate.shown] == list(range(len(slate.shown))) for slate in slates)


def test_people_click_as_often_as_the_world_says(tmp_path: Path) -> None:
    written = write(tmp_path / "log.parquet", rows=100_000)

    assert abs(written.clicks - written.expected) < 5 * np.sqrt(written.expected)


def test_many_tastes_are_each_taste() -> None:
    world = LatentWorld(users=20, items=15, seed=3)
    rng = np.random.default_rng(1)
    people, items, times = rng.integers(0, 20, 30), rng.integers(0, 15, (30, 4)), rng.uniform(0, 90_000, 30)

    found = world.tastes(people, items, times)

    for n in range(30):
        for k in range(4):
            one = world.taste(world.people[people[n]], world.things[items[n, k]].item_id, float(times[n]))
            assert found[n, k] == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize(("items", "count"), [(5, 5), (12, 3), (200, 3)])
def test_lists_hold_different_items_and_each_item_as_often(items: int, count: int) -> None:
    lists = drawn_lists(np.random.default_rng(2), 20_000, items, count)

    assert all(len(set(row)) == count for row in lists[:2_000])
    for position in range(count):
        times = np.bincount(lists[:, position], minlength=items)
        assert np.all(np.abs(times - 20_000 / items) < 6 * np.sqrt(20_000 / items))


def test_no_list_is_longer_than_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shows 41 items"):
        write(tmp_path / "log.csv", count=41)
    assert list(tmp_path.iterdir()) == []
