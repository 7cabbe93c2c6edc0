"""A service on this machine: a predictor and a transformer, two processes on two free loopback ports."""

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from lockstep.errors import Transient
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port
from lockstep.settings import Settings

READY_SECONDS = 90.0  # KServe alone takes 3 s of CPU to import, twice, and much more before its bytecode is compiled


class LocalService:
    """Serves a model directory as long as the `with` block, or from `start` to `stop`.

    Args:
        settings: the store, deadlines and clock, handed on to both processes.
        model_dir: the folder that MLmodel is in.
        name: the model's name.
        shadow: a dark service: nobody acts on its answers.
        ready_seconds: how long to wait until it is ready.
    """

    def __init__(
        self,
        settings: Settings,
        model_dir: Path,
        name: str,
        *,
        shadow: bool = False,
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        self._settings = settings
        self._model_dir = model_dir.resolve()
        self._name = name
        self._shadow = shadow
        self._ready_seconds = ready_seconds
        self._children: list[Child] = []
        self.predictor_port = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def predict_url(self) -> str:
        """Where to post a scoring request."""
        return f"{self.url}/v1/models/{self._name}:predict"

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by role."""
        return {role: child.pid for role, child in zip(("predictor", "transformer"), self._children, strict=False)}

    def start(self) -> Self:
        """Start both processes and wait until the service is ready.

        Raises:
            Transient: it does not become ready in time, or a process ended; the message holds its last words.
        """
        self.predictor_port, self.port = free_port(), free_port()
        try:
            self._start("predictor", self.predictor_port)
            shadow = ["--shadow"] if self._shadow else []
            self._start("transformer", self.port, "--predictor_host", f"{LOOPBACK}:{self.predictor_port}", *shadow)
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End both, the transformer first, so that it answers and logs what it has begun."""
        for child in reversed(self._children):
            child.stop()
        self._children.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, role: str, port: int, *options: str) -> None:
        command = [sys.executable, "-m", f"lockstep.serving.{role}", "--model_name", self._name]
        command += ["--model_dir", str(self._model_dir), "--http_host", LOOPBACK, "--http_port", str(port), *options]
        log = self._settings.home / "logs" / f"{self._name}-{role}-{port}.log"
        self._children.append(Child(f"the {role} of {self._name}", command, log, self._environment()))

    def _environment(self) -> dict[str, str]:
        # The use case is imported from the folder we were started in, as here.
        path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
        return ours | self._settings.environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def _wait(self) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while not self._ready():
            for child in self._children:
                child.require_running()
            if time.monotonic() > deadline:
                words = "\n".join(f"{child.name}:\n{child.last_lines()}" for child in self._children)
                raise Transient(f"{self._name} was not ready within {self._ready_seconds:g} s\n{words}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{self._name}/ready", timeout=1) as answer:  # noqa: S310
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
