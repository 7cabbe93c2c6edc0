"""A circuit breaker: what has failed several times running is left alone for a moment, then asked by one request, not by all.

Nygard, Release It!, 2nd ed., "Circuit Breaker". Those that are on PyPI let every waiting request through once they half-open, or
know no asyncio.
"""

import logging
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

from prometheus_client import Enum

from lockstep.serving.refusal import Reason, Unavailable

CLOSED, HALF_OPEN, OPEN = "closed", "half_open", "open"

_STATE = Enum(
    "lockstep_circuit", "Whether what is behind us is asked.", ["dependency"], states=[CLOSED, HALF_OPEN, OPEN]
)


class Breaker:
    """Guards the calls of one dependency, all in one thread.

    Args:
        dependency: its name, in messages and metrics.
        reason: what a request is told that is not let through.
        failures: so many one after the other open the circuit.
        pause: how long it then stays open.
        now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        dependency: str,
        reason: Reason,
        failures: int,
        pause: timedelta,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dependency = dependency
        self._reason = reason
        self._most = failures
        self._pause = pause.total_seconds()
        self._now = now
        self._failures = 0
        self._opened = 0.0
        self._probing: float | None = None  # since when
        self._state = CLOSED
        _STATE.labels(dependency).state(CLOSED)

    @property
    def state(self) -> str:
        """closed: all are let through; open: none is; half_open: one is, and its outcome decides."""
        return self._state

    @contextmanager
    def call(self) -> Generator[None]:
        """Let one call through; an `Unavailable` that leaves the block is a failure of the dependency, if it `counts`.

        What ends otherwise, as a request whose caller is gone, says nothing. If it was the one that should decide, the next one
        does.

        Raises:
            Unavailable: the circuit is open.
        """
        probe = self._admit()
        try:
            yield
        except Unavailable as failure:
            if failure.counts:
                self._failed(failure, decides=self._decides(probe))
            raise
        else:
            self._succeeded(decides=self._decides(probe))
        finally:
            if self._decides(probe):
                self._probing = None

    def _decides(self, probe: float | None) -> bool:
        """Whether this is the last one that was let through while the circuit was not closed."""
        return probe is not None and self._probing == probe

    def _admit(self) -> float | None:
        """Return when this call began if it is one that decides, None if the circuit is closed.

        Raises:
            Unavailable: it is not let through.
        """
        if self._state == CLOSED:
            return None
        now = self._now()
        left = max(self._opened, self._probing or self._opened) + self._pause - now
        if left > 0:
            raise Unavailable(
                self._reason,
                f"the {self._dependency} has failed {self._most} times running and is left alone for a moment",
                retry_after=math.ceil(left),
                counts=False,
            )
        # One that has not come back for as long, since its caller has time, does not keep the others out.
        self._enter(HALF_OPEN)
        self._probing = now
        return now

    def _failed(self, failure: Unavailable, *, decides: bool) -> None:
        self._failures += 1
        if decides or (self._state == CLOSED and self._failures >= self._most):
            self._opened = self._now()
            self._enter(OPEN, f": {failure.detail or failure}")

    def _succeeded(self, *, decides: bool) -> None:
        # One that was let through before the circuit opened, and is late, does not close it.
        if decides or self._state == CLOSED:
            self._failures = 0
            self._enter(CLOSED)

    def _enter(self, state: str, why: str = "") -> None:
        if state == self._state:
            return
        self._state = state
        _STATE.labels(self._dependency).state(state)
        if state != HALF_OPEN:
            logging.getLogger(__name__).warning("the circuit of the %s is %s%s", self._dependency, state, why)
