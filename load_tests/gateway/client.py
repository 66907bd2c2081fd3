"""A client that costs little: one socket a connection, requests packed once, answers read by their length."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Of one run.

    Attributes:
        seconds: of each answer.
        took: length of the run, s.
        statuses: how often each came.
    """

    seconds: list[float] = field(default_factory=list)
    took: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)

    def quantile(self, q: float) -> float:
        """Of the time to answer, ms."""
        ordered = sorted(self.seconds)
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1_000, 3)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return round(len(self.seconds) / self.took, 1)


def request(path: str, body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def bringing(key: str, make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same requests with an API key."""
    head = f"\r\nauthorization: Bearer {key}\r\nhost: ".encode()
    return lambda n: make(n).replace(b"\r\nhost: ", head, 1)


async def drive(
    port: int, make: Callable[[int], bytes], *, connections: int, seconds: float, per_second: float | None = None
) -> Figures:
    """Send requests and wait for their answers, over several connections.

    Args:
        port: of the server, on loopback.
        make: the nth request.
        connections: at once.
        seconds: how long.
        per_second: rate at which requests are due over all connections; then the time to answer counts from when a request
            was due, so that a server that stalls is not excused. As fast as it goes without it.
    """
    figures = Figures()
    start = time.perf_counter()
    end = start + seconds
    number = 0

    async def one() -> None:
        nonlocal number
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.perf_counter()) < end:
            number += 1
            due = now
            if per_second is not None:
                due = start + number / per_second
                await asyncio.sleep(max(0.0, due - now))
            writer.write(make(number))
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            at = head.lower().index(b"content-length: ") + 16
            await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            figures.seconds.append(time.perf_counter() - due)
            figures.statuses[status] = figures.statuses.get(status, 0) + 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    figures.took = time.perf_counter() - start
    return figures
