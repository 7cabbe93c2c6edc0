"""Find columns that a serving process read from another column: in every row it served, not in one by chance.

One row proves little: a risk of 0.0 equals many a neighbour's. So a column counts as misread only if another column of its view
and type explains *all* rows of the process, and enough of them are rows in which the two columns differ in the lake.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.contract import View
from lockstep.parity.expect import History
from lockstep.parity.sample import ServedRow

Misread = Mapping[tuple[str, str, str], str]
"""By (process, view, column) the column that was read instead."""

LEAST_TELLING = 3
"""Rows in which the two columns have different values in the lake, so that only one of them can have been read."""

_Values = Mapping[str, Any]


def misread_columns(rows: Sequence[ServedRow], histories: Mapping[str, History]) -> dict[tuple[str, str, str], str]:
    """Return the columns that a process read from another column of the same view and type.

    Args:
        rows: served rows; those of a process are judged together.
        histories: what the lake ever held, by view.
    """
    found: dict[tuple[str, str, str], str] = {}
    for view, history in histories.items():
        by_process: defaultdict[str, list[tuple[_Values, _Values]]] = defaultdict(list)
        for row in rows:
            if (pair := _served_and_held(row, view, history)) is not None:
                by_process[row.process].append(pair)
        for process, pairs in by_process.items():
            for column, source in _misread(history.view, pairs).items():
                found[process, view, column] = source
    return found


def _served_and_held(row: ServedRow, view: str, history: History) -> tuple[_Values, _Values] | None:
    """Return what was served of a view and what the lake holds of the same (event, created)."""
    served = row.views.get(view)
    if served is None or served.event_us is None:
        return None
    version = (served.event_us, served.created_us)
    held = next((r for r in history.of(row) if r.version == version), None)
    return None if held is None else (served.values, held.values)


def _misread(view: View, pairs: Sequence[tuple[_Values, _Values]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for column in view.columns:
        if all(served.get(column.name) == held[column.name] for served, held in pairs):
            continue
        for other in view.columns:
            if other.dtype != column.dtype or other.name == column.name:
                continue
            telling = sum(held[other.name] != held[column.name] for _, held in pairs)
            explains = all(served.get(column.name) == held[other.name] for served, held in pairs)
            if explains and telling >= LEAST_TELLING:
                found[column.name] = other.name
                break
    return found
