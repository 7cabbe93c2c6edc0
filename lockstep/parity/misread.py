"""Find columns that a serving process read from another column: in every compared row that the lake holds, not in one by chance.

One row proves little: a risk of 0.0 equals many a neighbour's. So a column counts as misread only if one other column of its view
and type, and no second one, explains *all* these rows of the process, and enough of the lake's rows differ in the two columns.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from lockstep.contract import View
from lockstep.parity.expect import History, LakeRow
from lockstep.parity.sample import ServedRow, ServedView

Misread = Mapping[tuple[str, str, str], str]
"""By (process, view, column) the column that was read instead."""

LEAST_TELLING = 3
"""Rows of the lake in which the two columns have different values; one of them, asked for again, tells nothing new."""


@dataclass(frozen=True)
class _Reading:
    """What was read of a view for one served row, and the lake's row, which `names` it: key, event and created time."""

    names: Hashable
    served: ServedView
    held: LakeRow


def misread_columns(rows: Sequence[ServedRow], histories: Mapping[str, History]) -> dict[tuple[str, str, str], str]:
    """Return the columns that a process read from another column of the same view and type.

    Args:
        rows: served rows; those of a process are judged together.
        histories: what the lake ever held, by view.
    """
    found: dict[tuple[str, str, str], str] = {}
    for view, history in histories.items():
        by_process: defaultdict[str, list[_Reading]] = defaultdict(list)
        for row in rows:
            served = row.views.get(view)
            if served is not None and (held := history.held(row, served)) is not None:
                by_process[row.process].append(_Reading((history.key(row), held.version), served, held))
        for process, readings in by_process.items():
            for column, source in _misread(history.view, readings).items():
                found[process, view, column] = source
    return found


def _misread(view: View, readings: Sequence[_Reading]) -> dict[str, str]:
    found: dict[str, str] = {}
    for column in view.columns:
        explaining = [
            other.name
            for other in view.columns
            if other.dtype == column.dtype
            and all(reading.served.holds(column.name, reading.held.values[other.name]) for reading in readings)
        ]
        if len(explaining) != 1:  # of two, nothing tells which was read
            continue
        (source,) = explaining
        telling = {r.names for r in readings if r.held.values[source] != r.held.values[column.name]}
        if len(telling) >= LEAST_TELLING:
            found[column.name] = source
    return found
