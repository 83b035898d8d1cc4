"""One connection to Redis on which the script is called, many calls at once; what goes wrong is one exception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.sharing.script import DIGEST, SOURCE, Command, Reply

# redis-py's own; it has no types for what is called here.
Connection = Any

MISSING = "a package is missing: pip install 'sluiceway[redis]'"


class LinkLost(Exception):
    """The connection cannot be used; its text is fit for a log."""


class Link:
    """A connection that is opened again by `open` after it was lost. Calls must not overlap."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection = None

    async def open(self) -> None:
        """Connect anew; raises LinkLost."""
        await self.close()
        connection = _connection(self._url)
        try:
            await connection.connect()
        except Exception as error:
            await connection.disconnect(nowait=True)
            raise LinkLost(_words(error)) from None
        except BaseException:
            # It took too long: nobody else knows of this connection.
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection

    async def call(self, commands: Sequence[Command]) -> list[Reply | None]:
        """The script's answer to each command, in order; None for one that Redis refused. Raises LinkLost.

        Not repeated when the connection breaks: what was done twice would be counted twice.
        """
        if self._connection is None:
            raise LinkLost("not connected")
        try:
            replies = await _called(self._connection, b"EVALSHA", DIGEST, commands)
            unknown = [place for place, reply in enumerate(replies) if _is_unknown(reply)]
            if unknown:
                again = await _called(self._connection, b"EVAL", SOURCE, [commands[place] for place in unknown])
                for place, reply in zip(unknown, again, strict=True):
                    replies[place] = reply
        except Exception as error:
            raise LinkLost(_words(error)) from None
        return [None if isinstance(reply, Exception) else reply for reply in replies]

    async def close(self) -> None:
        """Hang up, without waiting for anybody."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _connection(url: str) -> Connection:
    """A connection that is not made yet; what the URL says of timeouts and retries does not count."""
    try:
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise LinkLost(MISSING) from None
    try:
        pool: Any = ConnectionPool.from_url(url)
    except ValueError as error:
        raise LinkLost(f"state.url is none that Redis has: {type(error).__name__}") from None
    # Deadlines are the courier's, and a retry would take twice.
    pool.connection_kwargs.update(retry=Retry(NoBackoff(), 0), socket_timeout=None, retry_on_timeout=False)
    return pool.make_connection()


async def _called(
    connection: Connection, how: bytes, script: str | bytes, commands: Sequence[Command]
) -> list[Reply | Exception]:
    """The answers to commands that travel together."""
    from redis.exceptions import ResponseError

    packed = [(how, script, len(each.keys), *each.keys, *each.arguments) for each in commands]
    await connection.send_packed_command(connection.pack_commands(packed), check_health=False)
    replies: list[Reply | Exception] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _is_unknown(reply: Reply | Exception) -> bool:
    """Has Redis forgotten the script, or never known it?"""
    return type(reply).__name__ == "NoScriptError"


def _words(error: Exception) -> str:
    """What went wrong, without address, password or anything else of the URL."""
    cause = error.__cause__ or error.__context__
    return type(error).__name__ if cause is None else f"{type(error).__name__} ({type(cause).__name__})"
