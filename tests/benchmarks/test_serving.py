"""What sends the requests counts each of them, from when it was due; a row's figures are medians. How fast is not asserted."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread

import pytest

from benchmarks._serving.load import Load, send
from benchmarks._serving.targets import OURS, SDK, Pace
from benchmarks.serving import rows


class Server(ThreadingHTTPServer):
    """Keeps what it is sent; can hold up the first request, wait for others to be under way, and refuse."""

    daemon_threads = True

    def __init__(self, first_seconds: float = 0.0, together: int = 1, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.first_seconds, self.status = first_seconds, status
        self.together = Barrier(together)
        self.received: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))
        if len(self.server.received) == 1:
            time.sleep(self.server.first_seconds)
        if len(self.server.received) <= self.server.together.parties:
            self.server.together.wait(10)
        self.send_response(self.server.status)
        length = 100_000 if self.server.status == 200 else 10  # more than one read, or less
        self.send_header("Content-Length", str(length))
        if self.server.status != 200:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"x" * length)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@contextmanager
def serving(server: Server) -> Generator[Server]:
    with server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def load(server: Server, connections: int, seconds: float, rate: float | None = None) -> Load:
    return Load(
        port=server.server_port,
        path="/ask",
        bodies=["1", "22"],
        connections=connections,
        seconds=seconds,
        rate=rate,
    )


def test_each_connection_sends_its_next_request_when_it_was_answered() -> None:
    with serving(Server(together=3)) as server:  # which answers nobody before three have asked
        taken = send(load(server, connections=3, seconds=0.2))

    assert len(taken.milliseconds) == len(server.received) > 3
    bodies = [body for _, body in server.received]
    assert abs(bodies.count(b"1") - bodies.count(b"22")) <= 1
    assert {path for path, _ in server.received} == {"/ask"}
    assert taken.seconds >= 0.2


def test_at_a_rate_whoever_was_due_while_the_server_stalled_has_waited_since_then() -> None:
    with serving(Server(first_seconds=0.2)) as server:
        taken = send(load(server, connections=1, seconds=0.3, rate=100))

    assert len(taken.milliseconds) == len(server.received) == 30
    for number, milliseconds in enumerate(taken.milliseconds[:20]):
        assert milliseconds >= 200 - 10 * number


def test_an_answer_that_is_none_ends_it() -> None:
    with serving(Server(status=503)) as server, pytest.raises(SystemExit, match="503"):
        send(load(server, connections=1, seconds=0.1))


def test_a_row_has_the_medians_of_its_rounds_and_its_cpu_over_ours_of_the_same_round() -> None:
    def round_of(p50: float, cpu: float) -> dict[str, float]:
        return {"p50_ms": p50, "requests_per_s": 1_000 / p50, "cpu_ms": cpu}

    one = Pace(1)
    figures = {
        (one, OURS): [round_of(1, 3), round_of(9, 2), round_of(2, 1)],
        (one, SDK): [round_of(4, 5), round_of(5, 6), round_of(40, 4)],
    }

    ours, peer = rows(figures, 3)

    assert ours == {
        "case": OURS,
        "pace": "1 connection",
        "connections": 1,
        "rate": None,
        "repeats": 3,
        "p50_ms": 2,
        "requests_per_s": 500,
        "cpu_ms": 2,
        "ratio": 1,
    }
    assert (peer["case"], peer["p50_ms"], peer["cpu_ms"], peer["ratio"]) == (SDK, 5, 5, 3)
