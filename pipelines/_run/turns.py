"""Whose turn it is: at most `parallelism` parts of a template at a time, at most one holder of a mutex.

https://argo-workflows.readthedocs.io/en/latest/parallelism/ · https://argo-workflows.readthedocs.io/en/latest/synchronization/
"""

import threading
from collections.abc import Collection, Generator, Hashable, Mapping
from contextlib import contextmanager

from pipelines._manifest.expressions import ExpressionError
from pipelines._run.crew import Stopped


class _Request:
    """Somebody who waits for some things together."""

    def __init__(self, claims: Mapping[Hashable, int]) -> None:
        self.claims, self.granted = claims, False


class Turns:
    """Gives out turns in the order they were asked for, everything that one asks for together or nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[_Request] = []
        self._taken: dict[Hashable, int] = {}
        self._holders: dict[str, str] = {}
        self._stopped = False

    @contextmanager
    def place(self, around: Hashable, most: int | None) -> Generator[None]:
        """Take one of the places that a template has for its parts; without a limit there is nothing to wait for."""
        with self._turn({("place", around): most} if most else {}):
            yield

    @contextmanager
    def holding(self, mutexes: Collection[str], path: str) -> Generator[None]:
        """Hold some mutexes.

        Raises:
            ExpressionError: what holds one of them is around this node, and would wait for it for ever, as on Argo.
        """
        for name in mutexes:
            holder = self._holders.get(name)
            if holder is not None and (not holder or path.startswith((f"{holder}.", f"{holder}["))):
                raise ExpressionError(
                    f"it waits for the mutex {name!r}, which {holder or 'the entrypoint'} around it holds"
                )
        with self._turn({("mutex", name): 1 for name in mutexes}):
            self._holders.update(dict.fromkeys(mutexes, path))
            try:
                yield
            finally:
                for name in mutexes:
                    del self._holders[name]

    def pause(self, seconds: float) -> None:
        """Wait a while.

        Raises:
            Stopped: the run is being ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)
            if self._stopped:
                raise Stopped

    def stop(self) -> None:
        """Let everybody who waits, or comes to, raise instead."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @contextmanager
    def _turn(self, claims: Mapping[Hashable, int]) -> Generator[None]:
        request = _Request(claims)
        with self._changed:
            self._line.append(request)
            self._grant()
            self._changed.wait_for(lambda: request.granted or self._stopped)
            if not request.granted:
                raise Stopped
        try:
            yield
        finally:
            with self._changed:
                for claim in claims:
                    self._taken[claim] -= 1
                self._grant()
                self._changed.notify_all()

    def _grant(self) -> None:
        for request in list(self._line):
            if all(self._taken.get(claim, 0) < most for claim, most in request.claims.items()):
                self._line.remove(request)
                request.granted = True
                for claim in request.claims:
                    self._taken[claim] = self._taken.get(claim, 0) + 1
