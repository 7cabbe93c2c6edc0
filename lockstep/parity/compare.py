"""Hold each served row against the lake, against training and against the model, and note every difference.

Three questions are asked separately of each row.

Consistency: (a) the lake holds the very row whose (event, created) was logged, with those values; (b) that row is the
greatest (event, created) of its key in the logged snapshot, its ttl judged at the request time. Where the two readings of the
epoch hash differ or say *writing*, the row was read in flight, and (b) holds when any snapshot from the lower reading's
committed one to the higher reading's started one contains it as newest. The logged vector is what the logged inputs and stored
values make, and the score what the model says to it.

Training skew: the served value is the one a training set would contain for that row.

Why a difference is there is said by `explain.py`. A row is a mismatch if any difference has a cause that excuses nothing.
"""

import enum
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.contract import FeatureContract, View
from lockstep.parity.cause import Cause
from lockstep.parity.expect import Stored, Version, expired, version_of
from lockstep.parity.facts import Facts
from lockstep.parity.sample import ServedRow, ServedView

SAME_SCORE = 1e-9
"""Two scores this close are one: a linear model's sums round differently with the number of rows scored in one call."""


class What(enum.Enum):
    """How a difference was seen.

    DRIFTED: the view is not what the contract describes, so nothing of it was compared.
    UNLOGGED: the log names no reading of the view.
    UNNAMED_STORE: a reading of the epoch hash names no store.
    OTHER_STORE: it names a store that the ledger does not write to, or two.
    NEVER_HELD: the lake never held a row of this key with the logged (event, created).
    VALUES: it held one, with another value in a column.
    NOT_NEWEST: that row is not the key's newest, by no snapshot that it may have been read from, or its ttl was judged otherwise.
    VECTOR: a feature is not what the logged inputs and stored values make.
    REJECTION: the row was rejected and the policy keeps it, or the other way round.
    SCORE: the score is not what the model says to the served vector.
    TRAINING: a feature is not what training would contain.
    """

    DRIFTED = enum.auto()
    UNLOGGED = enum.auto()
    UNNAMED_STORE = enum.auto()
    OTHER_STORE = enum.auto()
    NEVER_HELD = enum.auto()
    VALUES = enum.auto()
    NOT_NEWEST = enum.auto()
    VECTOR = enum.auto()
    REJECTION = enum.auto()
    SCORE = enum.auto()
    TRAINING = enum.auto()

    @property
    def kind(self) -> str:
        """The question that was answered: consistency, training or prediction."""
        return {What.TRAINING: "training", What.SCORE: "prediction"}.get(self, "consistency")


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """One difference whose cause is not named yet.

    Attributes:
        row: the number of the served row.
        what: how it was seen.
        view: the view it lies in; "" for a score.
        feature: the column or feature; None where the row as a whole is meant.
        served: what was served.
        expected: what the lake, training or the model says.
    """

    row: int
    what: What
    view: str
    feature: str | None
    served: Any
    expected: Any


@dataclass(frozen=True)
class Difference:
    """One difference of one row, with its cause.

    Attributes:
        row: which served row.
        kind: "consistency", "training" or "prediction".
        view: the view it lies in; "" for a score.
        feature: the column or feature, or None where the row as a whole is meant.
        served: what was served.
        expected: what the lake, training or the model says.
        cause: why.
        evidence: what the cause was read from, in a sentence.
    """

    row: str
    kind: str
    view: str
    feature: str | None
    served: Any
    expected: Any
    cause: Cause
    evidence: str

    @property
    def excused(self) -> bool:
        """Whether this alone makes no mismatch."""
        return self.cause.excused


def is_mismatch(differences: Sequence[Difference]) -> bool:
    """Tell whether a row with these differences is a mismatch."""
    return any(not difference.excused for difference in differences)


def compare(facts: Facts) -> Mapping[int, Sequence[Divergence]]:
    """Return the differences of each row that has any, by the row's number."""
    found: defaultdict[int, list[Divergence]] = defaultdict(list)
    for divergence in chain(_of_views(facts), _of_folding(facts), _of_scores(facts), _of_training(facts)):
        found[divergence.row].append(divergence)
    return found


