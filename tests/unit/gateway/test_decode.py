import json

import msgspec
import pytest
from headrace_gateway.decode import decode_body, holds_nul
from headrace_gateway.problem import ProblemError
from headrace_gateway.ranking.schema import RecommendIn
from hypothesis import given
from hypothesis import strategies as st

DECODER = msgspec.json.Decoder(RecommendIn)


def refused(body: bytes) -> ProblemError:
    with pytest.raises(ProblemError) as raised:
        decode_body(DECODER, body)
    assert raised.value.status == 422
    return raised.value


def a_body(**fields: object) -> bytes:
    return json.dumps({"user_id": "u", "page_id": "p", **fields}).encode()


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        (b"{", None, "body: is not JSON: Input data was truncated"),
        (b"\xff", None, "body: is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b'{"user_id": "\xff"}', None, "body: is not UTF-8"),
        (b"1", None, "body: expected `object`, got `int`"),
        (b"{}", "user_id", "user_id: is required"),
        (a_body(colour=1), "colour", "colour: is not known"),
        (a_body(count=0), "count", "count: expected `int` >= 1"),
        (a_body(exclude=["a", 1]), "exclude[1]", "exclude[1]: expected `str`, got `int`"),
        (a_body(user_id="\x07"), "user_id", "user_id: holds a control character"),
    ],
)
def test_what_is_wrong_is_told_by_field(body: bytes, field: str | None, detail: str) -> None:
    problem = refused(body)

    assert problem.detail == detail
    assert problem.extra["field"] == field


def test_nesting_without_end_is_no_crash() -> None:
    assert refused(b'{"context": ' + b"[" * 100_000).detail.startswith(("context", "body"))


TEXTS = st.text(st.characters(codec="utf-8"))


@given(TEXTS, TEXTS)
def test_nul_is_found_wherever_it_stands(key: str, value: str) -> None:
    body = json.dumps({"a": [{key: value}]}).encode()

    assert holds_nul(body) == ("\x00" in key + value)


def test_written_out_escape_is_no_nul() -> None:
    body = a_body(context={"note": "\\u0000"})

    assert decode_body(DECODER, body).context == {"note": "\\u0000"}


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    status = 200
    try:
        decode_body(DECODER, body)
    except ProblemError as problem:
        status = problem.status

    assert status in {200, 422}
