"""Hold each served row against the lake and against training, and name the cause of every difference.

Two questions are asked separately of each row.

Consistency: (a) the lake holds the very row whose (event, created) was logged, with those values; (b) that row is the
greatest (event, created) of its key in the logged snapshot, its ttl judged at the request time. Where the two readings of the
epoch hash differ or say *writing*, the row was read in flight, and (b) holds when any snapshot from the lower reading's
committed one to the higher reading's started one contains it as newest.

Training skew: the served value is the one a training set would contain for that row.

A row is a mismatch if consistency fails, or if its training skew has any cause but `early` or `late`.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.contract import FeatureContract, View
from lockstep.online.epoch import ViewEpoch
from lockstep.parity.expect import History, LakeRow, expired
from lockstep.parity.misread import Misread
from lockstep.parity.sample import ServedRow, ServedView


class Cause(enum.StrEnum):
    """Why something differs.

    EARLY: the served row passes (b), but its created time + visible_lag is after the request time. Excused.
    LATE: training's row came with an interval newer than the logged epoch's, within the freshness objective. Excused.
    UNVOUCHED: a reading of the epoch hash names no store, so whatever was read beside it may have been lost or moved.
        What it says of the view is not looked at.
    IN_FLIGHT: the epoch readings differ or say writing, and no allowed snapshot contains the row as newest.
    MISSING: the lake has a row inside its ttl; none was read.
    WRONG_ROW: what differs is another column's value, in every compared row of the serving process that the lake holds.
    CORRUPTION: the values match no row ever written.
    UNEXPLAINED: none of these.
    """

    EARLY = "early"
    LATE = "late"
    UNVOUCHED = "unvouched"
    IN_FLIGHT = "in_flight"
    MISSING = "missing"
    WRONG_ROW = "wrong_row"
    CORRUPTION = "corruption"
    UNEXPLAINED = "unexplained"

    @property
    def excused(self) -> bool:
        """Whether a training skew of this cause is no mismatch."""
        return self in EXCUSED


EXCUSED = frozenset({Cause.EARLY, Cause.LATE})
"""In a training skew. A cause is its own text, so that the words of a report can be looked up here."""


@dataclass(frozen=True)
class Difference:
    """One difference of one row.

    Attributes:
        row: which served row.
        kind: "consistency" or "training".
        view: the view it lies in.
        feature: the feature, or None where the row as a whole is meant.
        served: what was served.
        expected: what the lake or training says.
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
        return self.kind == "training" and self.cause.excused


Recompute = Callable[[ServedRow], Sequence[float | None]]


