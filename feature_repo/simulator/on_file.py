"""What is on file about customers and terminals besides their place, row by row as it changes; no payment depends on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.simulator.moments import DAY_SECONDS, SECOND, to_microseconds
from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.streams import Stream, generator

SEGMENTS = ("business", "premium", "standard", "student")
CATEGORIES = ("electronics", "fashion", "fuel", "groceries", "restaurant", "travel")

SEGMENT_CHANGES_PER_YEAR = 1.0
CATEGORY_CHANGES_PER_YEAR = 1 / 3

_YEAR_DAYS = 365
_OLDEST_CARD_DAYS = 5 * _YEAR_DAYS
_OLDEST_TERMINAL_DAYS = 10 * _YEAR_DAYS
_DAY = DAY_SECONDS * SECOND
_MINUTE = 60 * SECOND


@dataclass(frozen=True)
class OnFile:
    """Rows of one slowly changing table: the rows of an id lie together, ids ascending, each in order of changed_at.

    `kind` is the customer's segment or the terminal's category, `since_day` the day (since 1970-01-01) on which the card was
    issued or the terminal installed; the times are microseconds since 1970.
    """

    id: NDArray[np.int64]
    kind: NDArray[np.str_]
    since_day: NDArray[np.int64]
    changed_at: NDArray[np.int64]
    known_at: NDArray[np.int64]


def draw_customer_file(parameters: SimulatorParameters) -> OnFile:
    """A customer's segment, which changes about once a year; cards are up to five years old."""
    first = generator(parameters.seed, Stream.CUSTOMERS_ON_FILE)
    changes = Stream.CUSTOMER_CHANGES, SEGMENT_CHANGES_PER_YEAR
    return _draw(parameters, parameters.customers, SEGMENTS, _OLDEST_CARD_DAYS, first, *changes)


def draw_terminal_file(parameters: SimulatorParameters) -> OnFile:
    """A terminal's category, which changes about once in three years; terminals are up to ten years old."""
    first = generator(parameters.seed, Stream.TERMINALS_ON_FILE)
    changes = Stream.TERMINAL_CHANGES, CATEGORY_CHANGES_PER_YEAR
    return _draw(parameters, parameters.terminals, CATEGORIES, _OLDEST_TERMINAL_DAYS, first, *changes)


def _draw(
    parameters: SimulatorParameters,
    population: int,
    names: tuple[str, ...],
    oldest_days: int,
    first: np.random.Generator,
    stream: Stream,
    changes_per_year: float,
) -> OnFile:
    """First rows, all of the day before the world, then each day's changes; nobody changes twice on one day."""
    start = to_microseconds(parameters.start, "start")
    # A row each: with more of them, the first ones stay who they were.
    drawn = first.integers(0, [len(names), oldest_days], (population, 2))
    kind, since_day = drawn[:, 0].copy(), (start - _DAY) // _DAY - drawn[:, 1]
    ids, kinds = [np.arange(population)], [kind.copy()]
    changed_at, known_at = [np.full(population, start - _DAY)], [np.full(population, start - _DAY)]
    for day in range(parameters.days):
        rng = generator(parameters.seed, stream, day)
        changing = np.flatnonzero(rng.random(population) < changes_per_year / _YEAR_DAYS)
        kind[changing] += rng.integers(1, len(names), len(changing))  # to any other one
        kind[changing] %= len(names)
        moment = start + day * _DAY + rng.integers(0, DAY_SECONDS, len(changing)) * SECOND
        ids.append(changing)
        kinds.append(kind[changing])
        changed_at.append(moment)
        known_at.append(moment + rng.integers(1, 30, len(changing), endpoint=True) * _MINUTE)
    everyone = np.concatenate(ids)
    order = np.argsort(everyone, kind="stable")
    return OnFile(
        id=everyone[order],
        kind=np.array(names)[np.concatenate(kinds)[order]],
        since_day=since_day[everyone[order]],
        changed_at=np.concatenate(changed_at)[order],
        known_at=np.concatenate(known_at)[order],
    )
