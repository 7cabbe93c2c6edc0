"""Which columns of a view are the same measure over several windows: what faults about windows and units pick theirs by."""

import re
from collections import defaultdict
from collections.abc import Sequence

from lockstep.contract import Column, View

_WINDOW = re.compile(r"(?P<measure>.+)_(?P<size>\d+)(?P<unit>[hd])")
_HOURS = {"h": 1, "d": 24}


def last_measure(view: View) -> Sequence[Column]:
    """Return the columns of the view's last measure that has several windows, the shortest first; none where no measure has."""
    measures: defaultdict[tuple[str, str], list[tuple[int, Column]]] = defaultdict(list)
    for column in view.columns:
        if found := _WINDOW.fullmatch(column.name):
            hours = int(found["size"]) * _HOURS[found["unit"]]
            measures[found["measure"], column.dtype].append((hours, column))
    several = [columns for columns in measures.values() if len(columns) > 1]
    return [column for _, column in sorted(several[-1], key=lambda of: of[0])] if several else []


def unit_columns(view: View) -> Sequence[Column]:
    """Return the columns that a change of unit concerns: those of the last measure, or else all."""
    return last_measure(view) or view.columns
