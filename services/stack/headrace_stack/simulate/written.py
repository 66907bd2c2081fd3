"""A log of impressions and clicks of the simulated world, written to a file instead of lived through the platform.

Who comes is drawn uniformly, and what he is shown too: `count` different items in an order drawn by chance, so each item has
the known propensity 1 / items on each position. He clicks by the world's own probabilities, so that an oracle is at hand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace_stack.simulate.visitors import Habits
from headrace_stack.simulate.world import LatentWorld, looked_at

_BLOCK_SLATES: Final = 20_000
#: Up to so many items are put in order whole; of more, a list that has one twice is drawn anew.
_FEW_ITEMS_PER_PLACE: Final = 20

#: Named as `headrace replay` calls them, so it needs no mapping.
SCHEMA: Final = pa.schema([
    ("request_id", pa.string()), ("time", pa.timestamp("ms", "UTC")), ("user_id", pa.string()), ("user.country", pa.string()),
    ("user.gender", pa.string()), ("user.city", pa.string()), ("item_id", pa.string()), ("item.item_type", pa.string()),
    ("item.category", pa.string()), ("position", pa.int32()), ("propensity", pa.float64()), ("click", pa.int8()),
    ("click_time", pa.timestamp("ms", "UTC")), ("page_id", pa.string()),
])  # fmt: skip
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        rows, requests, clicks: counts.
        expected: clicks that the world's probabilities make one expect.
    """

    rows: int
    requests: int
    clicks: int
    expected: float


def write_log(  # noqa: PLR0913  # what makes the log
    file: Path,
    world: LatentWorld,
    habits: Habits,
    *,
    rows: int,
    rate: float,
    seed: int,
    start_ms: int,
    progressed: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write a log; it is there whole, or not at all.

    Args:
        file: CSV or Parquet, by its name.
        world: who and what there is.
        habits: how many items a visit shows, and how late clicks come.
        rows: impressions.
        rate: visits a second of the log's time.
        seed: of everything that is drawn; the same arguments write the same rows.
        start_ms: time of the first visit.
        progressed: told how many rows were written.

    Raises:
        ValueError: a visit shows more items than there are.
    """
    if habits.count > len(world.things):
        raise ValueError(f"a visit shows {habits.count} items, but there are {len(world.things)}")
    partial = file.with_name(f".{file.name}.partial")
    clicks = requests = 0
    expected = 0.0
    try:
        with _writer(partial, file.suffix) as writer:
            for table, likely in _tables(world, habits, rows=rows, rate=rate, seed=seed, start_ms=start_ms):
                writer.write_table(table)
                clicks += int(np.asarray(table["click"]).sum())
                expected += likely
                requests += -(-table.num_rows // habits.count)
                progressed(table.num_rows)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return Written(rows, requests, clicks, expected)


def _writer(file: Path, suffix: str) -> "pq.ParquetWriter | pyarrow.csv.CSVWriter":
    if suffix == ".parquet":
        return pq.ParquetWriter(file, SCHEMA, compression="zstd")
    return pyarrow.csv.CSVWriter(file, SCHEMA)


def _tables(  # noqa: PLR0913  # what makes the log
    world: LatentWorld, habits: Habits, *, rows: int, rate: float, seed: int, start_ms: int
) -> Iterator[tuple[pa.Table, float]]:
    rng = np.random.default_rng(seed)
    people, things, count = world.people, world.things, habits.count
    of_people = {"user_id": pa.array([p.user_id for p in people])}
    of_people |= {
        f"user.{name}": pa.array([getattr(p, name) for p in people]) for name in ("country", "gender", "city")
    }
    of_things = {"item_id": pa.array([t.item_id for t in things])}
    of_things |= {f"item.{name}": pa.array([getattr(t, name) for t in things]) for name in ("item_type", "category")}
    looks = np.array([looked_at(n) for n in range(count)])
    at_s, done = 0.0, 0
    while done < rows:
        slates = min(_BLOCK_SLATES, -(-(rows - done) // count))
        times = at_s + np.cumsum(rng.exponential(1 / rate, slates))
        at_s = float(times[-1])
        users = rng.integers(0, len(people), slates)
        items = drawn_lists(rng, slates, len(things), count)
        likely = looks * world.tastes(users, items, times)
        clicked = rng.random((slates, count)) < likely
        late = rng.random((slates, count)) < habits.late
        delays = 0.2 + rng.exponential(1.0, (slates, count)) + late * habits.late_s
        size = min(slates * count, rows - done)
        first = done // count
        of_row = np.repeat(np.arange(slates), count)[:size]
        shown = start_ms + (times[of_row] * 1000).astype(np.int64)
        click = clicked.ravel()[:size]
        click_time = shown + (delays.ravel()[:size] * 1000).astype(np.int64)
        columns = {
            "request_id": pa.array([f"r{n}" for n in range(first, first + slates)]).take(pa.array(of_row)),
            "time": pa.array(shown, pa.timestamp("ms", "UTC")),
            **{name: values.take(pa.array(users[of_row])) for name, values in of_people.items()},
            **{name: values.take(pa.array(items.ravel()[:size])) for name, values in of_things.items()},
            "position": pa.array(np.tile(np.arange(count, dtype=np.int32), slates)[:size]),
            "propensity": pa.array(np.full(size, 1 / len(things))),
            "click": pa.array(click.astype(np.int8)),
            "click_time": pa.array(click_time, pa.timestamp("ms", "UTC"), mask=~click),
            "page_id": pa.array([world.page_id]).take(pa.array(np.zeros(size, np.int64))),
        }
        done += size
        yield pa.table(columns, SCHEMA), float(likely.ravel()[:size].sum())


def drawn_lists(rng: np.random.Generator, lists: int, items: int, count: int) -> Numbers:
    """Lists of `count` different items each, every list as likely as every other one."""
    if items <= _FEW_ITEMS_PER_PLACE * count:
        return np.argsort(rng.random((lists, items)), axis=1)[:, :count]
    drawn = rng.integers(0, items, (lists, count))
    while True:
        ordered = np.sort(drawn, axis=1)
        twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not len(twice):
            return drawn
        drawn[twice] = rng.integers(0, items, (len(twice), count))
