"""How long a request may take, and how that is split: the store has half of it, the predictor all that is then left."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from lockstep.errors import BadInput

BUDGET_HEADER = "x-lockstep-budget-ms"
MOST_MS = 60_000
READ_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """One request's time, on the clock of the event loop.

    Attributes:
        start: when its head had arrived, in seconds.
        seconds: how long its answer may take.
        usual: it is at least what a request has that does not ask. Who asks for less and does not get it learns nothing about
            the health of what is behind us.
    """

    start: float
    seconds: float
    usual: bool = True

    @property
    def end(self) -> float:
        """When it is used up."""
        return self.start + self.seconds

    @property
    def read_end(self) -> float:
        """When the store must have answered."""
        return self.start + self.seconds * READ_SHARE


def budget_of(headers: Mapping[str, str], usual: timedelta, start: float) -> Budget:
    """Return what the header asks for, or the usual.

    Raises:
        BadInput: the header is no whole number of milliseconds, from 1 to `MOST_MS`.
    """
    asked, seconds = headers.get(BUDGET_HEADER), usual.total_seconds()
    if asked is None:
        return Budget(start, seconds)
    # int() takes signs, blanks, underscores and the digits of any script.
    if not (asked.isascii() and asked.isdigit() and len(asked) <= len(str(MOST_MS)) and 0 < int(asked) <= MOST_MS):
        raise BadInput(f"{BUDGET_HEADER} is no whole number of milliseconds from 1 to {MOST_MS}")
    return Budget(start, int(asked) / 1000, int(asked) / 1000 >= seconds)
