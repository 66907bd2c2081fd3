"""The simulated crowd against a gateway that is slow."""

import asyncio
import contextlib
import json

from headrace_stack.simulate.story import StoryWorld
from headrace_stack.simulate.visitors import MOST_AT_ONCE, Visitors

ANSWER = json.dumps({"request_id": "r", "items": [], "model_version": 0, "degraded": []}).encode()


class SlowGateway:
    """Answers nobody until `most` people wait, then everybody.

    Attributes:
        most: people who waited at once.
        answered: requests.
    """

    def __init__(self) -> None:
        self.most = self.answered = self._waiting = 0
        self.crowded, self.enough = asyncio.Event(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.create_task(self._serve(reader, writer)))

    async def ended(self) -> None:
        """Wait until no connection is left: a server's end does not."""
        await asyncio.wait_for(asyncio.gather(*self._connections), 30)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await self._head(reader):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            if self._waiting >= MOST_AT_ONCE:
                self.crowded.set()
            await self.crowded.wait()
            self._waiting -= 1
            self.answered += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER))
            if self.answered >= 10 * MOST_AT_ONCE:
                self.enough.set()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


async def test_crowd_before_a_gateway_that_stands_still_stays_small_and_goes_on_when_it_answers() -> None:
    gateway = SlowGateway()
    server = await asyncio.start_server(gateway.connected, "127.0.0.1", 0)
    visitors = Visitors("http://{}:{}".format(*server.sockets[0].getsockname()), StoryWorld())

    await asyncio.wait_for(visitors.come(lambda: 10_000, gateway.enough), 60)

    await visitors.aclose()
    server.close()
    await gateway.ended()
    assert gateway.most == MOST_AT_ONCE
    assert visitors.tally.visits >= 10 * MOST_AT_ONCE
    assert not visitors.tally.failed
