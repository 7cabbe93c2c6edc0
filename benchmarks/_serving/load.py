"""Send prepared requests to one HTTP server over connections that stay open, and tell how long each took.

A process of its own, so that it shares no interpreter lock with what it measures: it reads one `Load` as JSON and prints one
`Taken`. It is started for each measurement and imports nothing that takes long. It waits with select(2), whose time-out is in
microseconds; epoll's and libuv's are in milliseconds, which is as long as a request takes.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle

LOOPBACK = "127.0.0.1"
_END_OF_HEADERS = b"\r\n\r\n"
_LENGTH = b"content-length:"
_OK = b"HTTP/1.1 200"
_STALLED_SECONDS = 30.0


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        port: of the server, on this machine.
        path: what to post to.
        bodies: JSON texts, sent in turn.
        connections: how many requests can be under way at once.
        seconds: for how long requests are begun; each is answered before this ends.
        rate: requests a second, at even intervals. Each counts from when it was due, also when no connection was free. With
            none given, each connection sends its next request as soon as it was answered.
    """

    port: int
    path: str
    bodies: list[str]
    connections: int
    seconds: float
    rate: float | None = None


@dataclass(frozen=True)
class Taken:
    """How long the requests took.

    Attributes:
        seconds: from the first request to the last answer.
        milliseconds: of each request.
    """

    seconds: float
    milliseconds: list[float]


@dataclass(eq=False)
class _Connection:
    """One request at a time."""

    socket: socket.socket
    due: float = 0.0
    received: bytes = b""
    missing: int = -1  # bytes; unknown while the headers are not complete

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        self.due, self.received, self.missing = due, b"", -1
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what has come; return whether the answer is complete."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise SystemExit(f"the server closed the connection after {self.received[:300]!r}")
        if self.missing < 0:
            self.received += piece
            end = self.received.find(_END_OF_HEADERS)
            if end < 0:
                return False
            piece = self.received[end + len(_END_OF_HEADERS) :]
            self.missing = _length(self.received[:end].lower())
            if not self.received.startswith(_OK):
                raise SystemExit(f"the server answered {self.received[:500]!r}")
        self.missing -= len(piece)
        return self.missing == 0


def _length(headers: bytes) -> int:
    start = headers.find(_LENGTH)
    if start < 0:
        raise SystemExit(f"the server does not tell how long its answer is: {headers!r}")
    return int(headers[start + len(_LENGTH) :].split(b"\r\n", 1)[0])


def send(load: Load) -> Taken:
    """Send it all."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(_connect(load.port)) for _ in range(load.connections)]
        return _send(load, [_Connection(each) for each in sockets])


def _send(load: Load, idle: list[_Connection]) -> Taken:
    requests = cycle([_request(load, body.encode()) for body in load.bodies])
    busy: list[_Connection] = []
    taken: list[float] = []
    interval = 1 / load.rate if load.rate else None
    start = now = time.perf_counter()
    due, end = start, start + load.seconds
    while busy or due < end:
        while idle and due <= now and due < end:
            connection = idle.pop()
            connection.send(next(requests), due)
            busy.append(connection)
            due = due + interval if interval else time.perf_counter()
            now = time.perf_counter()
        wait = max(due - now, 0) if idle and due < end else _STALLED_SECONDS
        for connection in _readable(busy, wait):
            if connection.answered():
                taken.append((time.perf_counter() - connection.due) * 1_000)
                busy.remove(connection)
                idle.append(connection)
        now = time.perf_counter()
        due = due if interval else now
    return Taken(seconds=now - start, milliseconds=taken)


def _readable(busy: Sequence[_Connection], wait: float) -> Sequence[_Connection]:
    found = select.select(busy, [], [], wait)[0]
    if not found and wait == _STALLED_SECONDS:
        raise SystemExit(f"no answer within {wait:g} s")
    return found


def _request(load: Load, body: bytes) -> bytes:
    headers = (
        f"POST {load.path} HTTP/1.1\r\nHost: {LOOPBACK}:{load.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return headers.encode() + body


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    print(json.dumps(asdict(send(Load(**json.load(sys.stdin))))))
