"""One message to a server and its answers, over a connection that is kept.

A pool looks whether anything came on a connection before it lends it, which takes a fifth of a small read's time; redis-py's own
pipeline sets a timer for each answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection


class Exchange:
    """The connections to one server that are kept for the next message; as many as there are messages at once.

    Args:
        borrow: has a connection.
        give_back: takes one that failed.
    """

    def __init__(
        self,
        borrow: Callable[[], Awaitable[AbstractConnection]],
        give_back: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._borrow = borrow
        self._give_back = give_back
        self._idle: list[AbstractConnection] = []
        self._closed = False

    @classmethod
    def with_server(cls, client: "redis.asyncio.Redis") -> "Exchange":
        """Return one with the server of a client, or the primary that its Sentinels name."""
        pool = client.connection_pool

        async def borrow() -> AbstractConnection:
            connection = pool.get_available_connection()
            # With a time-out redis-py sends by way of asyncio.wait_for, which up to Python 3.11 forgets that it was cancelled if
            # what it waited for came in the same turn of the loop: a request's deadline passed unnoticed, and the next one was
            # the socket's, 10 s later. https://github.com/python/cpython/issues/86296
            seconds, connection.socket_timeout = connection.socket_timeout, None
            try:
                async with asyncio.timeout(seconds):
                    await pool.ensure_connection(connection)
            except TimeoutError as late:
                await pool.release(connection)
                raise exceptions.TimeoutError(f"no connection was opened in {seconds:g} s") from late
            except BaseException:
                await pool.release(connection)
                raise
            finally:
                connection.socket_timeout = seconds
            return connection

        return cls(borrow, pool.release)

    @classmethod
    def with_node(cls, node: ClusterNode) -> "Exchange":
        """Return one with a node of a cluster."""

        async def borrow() -> AbstractConnection:
            return node.acquire_connection()  # it connects when it sends

        async def give_back(connection: AbstractConnection) -> None:
            await connection.disconnect()
            node.release(connection)  # pyright: ignore[reportArgumentType] - it came from there

        return cls(borrow, give_back)

    async def ask(self, message: bytes, answers: int) -> list[Any]:
        """Send a message and return its answers, refusals among them.

        Raises:
            redis.RedisError: the server does not answer.
        """
        # A connection that was kept may have been closed meanwhile, as by a server that started again: then another is asked.
        while self._idle:
            with suppress(exceptions.ConnectionError):
                return await self._ask_on(self._idle.pop(), message, answers)
        return await self._ask_on(await self._borrow(), message, answers)

    async def _ask_on(self, connection: AbstractConnection, message: bytes, answers: int) -> list[Any]:
        try:
            found = await _exchange(connection, message, answers)
        except BaseException:
            await self._give_back(connection)
            raise
        if self._closed:
            await self._give_back(connection)
        else:
            self._idle.append(connection)
        return found

    async def close(self) -> None:
        """Give the connections back, those that are in use once they are not."""
        self._closed = True
        while self._idle:
            await self._give_back(self._idle.pop())


async def _exchange(connection: AbstractConnection, message: bytes, answers: int) -> list[Any]:
    """Send the message and return its answers, refusals among them.

    A connection on which this was given up is closed by redis-py, so that no late answer is taken for the next one's.
    """
    # One timer for all the answers, in place of redis-py's for each.
    seconds, connection.socket_timeout = connection.socket_timeout, None
    found: list[Any] = []
    try:
        async with asyncio.timeout(seconds):
            await connection.send_packed_command(message)
            for _ in range(answers):
                try:
                    found.append(await connection.read_response())
                except exceptions.ResponseError as refused:
                    found.append(refused)
    except TimeoutError as late:
        raise exceptions.TimeoutError(f"{len(found)} of {answers} answers came in {seconds:g} s") from late
    finally:
        connection.socket_timeout = seconds
    return found


def packed(*words: bytes) -> bytes:
    """Return words of a command as the Redis protocol has them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def read_hash(key: str) -> bytes:
    """Return the command that reads a whole hash."""
    return b"*2\r\n" + packed(b"HGETALL", key.encode())


def hash_of(raw: Any) -> dict[bytes, bytes]:
    """Return such a hash: the newer protocol answers with a mapping, the older one with names and values in turn."""
    return raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