class Comparison:
    """Compares served rows under one contract.

    Args:
        contract: what lists the views and features, with their tolerances.
        histories: what the lake ever held, by view.
        recompute: gives the vector that the logged inputs and stored values make.
        incarnations: of the online store that the ledger writes to, the last one and those that were lost.
        misread: the columns that a process read from another column, from `misread_columns`.
    """

    def __init__(
        self,
        contract: FeatureContract,
        histories: Mapping[str, History],
        recompute: Recompute,
        incarnations: Sequence[str],
        misread: Misread | None = None,
    ) -> None:
        self._contract = contract
        self._incarnations = incarnations
        self._histories = histories
        self._recompute = recompute
        self._misread = misread or {}

    def row(self, row: ServedRow, training: Sequence[float | None]) -> list[Difference]:
        """Return every difference of one row; none means it is what training would contain, and what the lake holds."""
        stored = {view.name: self._consistency(row, view) for view in self._contract.views}
        inconsistent = [difference for difference in stored.values() if difference]
        folded = self._folding(row)
        return [*inconsistent, *folded, *self._training(row, training, stored)]

    def _consistency(self, row: ServedRow, view: View) -> Difference | None:
        served = row.views.get(view.name)
        if served is None:
            return _difference(row, view.name, None, "not logged", Cause.UNEXPLAINED, "the log names no reading of it")
        read_from = row.before.incarnation
        if read_from is None or row.after.incarnation is None:
            evidence = "the store was flushed, or a primary of it was or had slots moved, and no run has come since"
            return _difference(row, view.name, None, None, Cause.UNVOUCHED, evidence)
        if read_from != row.after.incarnation or read_from not in self._incarnations:
            evidence = "read from an online store that was not written to, or that was lost meanwhile"
            known = ", ".join(self._incarnations)
            return _difference(row, view.name, read_from, known, Cause.UNEXPLAINED, evidence)
        history = self._histories[view.name]
        held = history.held(row, served)
        if served.status != "missing" and (foreign := self._foreign_values(row, view, served, held)):
            return _difference(row, view.name, dict(served.values), dict(held.values) if held else None, *foreign)
        allowed, in_flight = self._allowed_snapshots(row, view.name)
        if any(self._is_newest(row, view, served, sequence) for sequence in allowed):
            return None
        newest = history.newest(row, allowed[-1])
        return _difference(
            row,
            view.name,
            served.event_us,
            newest and newest.event_us,
            *_cause_of(view, row, served, newest, in_flight),
        )

    def _foreign_values(
        self, row: ServedRow, view: View, served: ServedView, held: LakeRow | None
    ) -> tuple[Cause, str] | None:
        """Return why the served values are not the lake's, or None where they are."""
        version = f"(event, created) = ({served.event_us}, {served.created_us})"
        if held is None:
            return Cause.CORRUPTION, f"the lake holds no row of {version}"
        differing = [name for name, value in held.values.items() if not served.holds(name, value)]
        if not differing:
            return None
        sources = {name: self._misread.get((row.process, view.name, name)) for name in differing}
        if all(sources.values()):
            pairs = ", ".join(f"{name} holds the value of {source}" for name, source in sources.items())
            return Cause.WRONG_ROW, f"{pairs}, in every compared row of this process that the lake holds"
        return Cause.CORRUPTION, f"the lake holds the row of {version} with another {', '.join(differing)}"

    def _allowed_snapshots(self, row: ServedRow, view: str) -> tuple[list[int], bool]:
        """Return the sequence numbers that (b) may be judged in, ascending, and whether the row was read in flight."""
        nothing = ViewEpoch(committed=None, writing=None)
        before, after = row.before.views.get(view, nothing), row.after.views.get(view, nothing)
        low = before.committed.sequence if before.committed else 0
        if before == after and before.writing is None:
            return [low], False
        marks = [mark for mark in (before.writing, after.committed, after.writing) if mark]
        high = max([low, *(mark.sequence for mark in marks)])
        between = [s for s in self._histories[view].sequences if low < s <= high]
        return [low, *between], True

    def _is_newest(self, row: ServedRow, view: View, served: ServedView, sequence: int) -> bool:
        newest = self._histories[view.name].newest(row, sequence)
        if newest is None:
            return served.status == "missing"
        status = "stale" if expired(view, newest.event_us, row.request_us) else "present"
        return served.status == status and newest.version == (served.event_us, served.created_us)

    def _folding(self, row: ServedRow) -> list[Difference]:
        """Return where the vector is not what the logged inputs and stored values make."""
        remade = self._recompute(row)
        return [
            Difference(
                row.name,
                "consistency",
                feature.view,
                feature.name,
                served,
                expected,
                Cause.UNEXPLAINED,
                "recomputed from the logged inputs and stored values",
            )
            for feature, served, expected in zip(self._contract.features, row.vector, remade, strict=True)
            if not equal(served, expected, feature.tolerance)
        ]

    def _training(
        self, row: ServedRow, training: Sequence[float | None], stored: Mapping[str, Difference | None]
    ) -> list[Difference]:
        differing = [
            (feature, served, expected)
            for feature, served, expected in zip(self._contract.features, row.vector, training, strict=True)
            if not equal(served, expected, feature.tolerance)
        ]
        if not differing:
            return []
        causes = {view.name: self._skew(row, view, stored[view.name]) for view in self._contract.views}
        found: list[Difference] = []
        for feature, served, expected in differing:
            cause, evidence = self._first_cause(feature.view, causes)
            found.append(
                Difference(row.name, "training", feature.view, feature.name, served, expected, cause, evidence)
            )
        return found

    def _first_cause(self, view: str, causes: Mapping[str, tuple[Cause, str] | None]) -> tuple[Cause, str]:
        """Return the cause in the view itself, or in a stored view that an on-demand view reads."""
        on_demand = next((o for o in self._contract.on_demand if o.name == view), None)
        behind = [v for v, _ in on_demand.reads] if on_demand else [view]
        named = [cause for name in dict.fromkeys(behind) if (cause := causes.get(name))]
        unexcused = [cause for cause in named if not cause[0].excused]
        return (unexcused or named or [(Cause.UNEXPLAINED, "the stored rows are the same on both sides")])[0]

    def _skew(self, row: ServedRow, view: View, inconsistent: Difference | None) -> tuple[Cause, str] | None:
        """Return why the served row of a stored view is not training's, or None where it is the same row."""
        served, wanted = row.views.get(view.name), self._histories[view.name].known(row)
        if served is None:
            return Cause.UNEXPLAINED, "the log names no reading of it"
        if inconsistent is not None:
            return inconsistent.cause, inconsistent.evidence
        used = (served.event_us, served.created_us) if served.status == "present" else None
        if used == (wanted.version if wanted else None):
            return None
        if used and served.created_us is not None and served.created_us + view.visible_lag_us > row.request_us:
            return Cause.EARLY, f"created {served.created_us} + visible lag is after the request time {row.request_us}"
        epoch = row.before.views.get(view.name)
        shown = epoch.committed.sequence if epoch and epoch.committed else 0
        if wanted and wanted.sequence > shown and row.read_us - wanted.created_us <= view.freshness_us:
            return Cause.LATE, f"training's row came with snapshot {wanted.sequence}, the store was at {shown}"
        return Cause.UNEXPLAINED, f"training takes {wanted.version if wanted else None}, served was {used}"


def is_mismatch(differences: Sequence[Difference]) -> bool:
    """Tell whether a row with these differences is a mismatch."""
    return any(not difference.excused for difference in differences)


def equal(served: float | None, expected: float | None, tolerance: float | None) -> bool:
    """Tell whether two values of a vector are equal: to the last bit, or within a stated tolerance; null equals null."""
    if served is None or expected is None:
        return served is expected
    if tolerance is not None:
        return abs(served - expected) <= tolerance
    return served == expected


def _cause_of(
    view: View, row: ServedRow, served: ServedView, newest: LakeRow | None, in_flight: bool
) -> tuple[Cause, str]:
    if in_flight:
        return Cause.IN_FLIGHT, "no snapshot between the two readings of the epoch hash has this row as newest"
    if served.status == "missing" and newest and not expired(view, newest.event_us, row.request_us):
        return Cause.MISSING, f"the logged snapshot has a row of (event, created) = {newest.version}"
    return Cause.UNEXPLAINED, f"newest in the logged snapshot is {newest.version if newest else None}"


def _difference(row: ServedRow, view: str, served: Any, expected: Any, cause: Cause, evidence: str) -> Difference:
    return Difference(row.name, "consistency", view, None, served, expected, cause, evidence)
