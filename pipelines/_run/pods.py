"""Where scripts run: in this process, in warm processes of our own, or in a fresh process each, as in a container.

Whichever it is, a pod is given the same (`_pod.Pod`) and leaves the same: outputs in its folder, its output in its log.
"""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Protocol

from lockstep.local.child import Child
from pipelines._run.crew import Stopped
from pipelines._run.pod import Pod, PodResult, run_script, written

_ALIVE_EVERY = 0.5
"""Seconds after which it is asked whether a silent worker is still there: a grandchild may hold its end of the pipe."""


class Pods(Protocol):
    """Runs pods."""

    def run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        """Run one pod to its end; called from several threads, more may be asked for than run at a time.

        Args:
            pod: what to run.
            begun: called when it begins.

        Raises:
            Stopped: all were ended meanwhile.
        """
        ...

    def stop(self) -> None:
        """End everything that runs, and wait until it has ended."""


class InProcess:
    """Runs pods in this process, in the thread that asks for it."""

    def run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        """Run one pod."""
        begun()
        return run_script(pod)

    def stop(self) -> None:
        """Do nothing: what runs here is interrupted where it runs."""


class _Processes:
    """Child processes, each of which belongs to one of a few threads: the kernel ends a child with the thread it is of."""

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="pods")
        self._children: set[Child] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        """Run one pod, as soon as one of the threads has time."""
        if self._stopped:
            raise Stopped
        try:
            result = self._threads.submit(self._run, pod, begun).result()
        except (CancelledError, RuntimeError):
            if self._stopped:
                raise Stopped from None
            raise
        if self._stopped:
            raise Stopped
        return result

    def stop(self) -> None:
        """End all children."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        self._threads.shutdown(wait=False, cancel_futures=True)
        # each in a thread: one that is deaf to a request to end would keep the others waiting
        enders = [threading.Thread(target=_end, args=(child,)) for child in children]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        self._threads.shutdown()

    def _run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        raise NotImplementedError

    def _begin(self, start: Callable[[], Child]) -> Child:
        """Start a child, and know of it until it is forgotten."""
        with self._lock:
            if self._stopped:
                raise Stopped
            child = start()
            self._children.add(child)
            return child

    def _forget(self, child: Child) -> None:
        with self._lock:
            self._children.discard(child)


class Isolated(_Processes):
    """Runs each pod in a process of its own, which runs what the container would: the rendered command, arguments, variables.

    Args:
        jobs: how many at a time.
    """

    def _run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        begun()
        with tempfile.TemporaryDirectory(prefix="pod-", dir=pod.folder.parent) as staging:
            source = Path(staging) / "script"
            source.write_text(pod.source, encoding="ascii")
            program = [sys.executable] if pod.command[0] == "python" else pod.command[:1]
            command = [*program, *pod.command[1:], str(source)]
            child = self._begin(lambda: Child(command[-2], command, pod.log, _environment() | pod.environment))
            try:
                status = child.wait()
            finally:
                self._forget(child)
                # as with a container: what its first process has left behind ends with it
                child.sweep()
        # a container that a signal has ended has this exit code
        exit_code = 128 - status if status < 0 else status
        return PodResult(exit_code, written(pod), _end_of(status) if exit_code else "")


class Workers(_Processes):
    """Runs pods in a few processes that have imported what steps import, one pod after the other in each.

    Args:
        jobs: how many there are.
        scratch: takes what a worker says outside of pods.
    """

    def __init__(self, jobs: int, scratch: Path) -> None:
        super().__init__(jobs)
        self._scratch = scratch
        self._mine = threading.local()

    def _run(self, pod: Pod, begun: Callable[[], None]) -> PodResult:
        child, connection = self._worker()
        begun()
        try:
            connection.send_bytes(json.dumps(asdict(pod), default=str).encode())
            return PodResult(**json.loads(_answer(child, connection)))
        except (EOFError, OSError):
            status = child.wait()
            self._lose(child, connection)
            said = child.last_lines(3)
            return PodResult(None, {}, f"its process died: {_end_of(status)}" + (f"\n{said}" if said else ""))

    def _worker(self) -> tuple[Child, Connection]:
        """Return the worker of this thread; a new one at first, and when the last one has died."""
        if (mine := getattr(self._mine, "worker", None)) is not None:
            child, connection = mine
            if child.running:
                return mine
            self._lose(child, connection)
        ours, theirs = socketpair()
        with theirs:
            command = [sys.executable, "-m", "pipelines._run.worker", str(theirs.fileno())]
            handle, log = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=self._scratch)
            os.close(handle)
            child = self._begin(
                lambda: Child("a worker", command, Path(log), _environment(), pass_fds=[theirs.fileno()])
            )
        self._mine.worker = child, Connection(ours.detach())
        return self._mine.worker

    def _lose(self, child: Child, connection: Connection) -> None:
        self._mine.worker = None
        connection.close()
        self._forget(child)
        child.sweep()


def _answer(child: Child, connection: Connection) -> bytes:
    """Return what a worker answers.

    Raises:
        EOFError: it has died.
    """
    while not connection.poll(_ALIVE_EVERY):
        if not child.running and not connection.poll():
            raise EOFError
    return connection.recv_bytes()


def _end(child: Child) -> None:
    child.stop()
    child.sweep()


def _environment() -> dict[str, str]:
    """Return our environment, in which a child finds the modules that we find."""
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {**os.environ, "PYTHONPATH": path}


def _end_of(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
