"""Id tables: nobody gets another id's row, rare ids wait, unused ones go."""

from collections.abc import Sequence

import numpy as np
from headrace_trainer.network.id_index import IdIndex
from headrace_trainer.network.ids import IdTable, Placed, Policy, columns_to_ids, initial_rows
from hypothesis import given, settings
from hypothesis import strategies as st

SHARED = 1
RESERVED = 3
OTHER_SHARED = 2
DAY = 86_400_000


def a_table(admission: int = 1, capacity: int = 1_000, expiry_ms: int = DAY) -> IdTable:
    return IdTable(RESERVED, Policy(admission, expiry_ms, capacity))


def place(table: IdTable, ids: Sequence[int], now: int = 0, *, learn: bool = True, shared: int = SHARED) -> list[int]:
    return rows_of(table.place(np.array(ids, np.int64), np.full(len(ids), shared, np.int64), learn=learn, now=now))


def rows_of(placed: Placed) -> list[int]:
    return [int(r) for r in placed.rows[placed.at]]


IDS = st.integers(-(2**63), 2**63 - 1).filter(lambda i: not 0 <= i < RESERVED)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.one_of(st.integers(100, 140), IDS), max_size=30), max_size=12), st.integers(1, 3))
def test_every_admitted_id_has_one_row_of_its_own(batches: list[list[int]], admission: int) -> None:
    table, seen, rows = a_table(admission), dict[int, int](), dict[int, int]()

    for now, batch in enumerate(batches):
        for i in batch:
            seen[i] = seen.get(i, 0) + 1
        for i, row in zip(batch, place(table, batch, now), strict=True):
            if seen[i] < admission:
                assert row == SHARED
            else:
                assert rows.setdefault(i, row) == row
    assert len(set(rows.values())) == len(rows)
    assert not set(rows.values()) & set(range(RESERVED))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(100, 160), min_size=1, max_size=30), min_size=2, max_size=12), st.data())
def test_restored_table_goes_on_as_the_original(batches: list[list[int]], data: st.DataObject) -> None:
    table = a_table(2, capacity=24, expiry_ms=3)
    at = data.draw(st.integers(1, len(batches) - 1))
    for now, batch in enumerate(batches[:at]):
        place(table, batch, now)
        table.expire(now)

    other = a_table(2, capacity=24, expiry_ms=3)
    other.restore(table.arrays())

    for now, batch in enumerate(batches[at:], at):
        assert place(table, batch, now) == place(other, batch, now)
        table.expire(now)
        other.expire(now)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.one_of(st.integers(-5, 30), st.integers(-(2**63), 2**63 - 1)), max_size=600), max_size=6))
def test_index_is_a_dict(parts: list[set[int]]) -> None:
    index, want = IdIndex(), dict[int, int]()
    for part in parts:
        new = np.array(sorted(part - want.keys()), np.int64)
        index.add(new, np.arange(len(want), len(want) + len(new)))
        want |= {int(i): len(want) + n for n, i in enumerate(new)}

    asked = np.array([*want, 77, -77], np.int64)
    assert index.rows(asked).tolist() == [want.get(int(i), -1) for i in asked]
    assert len(index) == len(want)


def test_refilled_index_forgets() -> None:
    index = IdIndex()
    index.add(np.arange(5_000), np.arange(5_000))

    index.refill(np.array([3]), np.array([9]))

    assert index.rows(np.array([3, 4])).tolist() == [9, -1]


def test_rows_of_a_batch_are_each_there_once() -> None:
    placed = a_table(2).place(
        np.array([7, 7, 8, 9, 10]), np.array([SHARED, SHARED, SHARED, SHARED, OTHER_SHARED]), learn=True, now=0
    )

    assert len(set(placed.rows.tolist())) == len(placed.rows)
    assert rows_of(placed)[2:] == [SHARED, SHARED, OTHER_SHARED]
    assert placed.fresh_ids.tolist() == [7]


def test_reserved_rows_are_their_own() -> None:
    assert place(a_table(), [0, 1, 2, 50])[:3] == [0, 1, 2]


def test_scoring_admits_and_counts_nothing() -> None:
    table = a_table(2)

    for _ in range(3):
        assert place(table, [9], learn=False) == [SHARED]

    assert place(table, [9]) == [SHARED]
    assert place(table, [9]) != [SHARED]


def test_unused_id_loses_its_row_and_starts_anew() -> None:
    table = a_table(expiry_ms=10)
    (row,) = place(table, [7], now=0)
    place(table, [8], now=15)

    table.expire(15)

    assert place(table, [7], now=16, learn=False) == [SHARED]
    assert len(table) == 1
    again = table.place(np.array([7]), np.array([SHARED]), learn=True, now=17)
    assert again.fresh.tolist() == [row]


def test_full_table_forgets_what_was_not_seen_for_longest() -> None:
    table = a_table(capacity=32)
    for now in range(32):
        place(table, [100 + now], now)
    place(table, [100], now=40)

    place(table, [500], now=41)

    assert place(table, [100], learn=False) != [SHARED]
    assert place(table, [101], learn=False) == [SHARED]
    assert place(table, [500], learn=False) != [SHARED]


def test_full_table_takes_no_row_from_its_own_batch() -> None:
    table = a_table(capacity=16)
    old = list(range(100, 116))
    place(table, old, now=0)

    rows = place(table, [*old, *range(200, 216)], now=1)

    assert len(set(rows[:16])) == 16
    assert rows[16:] == [SHARED] * 16


def test_table_grows_and_keeps_its_rows() -> None:
    table = a_table(capacity=5_000)
    first = place(table, range(100, 600))

    place(table, range(10_000, 14_000))

    assert place(table, range(100, 600)) == first
    keys, rows = table.live()
    assert keys.tolist() == sorted([*range(100, 600), *range(10_000, 14_000)])
    assert table.keys[rows].tolist() == keys.tolist()


def test_first_values_depend_on_id_and_seed_alone() -> None:
    ids = np.array([5, -9, 2**62])

    rows = initial_rows(ids, 4, seed=1, scale=0.05)

    np.testing.assert_array_equal(rows[1:2], initial_rows(ids[1:2], 4, seed=1, scale=0.05))
    assert not np.array_equal(rows, initial_rows(ids, 4, seed=2, scale=0.05))
    assert len(np.unique(rows)) == rows.size
    assert np.abs(rows).max() <= 0.05


def test_missing_value_is_its_columns_own_row() -> None:
    ids = columns_to_ids([np.array([9, 0]), np.array([0, 8])], [1, 2])

    assert ids.tolist() == [[9, 2], [1, 8]]
