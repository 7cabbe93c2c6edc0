"""The connections to one server that are kept for the next message, and how new ones are opened.

A request's deadline is shorter than it may take to open a connection: a Sentinel that hangs is given up before the next one is
asked, a certificate is checked. So each is opened in a task of its own, which goes on when the request that wanted it is given
up: the next request finds it open.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

# So many are opened at once: an outage must not pile them up, and a connection that answered is worth as much as a new one.
_MOST_OPENING = 8
# How often one that failed takes the idle ones with it: new ones cost a handshake each, more time-outs where time is short.
_GIVE_UP_AGAIN_SECONDS = 1.0


class Connections:
    """As many connections as there are messages at once.

    Args:
        lend: has a connection, open or not.
        connect: opens it.
        give_back: takes it back, closed; open only at the end.
    """

    def __init__(
        self,
        lend: Callable[[], AbstractConnection],
        connect: Callable[[AbstractConnection], Awaitable[None]],
        give_back: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._lend = lend
        self._connect = connect
        self._give_back = give_back
        self._idle: list[AbstractConnection] = []
        self._waiting: deque[asyncio.Future[AbstractConnection]] = deque()
        self._opening: set[asyncio.Task[AbstractConnection]] = set()
        self._gave_up = -math.inf
        self._closed = False

    def take_idle(self) -> AbstractConnection | None:
        """Return a connection that is kept, if there is one; the server may have closed it meanwhile."""
        return self._idle.pop() if self._idle else None

    async def take(self) -> AbstractConnection:
        """Return a new connection, or one that another message needs no more, whichever comes first.

        Raises:
            redis.RedisError: none could be opened, or all are being closed.
        """
        if self._closed:
            raise exceptions.ConnectionError("the connections were closed")
        waiter: asyncio.Future[AbstractConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._open()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if not waiter.cancelled() and waiter.exception() is None:  # it came in the same turn of the loop
                await self.keep(waiter.result())
            raise

    async def keep(self, connection: AbstractConnection) -> None:
        """Keep a connection that works, for who waits for one or for the next message, unless all are being closed."""
        if self._closed:
            await self.discard(connection)
        else:
            self._hand_on(connection)

    async def discard(self, connection: AbstractConnection) -> None:
        """Close a connection without waiting for the other end, which may be gone."""
        await connection.disconnect(nowait=True)
        await self._give_back(connection)

    async def give_up(self, connection: AbstractConnection) -> None:
        """Close one that failed, and all that are idle: what happened to it is likely to have happened to them.

        Those in use are kept if they are answered on: then it did not.
        """
        await self.discard(connection)
        now = time.monotonic()
        if now - self._gave_up >= _GIVE_UP_AGAIN_SECONDS:
            self._gave_up = now
            await self.discard_idle()

    async def discard_idle(self) -> None:
        """Close all that are idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await self.discard(connection)

    async def aclose(self) -> None:
        """Give all back, those in use once they are not, and end what is being opened; their owner closes the idle ones."""
        self._closed = True
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(exceptions.ConnectionError("the connections were closed"))
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        ended = await asyncio.gather(*opening, return_exceptions=True)
        for connection in (*self._idle, *(one for one in ended if not isinstance(one, BaseException))):
            await self._give_back(connection)
        self._idle.clear()

    def _hand_on(self, connection: AbstractConnection) -> None:
        waiter = self._next_waiter() if self._waiting else None
        if waiter is None:
            self._idle.append(connection)
        else:
            waiter.set_result(connection)

    def _next_waiter(self) -> "asyncio.Future[AbstractConnection] | None":
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                return waiter
        return None

    def _open(self) -> None:
        if len(self._opening) < _MOST_OPENING:
            task = asyncio.create_task(self._opened())
            self._opening.add(task)
            task.add_done_callback(self._has_opened)

    def _has_opened(self, task: "asyncio.Task[AbstractConnection]") -> None:
        self._opening.discard(task)
        if task.cancelled() or self._closed:
            return
        if (failure := task.exception()) is None:
            self._hand_on(task.result())
        elif (waiter := self._next_waiter()) is not None:
            waiter.set_exception(failure)
        if len(self._waiting) > len(self._opening):
            self._open()

    async def _opened(self) -> AbstractConnection:
        connection: Any = self._lend()
        # One limit for all of it. With a time-out of its own redis-py sends by way of asyncio.wait_for, which up to Python 3.11
        # forgets that it was cancelled if what it waited for came in the same turn of the loop: the limit would pass unnoticed.
        # https://github.com/python/cpython/issues/86296
        limit: float | None = connection.socket_connect_timeout
        seconds, connection.socket_timeout = connection.socket_timeout, None
        try:
            async with asyncio.timeout(limit):
                await self._connect(connection)
        except TimeoutError as late:
            await self.discard(connection)
            raise exceptions.TimeoutError(f"no connection was opened in {limit:g} s") from late
        except BaseException:
            await self.discard(connection)
            raise
        finally:
            connection.socket_timeout = seconds
        return connection
