"""A server in place of a predictor that answers whatever it is told to, byte by byte if need be."""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import orjson

from lockstep.local.ports import LOOPBACK

NAME = "fraud"
Saying = Callable[[str, int], Iterator[bytes]]
"""Makes the pieces of an answer of the model's digest and the number of rows; after the last one the connection is closed."""


def http(body: bytes, status: str = "200 OK", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status.encode(),
        size,
        body,
    )


def says(document: Any, status: str = "200 OK") -> Saying:
    """Answer this document, or these bytes, with the model's digest where the document says nothing of a model."""

    def answer(digest: str, _: int) -> Iterator[bytes]:
        told = {"model": digest} | document if isinstance(document, dict) else document
        yield http(told if isinstance(told, bytes) else orjson.dumps(told), status)

    return answer


def scores(digest: str, rows: int) -> Iterator[bytes]:
    yield http(orjson.dumps({"predictions": [0.5] * rows, "model": digest}))


def late(seconds: float) -> Saying:
    """Answer well, so much later."""

    def answer(digest: str, rows: int) -> Iterator[bytes]:
        time.sleep(seconds)
        yield from scores(digest, rows)

    return answer


def breaks_off(digest: str, rows: int) -> Iterator[bytes]:
    whole = b"".join(scores(digest, rows))
    yield whole[: len(whole) - 20]


def closes(_: str, __: int) -> Iterator[bytes]:
    return iter(())


def is_silent(_: str, __: int) -> Iterator[bytes]:
    time.sleep(1.0)
    yield b""


def trickles(digest: str, rows: int) -> Iterator[bytes]:
    for byte in b"".join(scores(digest, rows)):
        yield bytes([byte])
        time.sleep(0.02)


class FalsePredictor:
    """Says it is ready to serve models, and answers a request as `saying` does; a context manager.

    Args:
        digest: which model it says it serves.
        contracts: the hash of the contract by the model's name.
    """

    def __init__(self, digest: str, contracts: Mapping[str, str]) -> None:
        self.digest = digest
        self.contracts = contracts
        self.saying: Saying = scores
        self.asked = 0
        self.port = 0

    def open(self) -> None:
        """Listen, where it did before."""
        owner = self

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                owner._connections.append(self.connection)
                with suppress(OSError):
                    while owner._answer(self.rfile, self.wfile):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._connections: list[socket.socket] = []
        self._server = Server((LOOPBACK, self.port), Connection)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Leave the port to another one, and end the connections."""
        self._server.shutdown()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, given: Any, taken: Any) -> bool:
        """Answer one request; return whether the connection goes on."""
        first, length = given.readline().decode(), 0
        if not first:
            return False
        while line := given.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = given.read(length)
        path = first.split()[1]
        if first.startswith("GET"):
            name = path.rsplit("/", 1)[-1]
            state = {"name": name, "ready": True, "model": self.digest, "contract": self.contracts.get(name, "")}
            taken.write(http(orjson.dumps(state)))
            return True
        self.asked += 1
        saying = self.saying
        for piece in saying(self.digest, len(orjson.loads(body)["instances"])):
            taken.write(piece)
        return saying is scores
