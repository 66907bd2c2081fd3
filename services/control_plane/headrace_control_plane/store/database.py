"""Connections to PostgreSQL, and their loss."""

import json
import time
from typing import Any, Final

import asyncpg
import orjson
from headrace_core.contracts import Millis

Connection = Any  # asyncpg.Connection, or the pool's proxy of one
Pool = Any  # asyncpg.Pool

#: What a call raises when PostgreSQL is away, or ended the connection, or is starting up or stopping.
AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that is just dying
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


def open_pool(dsn: str, size: int) -> Pool:
    """A pool that connects when it is first used: the service starts also while PostgreSQL is away."""
    return asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        init=_initialise,
        timeout=5,
        command_timeout=30,
        server_settings={"application_name": "headrace-control-plane"},
    )


async def connect(dsn: str, name: str) -> Connection:
    """A connection of its own, for what lives as long as a session."""
    connection = await asyncpg.connect(
        dsn, timeout=5, command_timeout=30, server_settings={"application_name": f"headrace-control-plane {name}"[:63]}
    )
    await _initialise(connection)
    return connection


async def _initialise(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_encode, decoder=orjson.loads)


def _encode(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, which PostgreSQL takes as they are
        return json.dumps(value)


def now_ms() -> Millis:
    """The wall clock."""
    return time.time_ns() // 1_000_000
