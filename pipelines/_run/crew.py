"""What of a run goes on at the same time: all in turn in one thread, or a thread for each task that waits for its pod.

Threads only wait; what is run is run by `pipelines._run.pods`. The main thread does nothing but hear signals and ask questions.
"""

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_PATIENCE = 15.0
"""Seconds until threads whose children were ended have noticed."""


class Stopped(Exception):
    """The run is being ended: nobody waits for what this thread does."""


class Crew(Protocol):
    """Who does the parts of a run."""

    def lead(self, work: Callable[[], T]) -> T:
        """Do the whole, called from the main thread."""
        ...

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Do a part; what it raises is raised by the future's `result`."""
        ...

    def wait(self, parts: Collection[Future[Any]]) -> None:
        """Wait until one of these is done."""

    def in_main(self, work: Callable[[], T]) -> T:
        """Do something in the main thread: what reads from a terminal can only be interrupted there."""
        ...

    def stop(self) -> None:
        """Wait until all parts have ended, once what they wait for is gone."""


class Alone:
    """Does each part when it is started, in the thread that starts it."""

    def lead(self, work: Callable[[], T]) -> T:
        """Do the whole."""
        return work()

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Do a part, to its end."""
        done: Future[T] = Future()
        done.set_result(work())
        return done

    def wait(self, parts: Collection[Future[Any]]) -> None:
        """Do nothing: what was started is done."""

    def in_main(self, work: Callable[[], T]) -> T:
        """Do something."""
        return work()

    def stop(self) -> None:
        """Do nothing."""


class Threads:
    """Does each part in a thread of its own."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._stopped = False

    def lead(self, work: Callable[[], T]) -> T:
        """Do the whole in a thread, and meanwhile in this one what is asked for by `in_main`."""
        whole = self.start(work)
        whole.add_done_callback(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            call()
        return whole.result()

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Do a part."""
        done: Future[T] = Future()
        # A daemon: an interpreter that ends does not wait for it. All are waited for in `stop`.
        thread = threading.Thread(target=_fulfil, args=(done, work), daemon=True)
        self._threads.append(thread)
        thread.start()
        return done

    def wait(self, parts: Collection[Future[Any]]) -> None:
        """Wait until one of these is done."""
        wait(parts, return_when=FIRST_COMPLETED)

    def in_main(self, work: Callable[[], T]) -> T:
        """Do something in the main thread.

        Raises:
            Stopped: the main thread does nothing any more.
        """
        done: Future[T] = Future()
        self._calls.put(lambda: _fulfil(done, work, fatal=True))
        while True:
            with suppress(TimeoutError):
                return done.result(timeout=0.5)
            if self._stopped:
                raise Stopped

    def stop(self) -> None:
        """Wait until all parts have ended."""
        self._stopped = True
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


def _fulfil(done: Future[T], work: Callable[[], T], *, fatal: bool = False) -> None:
    """Do the work of a future; an error that is `fatal` is raised here too, where an interrupt arrived."""
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error if isinstance(error, Exception) else Stopped())
        if fatal or not isinstance(error, Exception):
            raise
