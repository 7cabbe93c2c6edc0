"""How long a request may take, and how that is split: the store has half of what is left once it came, the predictor the rest.

Who asks for little time, or takes it himself by sending slowly, and then gets no answer, learns nothing about the health of what
is behind us; nor does anybody whose time passed while this process was busy. So each wait knows whether running out of it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from lockstep.errors import BadInput

BUDGET_HEADER = "x-lockstep-budget-ms"
MOST_MS = 20_000  # Kubernetes gives a process that is to end 30 s: what it has begun is answered first
READ_SHARE = 0.5
# Of the usual share: a request takes some of its time itself.
_FAIR = 0.8
_LATE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when something may be waited for, on the clock of the event loop in seconds; `fair`: as long as it usually may."""

    end: float
    fair: bool

    def counts(self, now: float) -> bool:
        """Whether it speaks against what was waited for that there was no answer, noticed now.

        Not if that is noticed late: then it was us who did not come to look.
        """
        return self.fair and now - self.end < _LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Budget:
    """One request's time, on the clock of the event loop.

    Attributes:
        start: when its head had arrived, in seconds.
        seconds: how long its answer may take.
        usual: how long that of a request may that does not ask, in seconds.
    """

    start: float
    seconds: float
    usual: float

    @property
    def end(self) -> float:
        """When it is used up."""
        return self.start + self.seconds

    def read(self, now: float) -> Wait:
        """Return how long the store may take from now on."""
        share = (self.end - now) * READ_SHARE
        return Wait(now + share, share >= self.usual * READ_SHARE * _FAIR)

    def predict(self, now: float) -> Wait:
        """Return how long the predictor may take from now on."""
        return Wait(self.end, self.end - now >= self.usual * (1 - READ_SHARE) * _FAIR)


def budget_of(headers: Mapping[str, str], usual: timedelta, start: float) -> Budget:
    """Return what the header asks for, or the usual.

    Raises:
        BadInput: the header is no whole number of milliseconds, from 1 to `MOST_MS`.
    """
    asked, seconds = headers.get(BUDGET_HEADER), usual.total_seconds()
    if asked is None:
        return Budget(start, seconds, seconds)
    # int() takes signs, blanks, underscores and the digits of any script.
    if not (asked.isascii() and asked.isdigit() and len(asked) <= len(str(MOST_MS)) and 0 < int(asked) <= MOST_MS):
        raise BadInput(f"{BUDGET_HEADER} is no whole number of milliseconds from 1 to {MOST_MS}")
    return Budget(start, int(asked) / 1000, seconds)
