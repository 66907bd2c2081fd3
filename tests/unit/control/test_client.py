"""The control plane's client, by a server whose first connection leads to somebody else."""

import asyncio

import pytest
from headrace_core.control.bearer import BearerAuth
from headrace_core.control.client import ControlAwayError, ControlClient

STRANGER = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
CONTROL_PLANE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"offset":7}'


class Address:
    """Whoever is behind it, one connection after the other; each keeps to its own as long as the caller does."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self.over = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = next(self._answers)
        while head := await reader.read(65_536):
            writer.write(answer)
            await writer.drain()
            if b"connection: close" in head.lower():
                break
        writer.close()
        await writer.wait_closed()
        self.over.release()


async def newest(patience_s: float, *answers: bytes) -> int:
    """What a client is told that keeps its connections."""
    address = Address(*answers)
    server = await asyncio.start_server(address.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            async with ControlClient(url, "test", patience_s, auth=BearerAuth("")) as client:
                return await client.newest()
        finally:
            for _ in answers:
                await address.over.acquire()


async def test_connection_to_somebody_else_is_given_up() -> None:
    assert await newest(60, STRANGER, CONTROL_PLANE) == 7


async def test_what_somebody_else_said_is_told() -> None:
    with pytest.raises(ControlAwayError, match="newest: HTTP 403 of somebody who is no control plane: nothing more"):
        await newest(0, STRANGER)
