from datetime import UTC, date, datetime
from uuid import UUID

import msgspec
from headrace_core.contracts import FeatureLog, LoggedItem, Operation, SampleChange
from headrace_sample_joiner.joiner.effects import Version
from headrace_sample_joiner.store.rows import Row, array_literal, day_of
from headrace_sample_joiner.store.served import Served
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.joiner.events import START, a_log, a_request

REQUEST = a_request()


def a_version(item: str = "a", label: int = 0, log: FeatureLog | None = None) -> Version:
    raw = (log or a_log(REQUEST)).SerializeToString()
    return Version(REQUEST, item, "u1", "home", START + 5, 3, 17, label, 0, 1, raw, 11, opens=True)


def test_first_version_of_an_item_is_an_insert_with_the_features_as_served() -> None:
    row = Row.opened(a_version(), source=2)

    message = row.add(a_version(), now=START + 9)

    change = SampleChange.FromString(message.value)
    assert (message.partition, message.key) == (2, f"{REQUEST}:a".encode())
    assert (change.operation, change.sample.version, change.change_time) == (Operation.OPERATION_INSERT, 1, START + 9)
    assert (change.sample.impression_offset, change.sample.log_offset) == (17, 11)
    assert msgspec.json.decode(change.sample.features) == {"user": {"age": 7}, "context": {}, "item": {"ctr": 0.1}}


def test_correction_is_the_next_version_and_tells_the_previous_label() -> None:
    row = Row.opened(a_version(), source=2)
    row.add(a_version(), now=START)

    change = SampleChange.FromString(row.correct(0, 5, START + 1).value)

    assert (change.operation, change.previous_label) == (Operation.OPERATION_CORRECT, 0)
    assert (change.sample.label, change.sample.version) == (5, 2)
    assert (row.label, row.version, row.joined_at) == ([5], [2], [START + 1])


def test_item_that_the_log_does_not_name_has_no_score_and_no_features() -> None:
    row = Row.opened(a_version("elsewhere"), source=0)

    sample = SampleChange.FromString(row.add(a_version("elsewhere"), now=START).value).sample

    assert (sample.score, sample.propensity) == (0.0, 0.0)
    assert msgspec.json.decode(sample.features)["item"] == {}


def test_day_is_read_off_the_request_id_in_utc() -> None:
    before_midnight = datetime(2024, 2, 29, 23, 59, 59, 999_000, UTC)
    request_id = str(UUID(int=int(before_midnight.timestamp() * 1000) << 80 | 0x7 << 76))

    assert day_of(request_id) == date(2024, 2, 29)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False))))
def test_what_was_served_reads_back_as_it_was_stored(items: dict[str, dict[str, float]]) -> None:
    log = FeatureLog(
        request_id=REQUEST, model="m", model_version=3, feature_set_version=4, user_features=b'{"u":1}',
        items=[LoggedItem(item_id=k, features=msgspec.json.encode(v)) for k, v in items.items()],
    )  # fmt: skip
    served = Served.from_log(log.SerializeToString())

    again = Served.from_row(served.stored(), "m", 3, 4)

    assert (again.user, again.context, again.items) == (b'{"u":1}', b"{}", served.items)
    assert {k: msgspec.json.decode(v) for k, v in again.items.items()} == items


def test_array_literal_quotes_text_and_leaves_numbers() -> None:
    assert array_literal(['say "hi"', "back\\slash", "comma,", "{}", "NULL", ""]) == (
        '{"say \\"hi\\"","back\\\\slash","comma,","{}","NULL",""}'
    )
    assert array_literal([1, -2]) == "{1,-2}"
    assert array_literal([0.1, 1e300]) == "{0.1,1e+300}"
    assert array_literal([]) == "{}"
