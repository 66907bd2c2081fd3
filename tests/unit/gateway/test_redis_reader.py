import asyncio
from typing import Any

import hiredis
import pytest
from headrace_gateway.stores.redis_reader import RedisAwayError, _Connection
from hypothesis import given
from hypothesis import strategies as st


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def a_connection() -> tuple[_Connection, Wire]:
    connection, wire = _Connection(), Wire()
    connection.connection_made(wire)
    return connection, wire


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


@given(
    st.lists(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=5), min_size=1, max_size=8),
    st.lists(st.integers(1, 40), max_size=30),
)
def test_answers_find_their_calls_however_the_bytes_are_cut(calls: list[list[bytes | None]], cuts: list[int]) -> None:
    async def exchange() -> list[list[Any]]:
        connection, _ = a_connection()
        futures = [connection.call([("GET", "k")] * len(values)) for values in calls]
        stream = b"".join(bulk(v) for values in calls for v in values)
        for cut in cuts:
            connection.data_received(stream[:cut])
            stream = stream[cut:]
        connection.data_received(stream)
        return await asyncio.gather(*futures)

    assert asyncio.run(exchange()) == calls


async def test_commands_of_a_call_are_one_write() -> None:
    connection, wire = a_connection()

    connection.call([("HGET", "k", "f"), ("GET", b"\xff")])

    assert wire.written == b"*3\r\n$4\r\nHGET\r\n$1\r\nk\r\n$1\r\nf\r\n*2\r\n$3\r\nGET\r\n$1\r\n\xff\r\n"


async def test_foreign_value_stands_as_an_error_in_its_place() -> None:
    connection, _ = a_connection()
    call = connection.call([("HGET", "a", "f"), ("GET", "b")])

    connection.data_received(b"-WRONGTYPE Operation against a key\r\n$1\r\nx\r\n")

    answers = await call
    assert isinstance(answers[0], hiredis.ReplyError)
    assert answers[1] == b"x"


@pytest.mark.parametrize("error", ["LOADING Redis is loading", "MOVED 12 10.0.0.1:6379", "NOPERM no", "NOAUTH no"])
async def test_answer_that_redis_refuses_is_no_absence(error: str) -> None:
    connection, _ = a_connection()
    call, next_call = connection.call([("GET", "a"), ("GET", "b")]), connection.call([("GET", "c")])

    connection.data_received(f"-{error}\r\n$1\r\nx\r\n$1\r\ny\r\n".encode())

    with pytest.raises(RedisAwayError, match=error.split(maxsplit=1)[0]):
        await call
    assert await next_call == [b"y"]


@pytest.mark.parametrize("answer", [b"?\r\n", b"$1\r\nx\r\n$1\r\ny\r\n"], ids=["no RESP", "more than was asked"])
async def test_connection_that_is_out_of_step_is_given_up(answer: bytes) -> None:
    connection, wire = a_connection()
    call = connection.call([("GET", "a")])

    connection.data_received(answer)

    assert wire.aborted
    assert "not understood" in await connection.lost
    with pytest.raises(RedisAwayError, match="closed"):
        await connection.call([("GET", "b")])
    await asyncio.gather(call, return_exceptions=True)


async def test_lost_connection_fails_every_waiting_call() -> None:
    connection, _ = a_connection()
    calls = [connection.call([("GET", "a")]) for _ in range(3)]

    connection.connection_lost(ConnectionResetError())

    for call in calls:
        with pytest.raises(RedisAwayError, match="ConnectionResetError"):
            await call
