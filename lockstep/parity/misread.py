"""Find columns that a serving process read from another column: in nearly all rows that differ, not in one by chance.

One row proves little: a risk of 0.0 equals many a neighbour's. So a column counts as misread only if one other column of its
type, and no second one, explains the rows of the process in which it differs, and if enough of them do. Of the columns of the
view itself one is looked for first.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.contract import FeatureContract
from lockstep.parity.expect import version_of
from lockstep.parity.facts import Facts
from lockstep.parity.sample import ServedView

LEAST_TELLING = 3
"""Rows of the lake in which the two columns have different values; one of them, asked for again, tells nothing new."""

LEAST_EXPLAINED = 0.95
"""Of the rows: another fault may have touched a few of them too."""

Source = tuple[str, str]
"""A view and a column."""


@dataclass(frozen=True)
class Reading:
    """What was read of a view for one served row, and what the lake holds for it.

    Attributes:
        names: the lake's row: its key and version.
        read: what was read of the view.
        held: the lake's values, of each view of the row that the lake holds.
    """

    names: Hashable
    read: ServedView
    held: Mapping[str, Mapping[str, Any]]


def misread_columns(
    facts: Facts, numbers: Iterable[int], differing: Iterable[tuple[str, str, str]]
) -> dict[tuple[str, str, str], Source]:
    """Return which of the differing columns were read from another column, and from which.

    Args:
        facts: of the rows.
        numbers: the rows of the sample; those of a process are judged together.
        differing: columns in which some row differs from the lake, as (process, view, column).
    """
    wanted = sorted(set(differing))
    readings: dict[tuple[str, str], list[Reading]] = {(process, view): [] for process, view, _ in wanted}
    for n in numbers:
        row = facts.rows[n]
        for view in facts.looked:
            if (row.process, view) in readings and (reading := _reading(facts, n, view)) is not None:
                readings[row.process, view].append(reading)
    found = {
        (process, view, column): _source(facts.contract, view, column, readings[process, view])
        for process, view, column in wanted
    }
    return {misread: source for misread, source in found.items() if source is not None}


def _reading(facts: Facts, n: int, view: str) -> Reading | None:
    row = facts.rows[n]
    read = row.views.get(view)
    held = {name: values for name, looked in facts.looked.items() if (values := looked.rows[n].held) is not None}
    if read is None or view not in held:
        return None
    key = tuple(row.keys[key.name] for key in facts.looked[view].view.join_keys)
    return Reading((key, version_of(read)), read, held)


def _source(contract: FeatureContract, view: str, column: str, readings: Sequence[Reading]) -> Source | None:
    dtypes = {(of.name, c.name): c.dtype for of in contract.views for c in of.columns}
    others = [source for source, dtype in dtypes.items() if dtype == dtypes[view, column] and source != (view, column)]
    differing = [r for r in readings if not r.read.holds(column, r.held[view][column])]
    if len({r.names for r in differing}) < LEAST_TELLING:
        return None
    for candidates in ([o for o in others if o[0] == view], [o for o in others if o[0] != view]):
        found = [source for source in candidates if _explains(source, column, differing)]
        if len(found) > 1:  # the rows that do not differ may tell them apart
            found = [source for source in found if _explains(source, column, readings)]
            return found[0] if len(found) == 1 else None
        if found:
            return found[0]
    return None


def _explains(source: Source, column: str, readings: Sequence[Reading]) -> bool:
    """Tell whether the column holds what the lake holds in another one, in nearly all readings."""
    view, name = source
    others, most_others = 0, len(readings) * (1 - LEAST_EXPLAINED)
    for reading in readings:
        if view not in reading.held or not reading.read.holds(column, reading.held[view][name]):
            others += 1
            if others > most_others:  # most columns explain none of a sample's many rows
                return False
    return True
