"""A service on this machine: a predictor and a transformer, two processes on two loopback ports."""

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lockstep.errors import Transient
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port, listens, on_usable_ports, usable_port
from lockstep.settings import Settings

# Feast sets these where it is imported. A process that has them keeps its metrics in files, and shows none.
_MULTIPROCESS = {"PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"}
READY_SECONDS = 90.0  # KServe alone takes 3 s of CPU to import, twice, and much more before its bytecode is compiled


class LocalService:
    """Serves a model directory as long as the `with` block, or from `start` to `stop`.

    Args:
        settings: the store, deadlines and clock, handed on to both processes.
        model_dir: the folder that MLmodel is in.
        name: the model's name.
        shadow: a dark service: nobody acts on its answers.
        port: where the transformer should listen. If that is taken, and for 0, it listens on a free port; `port` is known
            once the service is started.
        predictor_port: the same for the predictor.
        transformer: the module that is run as the transformer, with its arguments and `options`.
        options: what else that module is told.
        ready_seconds: how long to wait until it is ready.
    """

    def __init__(
        self,
        settings: Settings,
        model_dir: Path,
        name: str,
        *,
        shadow: bool = False,
        port: int = 0,
        predictor_port: int = 0,
        transformer: str = "lockstep.serving.transformer",
        options: Sequence[str] = (),
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        self._settings = settings
        self._model_dir = model_dir.resolve()
        self._name = name
        self._shadow = shadow
        self._ready_seconds = ready_seconds
        self._children: list[Child] = []
        self._transformer, self._options = transformer, tuple(options)
        self._wanted = port
        self._wanted_predictor = predictor_port
        self.predictor_port = predictor_port
        self.port = port

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
        on_usable_ports(self._start_both)
        return self

    def _start_both(self) -> None:
        self.port = usable_port(self._wanted)
        self.predictor_port = usable_port(self._wanted_predictor)
        if self.predictor_port == self.port:  # neither listens yet
            self.predictor_port = free_port()
        try:
            self._start("predictor", "lockstep.serving.predictor", self.predictor_port)
            options = [*self._options, *(["--shadow"] if self._shadow else [])]
            predictor = f"{LOOPBACK}:{self.predictor_port}"
            self._start("transformer", self._transformer, self.port, "--predictor_host", predictor, *options)
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End both, the transformer first, so that it answers and logs what it has begun."""
        with ExitStack() as stack:  # the next one is ended even if something interrupts the end of this one
            stack.callback(self._children.clear)
            for child in self._children:
                stack.callback(child.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, role: str, module: str, port: int, *options: str) -> None:
        command = [sys.executable, "-m", module, "--model_name", self._name]
        command += ["--model_dir", str(self._model_dir), "--http_host", LOOPBACK, "--http_port", str(port), *options]
        log = self._settings.home / "logs" / f"{self._name}-{role}-{port}.log"
        self._children.append(Child(f"the {role} of {self._name}", command, log, serving_environment(self._settings)))

    def _wait(self) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while not (self._listen() and self._ready()):
            for child in self._children:
                child.require_running()
            if time.monotonic() > deadline:
                words = "\n".join(f"{child.name}:\n{child.last_lines()}" for child in self._children)
                raise Transient(f"{self._name} was not ready within {self._ready_seconds:g} s\n{words}")
            time.sleep(0.05)

    def _listen(self) -> bool:
        """Whether both processes listen; a server that was there before is not even asked whether it is ready."""
        ports = (self.predictor_port, self.port)
        listening = [listens(child.pid, port) for child, port in zip(self._children, ports, strict=True)]
        return all(listening)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{self._name}/ready", timeout=1) as answer:  # noqa: S310
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def serving_environment(settings: Settings) -> dict[str, str]:
    """Return the variables of a process that serves: ours, but with these settings."""
    # The use case is imported from the folder we were started in, as here.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LOCKSTEP_") and name not in _MULTIPROCESS
    }
    return ours | settings.environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
