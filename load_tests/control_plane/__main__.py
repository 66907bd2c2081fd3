"""How many events a second POST /events takes, a call each: `python -m load_tests.control_plane URL`.

Prints JSON: at one connection and at many, of the same process.
"""

import asyncio
import json
import sys
from urllib.parse import urlsplit

from load_tests.gateway.client import drive, request

_BODY = b'{"key":"bench","value":"%d","type":"BENCH","sender":"bench","context":{"to":1795536000000}}'


async def _main(port: int) -> None:
    for connections in (1, 16, 64):
        figures = await drive(
            port, lambda n: request("/api/v1/events", _BODY % n), connections=connections, seconds=5.0
        )
        told = {
            "connections": connections,
            "events_per_second": figures.rate,
            "p50_ms": figures.quantile(0.5),
            "p99_ms": figures.quantile(0.99),
            "statuses": figures.statuses,
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(urlsplit(sys.argv[1]).port or 8090))
