"""A person's own log: what its columns mean, which rows make a slate, which rows are bad."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from headrace_client import Item, User
from headrace_stack.commands.terminal import CommandError, WrongUsageError
from headrace_stack.replay.delay import drawn_delay
from headrace_stack.replay.mapping import Mapping
from headrace_stack.replay.own_log import OwnLog
from headrace_stack.replay.slate import Slate
from headrace_stack.replay.table import columns_of, count_rows
from headrace_stack.replay.values import moment_ms, yes

T0 = 1_767_225_600_000


def a_csv(folder: Path, text: str) -> Path:
    file = folder / "log.csv"
    file.write_text(text, encoding="utf-8")
    return file


def read(file: Path, mapping: str = "", **options: Any) -> tuple[list[Slate], OwnLog]:
    log = OwnLog(file, Mapping.of(mapping, columns_of(file)), drawn_delay(1), **options)
    return list(log.slates()), log


def items(slates: list[Slate]) -> list[list[str]]:
    return [[shown.item_id for shown in slate.shown] for slate in slates]


def test_columns_are_mapped_by_name(tmp_path: Path) -> None:
    file = a_csv(
        tmp_path,
        "customer,sku,clicked,ts,clicked_at,where,p,req,country,kind,device\n"
        f"u1,a,1,{T0},{T0 + 1_500},2,0.25,r1,China,shoes,phone\n",
    )

    (slate,), log = read(
        file,
        "user_id=customer,item_id=sku,click=clicked,time=ts,click_time=clicked_at,position=where,propensity=p,request_id=req,"
        "user.country=country,item.category=kind,context.device=device",
    )

    shown = slate.shown[0]
    assert (slate.user_id, slate.at_ms, slate.page_id, slate.context) == ("u1", T0, "replay", {"device": "phone"})
    assert (shown.row, shown.item_id, shown.position, shown.click_after_s, shown.propensity) == (2, "a", 2, 1.5, 0.25)
    assert slate.users == [User(user_id="u1", country="China")]
    assert slate.items == [Item(item_id="a", category="shoes")]
    assert log.faults.count == 0


def test_columns_with_the_names_of_meanings_need_no_mapping(tmp_path: Path) -> None:
    file = a_csv(tmp_path, f"user_id,item_id,click,time,position,item.category\nu,a,0,{T0},4,x\n")

    (slate,), _ = read(file)
    (without,), _ = read(file, "position=,item.category=")

    assert (slate.shown[0].position, slate.items[0].category) == (4, "x")
    assert (without.shown[0].position, list(without.items)) == (0, [])


def test_slate_is_what_one_request_shows(tmp_path: Path) -> None:
    file = a_csv(
        tmp_path,
        "user_id,item_id,click,time,request_id\n"
        f"u,a,0,{T0},r1\nu,b,0,{T0 + 5},r1\nu,c,0,{T0 + 5},r2\nu,c,0,{T0 + 6},r2\nv,d,0,{T0 + 6},r2\n",
    )

    slates, _ = read(file)
    by_time, _ = read(file, "request_id=")

    assert items(slates) == [["a", "b"], ["c"], ["c"], ["d"]]
    assert items(by_time) == [["a"], ["b", "c"], ["c"], ["d"]]
    assert [s.position for s in slates[0].shown] == [0, 1]
    assert slates[0].candidates == ["a", "b"]


def test_bad_rows_are_told_with_their_line_and_left_out(tmp_path: Path) -> None:
    good = f"u,a,0,{T0},1\n"
    lines = [
        good,  # line 2
        f",a,0,{T0},1\n",
        "u,a,0\n",  # 4
        f"u,a,perhaps,{T0},1\n",
        "\n",  # 6
        "u,a,0,yesterday,1\n",
        f"u,a,0,{T0},-2\n",  # 8
        f"u,a,0,{T0},1,2,3\n",
        f"u,{'x' * 300},0,{T0},1\n",  # 10
        f"u,b,1,{T0 + 1},1\n",
    ]

    slates, log = read(a_csv(tmp_path, "user_id,item_id,click,time,position\n" + "".join(lines)))

    assert [shown.row for slate in slates for shown in slate.shown] == [2, 11]
    assert log.faults.count == 8
    assert sorted(int(fault.split()[1].rstrip(":")) for fault in log.faults.first) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert "line 3: user_id: is empty" in log.faults.first
    assert "line 4: 3 values, 5 are expected" in log.faults.first


def test_parquet_holds_typed_values(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"user_id": 7, "item_id": 9, "click": True, "time": at, "candidates": ["9", "10"], "propensity": 0.5},
        {"user_id": 7, "item_id": 11, "click": None, "time": at, "candidates": ["12"], "propensity": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)

    (slate,), log = read(file)

    assert (slate.user_id, slate.at_ms, slate.candidates) == ("7", T0, ["9", "10", "11", "12"])
    assert [s.click_after_s is not None for s in slate.shown] == [True, False]
    assert slate.judged
    assert (log.rows, log.faults.count) == (2, 0)


def test_catalog_entry_is_told_once_and_again_when_it_changed(tmp_path: Path) -> None:
    file = a_csv(
        tmp_path,
        "user_id,item_id,click,time,user.city,user.age\n"
        f"u,a,0,{T0},Rome,4\nu,a,0,{T0 + 1},Rome,4\nu,a,0,{T0 + 2},Paris,4\n",
    )

    slates, _ = read(file)

    assert [list(slate.users) for slate in slates] == [
        [User(user_id="u", city="Rome", attributes={"age": "4"})], [], [User(user_id="u", city="Paris", attributes={"age": "4"})]
    ]  # fmt: skip


def test_positions_may_begin_at_one(tmp_path: Path) -> None:
    file = a_csv(tmp_path, f"user_id,item_id,click,time,position\nu,a,0,{T0},1\nu,b,0,{T0},0\n")

    (slate,), log = read(file, first_position=1)

    assert [s.position for s in slate.shown] == [0]
    assert log.faults.count == 1


def test_slate_has_no_more_than_the_gateway_ranks(tmp_path: Path) -> None:
    rows = "".join(f"u,i{n},0,{T0}\n" for n in range(1_100))

    slates, log = read(a_csv(tmp_path, "user_id,item_id,click,time\n" + rows))

    assert [len(slate.shown) for slate in slates] == [500, 500, 100]
    assert log.rows == 1_100


def test_delay_of_a_click_is_drawn_the_same_again(tmp_path: Path) -> None:
    file = a_csv(tmp_path, "user_id,item_id,click,time\n" + "".join(f"u,i{n},1,{T0}\n" for n in range(50)))

    first, again = read(file)[0], read(file)[0]
    other = OwnLog(file, Mapping.of("", columns_of(file)), drawn_delay(2))

    assert first == again
    delays = [s.click_after_s or 0.0 for slate in first for s in slate.shown]
    assert 0 < min(delays) < max(delays) <= 10
    assert first != list(other.slates())


def test_fingerprint_tells_logs_and_mappings_apart(tmp_path: Path) -> None:
    file = a_csv(tmp_path, f"user_id,item_id,click,time,z\nu,a,0,{T0},1\n")
    prints = {read(file)[1].fingerprint, read(file, "position=z")[1].fingerprint, read(file, salt="2")[1].fingerprint}
    file.write_text(f"user_id,item_id,click,time,z\nu,a,1,{T0},1\n", encoding="utf-8")
    prints.add(read(file)[1].fingerprint)

    assert len(prints) == 4


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("user=customer", "want MEANING=COLUMN"),
        ("user_id", "want MEANING=COLUMN"),
        ("user.=a", "want MEANING=COLUMN"),
        ("user_id=nobody", "user_id=nobody: the file's columns are item_id, click, time"),
        ("", "user_id=user_id: the file's columns are"),
    ],
)
def test_wrong_mapping_is_told(tmp_path: Path, mapping: str, says: str) -> None:
    file = a_csv(tmp_path, "item_id,click,time\n")

    with pytest.raises(WrongUsageError, match=says):
        read(file, mapping)


@pytest.mark.parametrize(("name", "content"), [("log.txt", b""), ("log.parquet", b"nonsense"), ("log.csv", b"")])
def test_file_that_is_no_log_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CommandError, match=name):
        read(tmp_path / name)


def test_rows_of_a_csv_are_its_lines_but_the_first(tmp_path: Path) -> None:
    assert count_rows(a_csv(tmp_path, "a\n1\n2\n")) == 2
    assert count_rows(a_csv(tmp_path, "")) == 0


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1_767_225_600, T0), ("1767225600", T0), (T0, T0), (T0 * 1_000, T0), (T0 * 1_000_000, T0), ("1767225600.5", T0 + 500),
        ("2026-01-01T00:00:00Z", T0), ("2026-01-01 01:00:00+01:00", T0), ("2026-01-01", T0), (datetime(2026, 1, 1), T0),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(value: Any, ms: int) -> None:
    assert moment_ms(value) == ms


@pytest.mark.parametrize("value", ["", "soon", "nan", -1, None])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        moment_ms(value)


def test_click_is_what_people_write() -> None:
    assert [yes(v) for v in (1, "1", "true", "T", 1.0, True)] == [True] * 6
    assert [yes(v) for v in (0, "", "false", None, 0.0, False)] == [False] * 6
    with pytest.raises(ValueError, match="neither"):
        yes("2")
