"""Start the peers' processes, and read what the processes of a service have cost so far."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import click

from lockstep.local.child import Child
from lockstep.local.ports import free_port, listens

_READY_SECONDS = 90.0


class PeerProcess:
    """A server on a loopback port of its own, as long as the `with` block; `wait` for it before anything is asked.

    Arithmetic has one thread there, as in our own processes.

    Args:
        name: how messages call it.
        command: the program and its arguments; `{port}` stands for the port.
        home: the folder for its output.
    """

    def __init__(self, name: str, command: Sequence[str], home: Path) -> None:
        self.port = free_port()
        words = [word.format(port=self.port) for word in command]
        path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self._child = Child(name, words, home / "logs" / f"{name}.log", environment)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def wait(self) -> None:
        """Wait until it listens.

        Raises:
            Transient: it has ended; the message holds its last words.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not listens(self.pid, self.port):
            self._child.require_running()
            if time.monotonic() > deadline:
                raise click.ClickException(f"{self._child.name} does not listen:\n{self._child.last_lines()}")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


def kserve_peer(module: str, model: str, home: Path, *options: str) -> PeerProcess:
    """Start one of the programs beside this one."""
    command = [sys.executable, "-m", f"benchmarks._serving.{module}"]
    return PeerProcess(module, [*command, "--model_name", model, "--http_port", "{port}", *options], home)


def feature_server(repository: Path, home: Path) -> PeerProcess:
    """Start Feast's feature server; its worker stays: by default it ends after 1,000 requests, and starting is not serving."""
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "--chdir", str(repository), "serve", "--port", "{port}", "--max-requests", "0"]
    return PeerProcess("feature-server", command, home)


def cpu_seconds_of(pid: int) -> float:
    """Return the user and system seconds that a process and its children have spent."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc_pid_stat(5)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds_of(int(child)) for child in children)
