"""A child process that never outlives us, with its output in a file."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lockstep.errors import Transient
from lockstep.local.ports import PortTaken, says_taken

_PR_SET_PDEATHSIG = 1


class Child:
    """A process that was started here, and that only its starter ends.

    On Linux it also ends when its starter dies, whichever way. (The kernel means the starting *thread*: start it from one
    that lives as long as the child is needed.) A Ctrl-C reaches the starter alone, who ends its children in order: the
    one that still has something to write before the one that it writes to.

    Args:
        name: how messages call it.
        command: the program and its arguments.
        log: the file that takes its output; overwritten.
        env: its whole environment; ours when not given.
        pass_fds: descriptors of ours that it has, too.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
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
                process_group=0,
                pass_fds=pass_fds,
                preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509 - system calls only, prepared before the fork
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait until it has ended; return its exit code, or -n if signal n ended it."""
        return self._process.wait()

    def require_running(self) -> None:
        """Raise if it has ended.

        Raises:
            PortTaken: it has, because its port is taken.
            Transient: it has, with its last words.
        """
        if not self.running:
            kind = PortTaken if says_taken(self.log.read_text(errors="replace")) else Transient
            raise kind(
                f"{self.name} ended with {self._process.returncode}:\n{self.last_lines()}", hint=f"see {self.log}"
            )

    def last_lines(self, number: int = 20) -> str:
        """Return the end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-number:])

    def sweep(self) -> None:
        """Kill what it has left behind, once it has ended: the processes of its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self, grace: float = 10.0) -> None:
        """End it: ask, and after `grace` seconds, or when something interrupts the wait, insist."""
        try:
            if self.running:
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        finally:
            if self.running:
                self._process.kill()
                self._process.wait()


def _dies_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        # Until the program is executed a handler of ours would only note the signal, and then it would be forgotten.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)

    return prepare
