"""Readings of the store with some of their rows or views taken from another one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lockstep.online.epoch import Epochs, ViewEpoch
from lockstep.online.reader import Reading, ViewRows


def take_rows(reading: Reading, earlier: Reading, order: Sequence[int]) -> Reading:
    """Return a reading whose row n is row `order[n]` of the same one, or for -1 the last row of the earlier one."""

    def taken(now: Sequence[Any], before: Sequence[Any]) -> list[Any]:
        return [before[-1] if place < 0 else now[place] for place in order]

    views = {
        name: ViewRows(
            taken(rows.status, earlier.views[name].status),
            taken(rows.event_us, earlier.views[name].event_us),
            taken(rows.created_us, earlier.views[name].created_us),
            {column: taken(of, earlier.views[name].values[column]) for column, of in rows.values.items()},
        )
        for name, rows in reading.views.items()
    }
    return reading._replace(views=views)


def rows_from(places: Sequence[tuple[ViewRows, int]]) -> ViewRows:
    """Return rows of one view that were read at different times, each as the rows and its place in them; at least one."""
    return ViewRows(
        [rows.status[place] for rows, place in places],
        [rows.event_us[place] for rows, place in places],
        [rows.created_us[place] for rows, place in places],
        {column: [rows.values[column][place] for rows, place in places] for column in places[0][0].values},
    )


def with_view(reading: Reading, view: str, rows: ViewRows, before: ViewEpoch, after: ViewEpoch) -> Reading:
    """Return a reading in which one view was read at another time."""
    return Reading(
        _with_epoch(reading.before, view, before),
        _with_epoch(reading.after, view, after),
        {**reading.views, view: rows},
    )


def with_numbers(reading: Reading, change: Callable[[float], float], kinds: tuple[type, ...] = (float,)) -> Reading:
    """Return a reading with each number of these types changed."""
    views = {
        name: rows._replace(
            values={
                column: [change(value) if type(value) in kinds else value for value in values]
                for column, values in rows.values.items()
            }
        )
        for name, rows in reading.views.items()
    }
    return reading._replace(views=views)


def _with_epoch(epochs: Epochs, view: str, epoch: ViewEpoch) -> Epochs:
    return replace(epochs, views={**epochs.views, view: epoch})
