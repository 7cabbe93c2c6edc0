import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lockstep.errors import Transient
from lockstep.local import LocalService
from lockstep.local.ports import LOOPBACK, free_port
from lockstep.settings import Settings


class AlwaysReady(BaseHTTPRequestHandler):
    """Somebody else's server, which says yes to everything."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()


@contextmanager
def always_ready(port: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Give its port, and what it was asked."""
    asked: list[str] = []
    handler = type("Handler", (AlwaysReady,), {"asked": asked})
    with ThreadingHTTPServer((LOOPBACK, port), handler) as server:
        answering = Thread(target=server.serve_forever, args=(0.05,))
        answering.start()
        yield server.server_port, asked
        server.shutdown()
        answering.join()


def test_a_service_that_cannot_start_says_why_and_leaves_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    service = LocalService(settings, tmp_path / "nowhere", "fraud")

    with pytest.raises(Transient) as failed:
        service.start()

    assert "ended with 2" in str(failed.value)
    assert f"{tmp_path}/nowhere is no model directory: it has no MLmodel" in str(failed.value)
    assert service.pids == {}
    logs = sorted(path.name.rpartition("-")[0] for path in (settings.home / "logs").iterdir())
    assert logs == ["fraud-predictor", "fraud-transformer"]


def test_a_service_that_does_not_become_ready_in_time_is_ended(settings: Settings, tmp_path: Path) -> None:
    service = LocalService(settings, tmp_path, "fraud", ready_seconds=0.0)

    with pytest.raises(Transient, match="fraud was not ready within 0 s\nthe predictor of fraud:"):
        service.start()

    assert service.pids == {}


def test_of_two_wanted_ports_the_one_that_is_taken_is_replaced(settings: Settings, tmp_path: Path) -> None:
    wanted = free_port()
    with always_ready() as (taken, asked):
        service = LocalService(settings, tmp_path, "fraud", port=wanted, predictor_port=taken, ready_seconds=0.0)
        with pytest.raises(Transient, match="not ready within 0 s"):
            service.start()

    assert service.port == wanted
    assert service.predictor_port not in (0, taken, wanted)
    assert asked == []


def test_one_port_wanted_twice_is_given_once(settings: Settings, tmp_path: Path) -> None:
    wanted = free_port()
    service = LocalService(settings, tmp_path, "fraud", port=wanted, predictor_port=wanted, ready_seconds=0.0)

    with pytest.raises(Transient, match="not ready within 0 s"):
        service.start()

    assert service.port == wanted
    assert service.predictor_port not in (0, wanted)


def test_another_s_server_on_the_port_is_not_taken_for_the_service(settings: Settings, tmp_path: Path) -> None:
    service = LocalService(settings, tmp_path / "nowhere", "fraud", port=free_port())
    wanted, asked, done = service.port, [], []

    def squat() -> None:
        while not service.pids:
            time.sleep(0.001)
        with always_ready(wanted) as (_, questions):
            while not done:
                time.sleep(0.01)
            asked.extend(questions)

    squatter = Thread(target=squat)
    squatter.start()
    try:
        # That the model is not there is found by the second pair of processes, on another port.
        with pytest.raises(Transient, match=f"{tmp_path}/nowhere is no model directory"):
            service.start()
    finally:
        done.append(True)
        squatter.join()

    assert service.port not in (0, wanted)
    assert asked == []
    logs = [path.name for path in (settings.home / "logs").iterdir()]
    assert sorted(name for name in logs if "transformer" in name) == sorted(
        f"fraud-transformer-{port}.log" for port in (wanted, service.port)
    )


def test_the_serving_processes_import_neither_feast_nor_mlflow_and_the_transformer_no_scikit_learn() -> None:
    program = (
        "import sys, lockstep.serving.transformer, lockstep.serving.predictor\n"
        "print(sorted({'feast', 'mlflow', 'pyiceberg', 'duckdb', 'sklearn', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
