from dataclasses import dataclass, field

from headrace_core.runtime.incarnation import Incarnations, Rewind
from headrace_core.runtime.reader import SequenceReader
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class ARecord:
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = field(default=None)


def a_record(seq: int, source: int = 0, incarnation: int = 1) -> ARecord:
    headers = {"incarnation": incarnation, "source": source, "seq": seq}
    return ARecord(b"%d" % seq, tuple((k, b"%d" % v) for k, v in headers.items()))


def taken(reader: SequenceReader, *records: ARecord) -> list[int]:
    return [int(r.value) for r in reader.take(records)]


def test_repeated_and_early_records_are_dropped_and_counted() -> None:
    reader = SequenceReader()

    assert taken(reader, a_record(1), a_record(1), a_record(3), a_record(2), a_record(3)) == [1, 2, 3]
    assert (reader.repeated, reader.early) == (1, 1)


def test_sources_have_sequences_of_their_own() -> None:
    reader = SequenceReader()

    assert taken(reader, a_record(1, source=0), a_record(1, source=1), a_record(2, source=1)) == [1, 1, 2]


def test_higher_incarnation_starts_where_the_restored_backup_stood() -> None:
    reader = SequenceReader(positions={0: (1, 800)})

    assert taken(reader, a_record(501, incarnation=2), a_record(801), a_record(502, incarnation=2)) == [501, 502]
    assert reader.rewound == [(0, 2, 501)]


def test_higher_incarnation_that_goes_on_where_a_reader_stands_rewinds_nothing() -> None:
    reader = SequenceReader(positions={0: (1, 500)})

    assert taken(reader, a_record(501, incarnation=2)) == [501]
    assert reader.rewound == []


def test_reader_that_knows_the_restores_takes_nothing_void() -> None:
    reader = SequenceReader(history=Incarnations(3, {0: [Rewind(2, 3), Rewind(3, 4)]}))
    lost = [a_record(s) for s in (1, 2, 3, 4)] + [a_record(s, incarnation=2) for s in (3, 4, 5)]

    assert taken(reader, *lost, a_record(4, incarnation=3)) == [1, 2, 3, 4]
    assert reader.positions == {0: (3, 4)}
    assert (reader.void, reader.rewound) == (4, [])


def test_all_of_a_source_that_the_backup_did_not_know_is_void() -> None:
    reader = SequenceReader(history=Incarnations(2, {1: [Rewind(2, 9)]}))

    assert taken(reader, a_record(1), a_record(2), a_record(1, incarnation=2)) == [1]
    assert reader.positions == {0: (2, 1)}


def test_unpublished_rows_of_a_backup_stay_in_the_incarnation_that_they_were_written_in() -> None:
    history = Incarnations(9, {0: [Rewind(5, 10), Rewind(9, 20)]})

    assert [history.of(0, seq) for seq in (9, 10, 19, 20, 21)] == [1, 5, 5, 9, 9]
    assert history.of(1, 1) == 9


def test_record_without_our_headers_is_foreign() -> None:
    reader = SequenceReader()

    assert reader.take([ARecord(b"x"), ARecord(b"y", (("seq", b"one"),))]) == []
    assert reader.foreign == 2


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), max_size=12))
def test_resending_from_any_mark_gives_each_message_once_and_in_order(total: int, runs: list[tuple[int, int]]) -> None:
    sent: list[int] = []
    mark = 0
    for length, behind in runs:  # sends from the mark up to somewhere and dies, with its mark behind what it sent
        end = min(mark + length, total)
        sent += range(mark + 1, end + 1)
        mark = max(mark, end - behind)
    sent += range(mark + 1, total + 1)

    reader = SequenceReader()

    assert taken(reader, *(a_record(s) for s in sent)) == list(range(1, total + 1))
