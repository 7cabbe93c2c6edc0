"""One message to a server and its answers, over a connection that is kept.

A pool looks whether anything came on a connection before it lends it, which takes a fifth of a small read's time; redis-py's own
pipeline sets a timer for each answer. So connections are kept here, see `connections`.
"""

import asyncio
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection

from lockstep.online.connections import Connections


class Exchange:
    """What is asked of one server, over connections that are kept."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @classmethod
    def with_server(cls, client: "redis.asyncio.Redis") -> "Exchange":
        """Return one with the server of a client, or the primary that its Sentinels name."""
        pool = client.connection_pool
        return cls(Connections(pool.get_available_connection, pool.ensure_connection, pool.release))

    @classmethod
    def with_node(cls, node: ClusterNode) -> "Exchange":
        """Return one with a node of a cluster."""

        async def connect(connection: AbstractConnection) -> None:
            # It may be open since the cluster was asked for its slots, or look so.
            await connection.disconnect(nowait=True)
            await connection.connect()

        async def give_back(connection: AbstractConnection) -> None:
            node.release(connection)  # pyright: ignore[reportArgumentType] - it came from there

        return cls(Connections(node.acquire_connection, connect, give_back))

    async def ask(self, message: bytes, answers: int) -> list[Any]:
        """Send a message and return its answers, refusals among them.

        Raises:
            redis.RedisError: the server does not answer.
        """
        # A connection that was kept may have been closed meanwhile, as by a server that started again: then another is asked.
        while (kept := self._connections.take_idle()) is not None:
            with suppress(exceptions.ConnectionError):
                return await self._ask_on(kept, message, answers)
        return await self._ask_on(await self._connections.take(), message, answers)

    async def _ask_on(self, connection: AbstractConnection, message: bytes, answers: int) -> list[Any]:
        connections = self._connections
        try:
            found = await _exchange(connection, message, answers)
        except BaseException:
            # A server that vanished without a word would otherwise cost a deadline for each connection that was kept.
            await connections.give_up(connection)
            raise
        await connections.keep(connection)
        return found

    async def leave(self) -> None:
        """Close the connections to a server that is not asked again."""
        await self._connections.discard_idle()
        await self._connections.aclose()

    async def aclose(self) -> None:
        """Give the connections back, those that are in use once they are not."""
        await self._connections.aclose()


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
