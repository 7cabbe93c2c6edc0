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
        self._probing = False
        self._state = CLOSED
        _STATE.labels(dependency).state(CLOSED)

    @property
    def state(self) -> str:
        """closed: all are let through; open: none is; half_open: one is, and its outcome decides."""
        return self._state

    @contextmanager
    def call(self, *, counts: bool = True) -> Generator[None]:
        """Let one call through; an `Unavailable` that leaves the block is a failure of the dependency, if it `counts`.

        What ends otherwise, as a request whose caller is gone, says nothing.

        Raises:
            Unavailable: the circuit is open.
        """
        probe = self._admit()
        try:
            yield
        except Unavailable:
            if counts:
                self._failed(probe=probe)
            raise
        else:
            self._succeeded(probe=probe)
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Return whether this call is the one that decides.

        Raises:
            Unavailable: it is not let through.
        """
        if self._state == CLOSED:
            return False
        left = self._opened + self._pause - self._now()
        if left > 0 or self._probing:
            raise Unavailable(
                self._reason,
                f"the {self._dependency} has failed {self._most} times running and is left alone for a moment",
                retry_after=math.ceil(max(left, 0.0)) or 1,
            )
        self._enter(HALF_OPEN)
        self._probing = True
        return True

    def _failed(self, *, probe: bool) -> None:
        self._failures += 1
        if probe or (self._state == CLOSED and self._failures >= self._most):
            self._opened = self._now()
            self._enter(OPEN)

    def _succeeded(self, *, probe: bool) -> None:
        # One that was let through before the circuit opened, and is late, does not close it.
        if probe or self._state == CLOSED:
            self._failures = 0
            self._enter(CLOSED)

    def _enter(self, state: str) -> None:
        if state == self._state:
            return
        self._state = state
        _STATE.labels(self._dependency).state(state)
        if state != HALF_OPEN:
            logging.getLogger(__name__).warning("the circuit of the %s is %s", self._dependency, state)
