"""A wire to a Redis server that something befalls after so many bytes, and a process that materializes over it."""

import multiprocessing
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from lockstep.lake import Lake
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.materialize.spend import SPEND

PROCESSES: Any = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.faults.wire"])


class Wire:
    """Passes bytes on, and counts them; once `after` of one direction have passed, `befall` is called, and they go on.

    Args:
        port: the server's.
        after: so many bytes; None is never.
        befall: what happens then.
        answers: count what the server answers, not what it is sent.
    """

    def __init__(
        self, port: int, after: int | None = None, befall: Callable[["Wire"], None] = bool, *, answers: bool = False
    ) -> None:
        self._server = port
        self._after = after
        self._befall = befall
        self._counts_answers = answers
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._silent: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        self.connections = 0
        self.befell = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection there is; new ones are taken."""
        while self._sockets:  # others may be added, or cut by another thread, meanwhile
            with suppress(IndexError):
                end = self._sockets.pop()
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def swallow(self) -> None:
        """Pass nothing on any more over the connections there are, without ending them; new ones work."""
        self._silent = set(self._sockets)

    def befall_after(self, count: int, befall: Callable[["Wire"], None]) -> None:
        """Have something happen after so many more bytes."""
        self.passed, self._after, self._befall = 0, count, befall

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server, and end those there are."""
        self._server = port
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._server))
                except OSError:
                    client.close()
                    continue
                self.connections += 1
                self._sockets += [client, server]
                for source, target, counts in (
                    (client, server, not self._counts_answers),
                    (server, client, self._counts_answers),
                ):
                    threading.Thread(target=self._pump, args=(source, target, counts), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if source in self._silent:
                    continue
                first = self._count(len(data)) if counts else len(data)
                target.sendall(data[:first])
                if first < len(data):
                    self._befall(self)
                    target.sendall(data[first:])
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int) -> int:
        """Return how many of the next bytes pass before it happens: never all, so that somebody waits for the rest."""
        with self._lock:
            before, self.passed = self.passed, self.passed + length
            if self._after is None or self.befell or self.passed <= self._after:
                return length
            self.befell = True
            return self._after - before


def materialize(settings: Settings, chunks: int = 1) -> None:
    """Bring `spend` online, as a process of its own does."""
    lake, ledger = Lake.open(settings, "test"), Ledger.open(settings, "test")
    with connect(settings) as store:
        materializer = Materializer(settings, lake, ledger, store, "test", SPEND)
        plan = materializer.plan(chunks)
        if plan.interval is not None:
            materializer.verify(plan.interval, [materializer.write(plan.interval, chunk) for chunk in plan.chunks])
            materializer.commit(plan.interval)


def started(settings: Settings, chunks: int = 1) -> Any:
    """Start such a process."""
    process = PROCESSES.Process(target=materialize, args=(settings, chunks))
    process.start()
    return process
