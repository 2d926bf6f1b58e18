"""Connections to PostgreSQL: one pool for a process, the same settings for everyone."""

import asyncio
from typing import TypeAlias

import asyncpg
import orjson

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Seconds. A statement of ours touches one batch; what runs longer than this is stuck, not slow.
COMMAND_TIMEOUT = 60.0

SETTINGS = {
    "application_name": "lienthong",
    "jit": "off",  # plans of 1 ms are not worth compiling
    "timezone": "UTC",
    "synchronous_commit": "on",  # promise 1: answered means stored
    "idle_in_transaction_session_timeout": "60000",
}

# What passes by itself: the connection, the server's state, a deadlock or serialisation conflict, a full disk. When a line
# breaks in the midst of a statement, asyncpg may call what follows on it an InternalClientError. Among InterfaceErrors it
# has one more, for a value that no column takes: `passes_by_itself` knows it apart.
TRANSIENT_ERRORS = (
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that was cut in the middle of a statement
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.ObjectInUseError,
)


def passes_by_itself(error: BaseException) -> bool:
    """Whether the same work may succeed when it is tried again."""
    return isinstance(error, TRANSIENT_ERRORS) and not isinstance(error, ValueError)


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads
    )


async def _reset(_: Connection) -> None:
    """What a session was told stays told: who listens, sets or locks for longer than a transaction has a connection of its
    own (`connect`). So the server is not asked to forget after each use; an open transaction asyncpg ends by itself."""


async def open_pool(url: str, *, size: int = 4) -> Pool:
    """A pool of at most `size` connections; idle ones are closed after a minute, so a quiet site is small."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        max_inactive_connection_lifetime=60.0,
        max_queries=10_000,  # a server process keeps what it has cached (3 to 8 MB): a fresh one now and then is small
        command_timeout=COMMAND_TIMEOUT,
        server_settings=SETTINGS,
        init=_prepare,
        reset=_reset,
    )


async def connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """One connection of its own, for a session lock."""
    connection = await asyncpg.connect(url, command_timeout=COMMAND_TIMEOUT, server_settings=SETTINGS)
    await _prepare(connection)
    return connection
