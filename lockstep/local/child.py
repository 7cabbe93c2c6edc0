"""A child process that never outlives us, with its output in a file."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lockstep.errors import Transient

_PR_SET_PDEATHSIG = 1


class Child:
    """A process that was started here, and that only its starter ends.

    On Linux it also ends when its starter dies, whichever way. (The kernel means the starting *thread*: start it from one
    that lives as long as the child is needed.)

    Args:
        name: how messages call it.
        command: the program and its arguments.
        log: the file that takes its output; overwritten.
        env: its whole environment; ours when not given.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509 - one system call, prepared before the fork
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """Raise if it has ended.

        Raises:
            Transient: it has, with its last words.
        """
        if not self.running:
            raise Transient(
                f"{self.name} ended with {self._process.returncode}:\n{self.last_lines()}", hint=f"see {self.log}"
            )

    def last_lines(self, number: int = 20) -> str:
        """Return the end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-number:])

    def stop(self, grace: float = 10.0) -> None:
        """End it: ask, and after `grace` seconds insist."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _dies_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)

    return prepare
