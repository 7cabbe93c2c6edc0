"""What the rows of a sample have in common, by which more can be told than any of them tells alone."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lockstep.clock import HOUR_US
from lockstep.parity.clocks import Apart, clocks_apart
from lockstep.parity.compare import What, equal
from lockstep.parity.elsewhere import Elsewhere
from lockstep.parity.investigate import Case
from lockstep.parity.misread import Source, misread_columns
from lockstep.parity.versions import scores_of_others, vectors_of_others
from lockstep.serving.features import REQUEST_TIME_US

LEAST_SYSTEMATIC = 10
"""Compared rows of a column, from which on their share of wrong ones says something."""

LEAST_ABSENT = 3
LEAST_MOVED = 3
MOST_MOVED = 300
"""Rows of a process that are made again for each time zone: more of them tell nothing new, and each takes its time."""

LEAST_FOREIGN = 0.8
_NEARLY_ALL = 0.95

_ZONES_US = [quarter * HOUR_US // 4 for quarter in range(-14 * 4, 14 * 4 + 1) if quarter]
"""By how much a wrong time zone moves a clock: https://en.wikipedia.org/wiki/List_of_UTC_offsets, both ways."""


class Patterns:
    """Looks for what the rows of a sample have in common, each thing when it is first asked for.

    Args:
        case: of at least these rows.
        numbers: the rows of the sample; the others are not looked at.
    """

    def __init__(self, case: Case, numbers: Sequence[int]) -> None:
        self._case = case
        self._facts = case.facts
        self._numbers = numbers
        self._all = [d for n in numbers for d in case.divergences.get(n, ())]

    @cached_property
    def misread(self) -> Mapping[tuple[str, str, str], Source]:
        """From which column another one was read, by (process, view, column)."""
        return misread_columns(self._facts, self._numbers, self._columns)

    @cached_property
    def _columns(self) -> Sequence[tuple[str, str, str]]:
        """The (process, view, column) in which some row differs from the lake, once a row."""
        return [
            (self._facts.rows[d.row].process, d.view, d.feature)
            for d in self._all
            if d.what is What.VALUES and d.feature is not None
        ]

    @cached_property
    def _compared(self) -> Mapping[tuple[str, str], Sequence[int]]:
        """The rows of each process and view that the lake holds."""
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for n in self._numbers:
            for view, looked in self._facts.looked.items():
                if looked.rows[n].held is not None:
                    found[self._facts.rows[n].process, view].append(n)
        return found

    @cached_property
    def wrong_share(self) -> Mapping[tuple[str, str, str], float]:
        """How many of the compared rows differ in a column: of the process, or of all processes where it has too few."""
        wrong = Counter(self._columns)
        all_wrong, all_compared = Counter[tuple[str, str]](), Counter[str]()
        for (_, view, column), times in wrong.items():
            all_wrong[view, column] += times
        for (_, view), rows in self._compared.items():
            all_compared[view] += len(rows)
        shares: dict[tuple[str, str, str], float] = {}
        for (process, view, column), times in wrong.items():
            compared = len(self._compared[process, view])
            if compared >= LEAST_SYSTEMATIC:
                shares[process, view, column] = times / compared
            elif all_compared[view] >= LEAST_SYSTEMATIC:  # many short-lived processes tell together
                shares[process, view, column] = all_wrong[view, column] / all_compared[view]
        return shares

    @cached_property
    def absent(self) -> frozenset[tuple[str, str, str]]:
        """The columns of which no row of the process has a value, though the lake has some."""
        found: set[tuple[str, str, str]] = set()
        for (process, view, column), wrong in Counter(self._columns).items():
            reads = [self._facts.rows[n].views[view] for n in self._compared[process, view]]
            if wrong >= LEAST_ABSENT and all(read.values.get(column) is None for read in reads):
                found.add((process, view, column))
        return frozenset(found)

    @cached_property
    def foreign(self) -> frozenset[str]:
        """The processes that read other keys' rows: nearly all that are not the key's are, and some are of a few keys alone."""
        looked: defaultdict[str, list[Elsewhere]] = defaultdict(list)
        for rows in self._case.elsewhere.values():
            for n in self._numbers:
                if (elsewhere := rows.get(n)) is not None:
                    looked[self._facts.rows[n].process].append(elsewhere)
        return frozenset(
            process
            for process, found in looked.items()
            if any(e.tells for e in found) and sum(e.keys > 0 for e in found) >= LEAST_FOREIGN * len(found)
        )

    @cached_property
    def clocks(self) -> Mapping[str, Apart]:
        """How far the clock of a process was from the ledger's, of those that were too far."""
        return clocks_apart(self._facts, self._numbers)

    @cached_property
    def _of_vectors(self) -> Sequence[int]:
        return list(dict.fromkeys(d.row for d in self._all if d.what is What.VECTOR))

    @cached_property
    def vectors_of_others(self) -> Mapping[int, str]:
        """Of which other version a row's vector is."""
        return vectors_of_others(self._facts, self._of_vectors)

    @cached_property
    def scores_of_others(self) -> Mapping[int, str]:
        """Of which other version's model a row's score is."""
        return scores_of_others(self._facts, [d.row for d in self._all if d.what is What.SCORE])

    @cached_property
    def reordered(self) -> frozenset[int]:
        """The rows whose vector has the values of other features, at three places at least, by one order for the process."""
        facts = self._facts
        if facts.remade is None:
            return frozenset()
        by_process: defaultdict[str, list[int]] = defaultdict(list)
        for n in self._of_vectors:
            by_process[facts.rows[n].process].append(n)
        found: set[int] = set()
        for rows in by_process.values():
            served, made = facts.vectors[rows], facts.remade.vectors[rows]
            moved = ~equal(served, made, None)
            enough = moved.sum(axis=1) >= LEAST_MOVED
            shifted = _places_moved(served, made, moved) >= max(LEAST_MOVED, moved.any(axis=0).sum() / 2)
            found |= {rows[at] for at in np.flatnonzero(enough & shifted).tolist()}
        return frozenset(found)

    @cached_property
    def folded_from(self) -> Mapping[int, str]:
        """Of vectors that are those of another row of the process in the case: of which."""
        facts, found = self._facts, dict[int, str]()
        if facts.remade is None:
            return found
        wanted = self._of_vectors
        processes = {facts.rows[n].process for n in wanted}
        makers: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
        for n, made in enumerate(_comparable(facts.remade.vectors)) if wanted else ():
            if (process := facts.rows[n].process) in processes:
                makers[process, made.tobytes()].append(n)
        for n, served in zip(wanted, _comparable(facts.vectors[wanted]), strict=True):
            others = makers.get((facts.rows[n].process, served.tobytes()), [])
            if len(others) == 1:  # a vector that many rows share, as of keys without a row, is nobody's
                found[n] = facts.rows[others[0]].name
        return found

    @cached_property
    def zones(self) -> Mapping[str, int]:
        """By how much the request time was moved for the on-demand functions of a process, where one move explains all."""
        contract = self._facts.contract
        timed = {o.name for o in contract.on_demand if any(column.name == REQUEST_TIME_US for column in o.inputs)}
        features = [number for number, feature in enumerate(contract.features) if feature.view in timed]
        rows: defaultdict[str, set[int]] = defaultdict(set)
        for divergence in self._all:
            if divergence.what is What.VECTOR and divergence.view in timed:
                rows[self._facts.rows[divergence.row].process].add(divergence.row)
        found: dict[str, int] = {}
        for process, differing in rows.items():
            numbers = sorted(differing)[:MOST_MOVED]
            served = self._facts.vectors[numbers][:, features]
            hours = {self._facts.rows[n].request_us // HOUR_US for n in numbers}
            if min(len(hours), len(np.unique(_comparable(served), axis=0))) < LEAST_MOVED:
                continue  # of a few hours, a value that stands still is that of some zone
            moves = [
                moved
                for moved in _ZONES_US
                if equal(
                    self._facts.remake([self._facts.rows[n] for n in numbers], moved)[:, features], served, None
                ).all()
            ]
            if moves:
                found[process] = min(moves, key=abs)
        return found


def _comparable(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors of which equal ones have the same bytes: one NaN, and no negative zero."""
    return np.where(np.isnan(vectors), np.nan, vectors + 0.0)


def _places_moved(served: NDArray[np.float64], made: NDArray[np.float64], moved: NDArray[np.bool_]) -> int:
    """Return how many features hold another one's value, the same in nearly all rows in which they differ."""
    places = 0
    for feature in range(served.shape[1]):
        rows = moved[:, feature]
        values = served[rows, feature]
        if len(np.unique(values)) < LEAST_MOVED:  # of a few values, some other feature has the same by chance
            continue
        others = equal(values[:, None], made[rows], None)
        places += bool((others.mean(axis=0) >= _NEARLY_ALL).any())
    return places
