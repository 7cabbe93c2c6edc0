"""Find processes that served with a clock of their own: the ledger says when what they read was there.

A row that shows an interval as committed was read after the ledger noted it and before the next one came. So each row says
between which bounds the two clocks are apart, and one difference has to fit all rows of a process. A store that lags fits none:
its rows are read later and later after the same interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from lockstep.clock import MICROSECOND
from lockstep.parity.facts import Facts
from lockstep.parity.sample import ServedRow

LEAST_ROWS = 3


@dataclass(frozen=True)
class Apart:
    """How far a process's clock is ahead of the ledger's: from `low` to `high` microseconds; behind, if negative."""

    low: float
    high: float

    def __str__(self) -> str:
        """Say it to a person."""
        if self.low > 0:
            return f"ahead of the ledger's by {_told(self.low)}" + (
                f" to {_told(self.high)}" if self.high < inf else ""
            )
        return f"behind the ledger's by {_told(-self.high)}" + (f" to {_told(-self.low)}" if self.low > -inf else "")


def clocks_apart(facts: Facts, numbers: Iterable[int]) -> dict[str, Apart]:
    """Return the processes whose clock was wrong by more than two clocks may be apart, as these rows of them show."""
    spans = {view: _spans(commits) for view, commits in facts.commits.items()}
    of: defaultdict[str, list[ServedRow]] = defaultdict(list)
    for n in numbers:
        of[facts.rows[n].process].append(facts.rows[n])
    found = {
        process: _apart(rows, spans) for process, rows in of.items() if len(rows) >= LEAST_ROWS and _of_intervals(rows)
    }
    most = facts.most_apart_us
    return {
        process: apart
        for process, apart in found.items()
        if apart.low - most <= apart.high and (apart.low > most or apart.high < -most)
    }


def _of_intervals(rows: Sequence[ServedRow]) -> bool:
    """Tell whether the rows show two intervals of one view: a store that stands still shows one, as a clock's may."""
    shown: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        for view, epoch in row.before.views.items():
            if epoch.committed is not None:
                shown[view].add(epoch.committed.interval)
    return any(len(intervals) > 1 for intervals in shown.values())


def _spans(commits: Mapping[int, int]) -> Mapping[int, tuple[float, float]]:
    """Return between which times the store showed each interval as its newest one, by the ledger's clock."""
    order = sorted(commits)
    ends: Sequence[float] = [*(commits[number] for number in order[1:]), inf]
    return {number: (commits[number], end) for number, end in zip(order, ends, strict=False)}


def _apart(rows: Sequence[ServedRow], spans: Mapping[str, Mapping[int, tuple[float, float]]]) -> Apart:
    low, high = -inf, inf
    for row in rows:
        for view, epoch in row.before.views.items():
            mark = epoch.committed
            if mark is None or epoch.writing is not None or mark.interval not in spans.get(view, {}):
                continue
            since, until = spans[view][mark.interval]
            low, high = max(low, row.read_us - until), min(high, row.read_us - since)
    return Apart(low, high)


def _told(micros: float) -> str:
    return f"{micros * MICROSECOND.total_seconds() / 3_600:.1f} h"