def equal(served: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float | None) -> NDArray[np.bool_]:
    """Tell of each value of a feature whether it is equal: to the last bit, or within a stated tolerance; null equals null."""
    close = served == expected
    if tolerance is not None:
        with np.errstate(invalid="ignore"):  # of two infinities
            close |= np.abs(served - expected) <= tolerance
    return close | (np.isnan(served) & np.isnan(expected))


def _of_views(facts: Facts) -> Iterator[Divergence]:
    for view in facts.contract.views:
        for n, row in enumerate(facts.rows):
            yield from _of_view(facts, n, row, view)


def _of_folding(facts: Facts) -> Iterator[Divergence]:
    for view in facts.contract.on_demand:
        if view.name in facts.drifted:
            yield from (Divergence(n, What.DRIFTED, view.name, None, None, None) for n in range(len(facts.rows)))
    if facts.remade is not None:
        yield from _of_vectors(facts.contract, What.VECTOR, facts.vectors, facts.remade.vectors)
        rejected = np.array([row.rejected is not None for row in facts.rows], np.bool_)
        for n in np.flatnonzero(rejected != facts.remade.rejected).tolist():
            yield Divergence(
                n, What.REJECTION, "", None, facts.rows[n].rejected, "rejected" if facts.remade.rejected[n] else None
            )


def _of_scores(facts: Facts) -> Iterator[Divergence]:
    if facts.rescored is None:
        return
    for n, (row, score) in enumerate(zip(facts.rows, facts.rescored.tolist(), strict=True)):
        if (row.score is None) != (row.rejected is not None):
            yield Divergence(n, What.SCORE, "", None, row.score, row.rejected)
        elif row.score is not None and not abs(row.score - score) <= SAME_SCORE:
            yield Divergence(n, What.SCORE, "", None, row.score, score)


def _of_training(facts: Facts) -> Iterator[Divergence]:
    if facts.trained is not None:
        yield from _of_vectors(facts.contract, What.TRAINING, facts.vectors, facts.trained.vectors)


def _of_vectors(
    contract: FeatureContract, what: What, served: NDArray[np.float64], expected: NDArray[np.float64]
) -> Iterator[Divergence]:
    for number, feature in enumerate(contract.features):
        ours, theirs = served[:, number], expected[:, number]
        for n in np.flatnonzero(~equal(ours, theirs, feature.tolerance)).tolist():
            yield Divergence(n, what, feature.view, feature.name, _null(ours[n]), _null(theirs[n]))


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _of_view(facts: Facts, n: int, row: ServedRow, view: View) -> Iterator[Divergence]:
    read, before, after = row.views.get(view.name), row.before.incarnation, row.after.incarnation
    if view.name in facts.drifted:
        yield Divergence(n, What.DRIFTED, view.name, None, None, None)
    elif read is None:
        yield Divergence(n, What.UNLOGGED, view.name, None, "not logged", None)
    elif before is None or after is None:
        yield Divergence(n, What.UNNAMED_STORE, view.name, None, None, None)
    elif before != after or before not in facts.incarnations:
        yield Divergence(n, What.OTHER_STORE, view.name, None, before, ", ".join(facts.incarnations))
    else:
        yield from _of_reading(n, row, view, read, facts.looked[view.name].rows[n])


def _of_reading(n: int, row: ServedRow, view: View, read: ServedView, stored: Stored) -> Iterator[Divergence]:
    if read.status != "missing" and stored.held is None:
        yield Divergence(n, What.NEVER_HELD, view.name, None, dict(read.values), None)
        return
    held = {} if read.status == "missing" or stored.held is None else stored.held
    differing = [name for name, value in held.items() if held is not read.values and not read.holds(name, value)]
    for name in differing:
        yield Divergence(n, What.VALUES, view.name, name, read.values.get(name), held[name])
    if not differing and not any(_is_newest(view, row, read, newest) for newest in stored.newest):
        yield Divergence(n, What.NOT_NEWEST, view.name, None, version_of(read), stored.newest[-1])


def _is_newest(view: View, row: ServedRow, read: ServedView, newest: Version | None) -> bool:
    if newest is None:
        return read.status == "missing"
    status = "stale" if expired(view, newest.event_us, row.request_us) else "present"
    return read.status == status and version_of(read) == newest
