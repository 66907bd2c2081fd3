from dataclasses import dataclass, field

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
    assert reader.rewound == [0]


def test_record_without_our_headers_is_foreign() -> None:
    reader = SequenceReader()

    assert reader.take([ARecord(b"x"), ARecord(b"y", (("seq", b"one"),))]) == []
    assert reader.foreign == 2


@given(st.data())
def test_resending_from_any_mark_gives_each_message_once_and_in_order(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 30))
    sent: list[int] = []
    mark = 0
    while mark < total:  # a run sends from the mark up to somewhere and dies, with its mark behind what it sent
        end = data.draw(st.integers(mark + 1, total))
        sent += range(mark + 1, end + 1)
        mark = total if end == total else data.draw(st.integers(mark, end))

    reader = SequenceReader()

    assert taken(reader, *(a_record(s) for s in sent)) == list(range(1, total + 1))
