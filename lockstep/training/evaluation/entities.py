"""Which entities a person who can look at the top k of a day finds.

The formula is that of `card_precision_top_k` in the shared functions of the Fraud Detection Handbook (Le Borgne et al.).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from lockstep.clock import from_micros
from lockstep.training.evaluation.document import DayPrecision, EntityPrecision
from lockstep.training.evaluation.scored import DAY_US, Scored


@dataclass(frozen=True, eq=False)
class RankedDay:
    """The entities with rows on one UTC day, the greatest score first; the smaller key first of equal ones.

    Attributes:
        number: the day, counted from 1970.
        codes: the entities.
        positive: whether a row of theirs that day is.
    """

    number: int
    codes: NDArray[np.int64]
    positive: NDArray[np.bool_]

    @property
    def day(self) -> date:
        """The day."""
        return from_micros(self.number * DAY_US).date()


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen of a day; each array has one element an entity of it.

    Attributes:
        left: how often it was still there to be looked at.
        taken: how many of these are among the top.
        found: how many of those are positive.
    """

    left: NDArray[np.int64]
    taken: NDArray[np.int64]
    found: NDArray[np.int64]


def rank_days(scored: Scored) -> tuple[RankedDay, ...]:
    """Return the days that have rows, in order."""
    key = scored.days * scored.entities + scored.codes
    keys, place = np.unique(key, return_inverse=True)
    greatest = np.full(len(keys), -np.inf)
    np.maximum.at(greatest, place, scored.scores)
    positive = np.bincount(place, weights=scored.labels, minlength=len(keys)) > 0
    numbers, codes = np.divmod(keys, scored.entities)
    order = np.lexsort((codes, -greatest, numbers))
    begins = np.unique(numbers[order], return_index=True)[1][1:]
    return tuple(RankedDay(int(numbers[part[0]]), codes[part], positive[part]) for part in np.split(order, begins))


def look(days: Sequence[RankedDay], top: int, copies: NDArray[np.int64]) -> Iterator[Looked]:
    """Yield what is seen day after day: the top `top` of those left; what is found to be positive does not come back.

    Args:
        days: of `rank_days`.
        top: how many are looked at in a day.
        copies: how many there are of each entity, by code: one, or as many as a bootstrap drew. Copies share a rank.
    """
    left_of = copies.copy()
    for day in days:
        left = left_of[day.codes]
        before = np.cumsum(left) - left
        taken = np.minimum(np.maximum(top - before, 0), left)
        found = np.where(day.positive, taken, 0)
        left_of[day.codes] -= found
        yield Looked(left, taken, found)


def mean_precision(days: Sequence[RankedDay], top: int, copies: NDArray[np.int64]) -> float:
    """Return the found over `top`, the mean of the days; a day with fewer entities than `top` is divided by `top` too."""
    return float(np.mean([seen.found.sum() for seen in look(days, top, copies)])) / top


def guessed_precision(days: Sequence[RankedDay], top: int, copies: NDArray[np.int64]) -> float:
    """Return the mean precision to be expected of who looks at `top` of those left at random.

    How many are left is taken at its expectation; over thousands of entities it hardly varies.
    """
    left_of = copies.astype(np.float64)
    found = 0.0
    for day in days:
        left = left_of[day.codes]
        looked_at = min(1.0, top / left.sum()) if left.any() else 0.0
        found_here = np.where(day.positive, looked_at * left, 0.0)
        left_of[day.codes] -= found_here
        found += float(found_here.sum())
    return found / len(days) / top


def entity_precision(scored: Scored, top: int) -> EntityPrecision:
    """Return the share of positive entities among each day's top, and what a perfect ranking reaches.

    An entity found is left out of the days after; so it is for the perfect ranking, whose scores are the labels.
    """
    days, once = rank_days(scored), np.ones(scored.entities, np.int64)
    perfect = rank_days(scored.with_scores(scored.labels.astype(np.float64)))
    each = tuple(
        DayPrecision(
            day=day.day,
            entities=int(seen.left.sum()),
            positives=int(seen.left[day.positive].sum()),
            found=int(seen.found.sum()),
            precision=int(seen.found.sum()) / top,
        )
        for day, seen in zip(days, look(days, top, once), strict=True)
    )
    return EntityPrecision(
        top=top,
        precision=mean_precision(days, top, once),
        ceiling=mean_precision(perfect, top, once),
        no_skill=guessed_precision(days, top, once),
        days=each,
    )


def rows_found(scored: Scored, top: int) -> NDArray[np.bool_]:
    """Return by row whether its entity is among that day's top, or was found to be positive on a day before."""
    days = rank_days(scored)
    found_on = np.full(scored.entities, np.iinfo(np.int64).max)
    among: list[NDArray[np.int64]] = []
    for day, seen in zip(days, look(days, top, np.ones(scored.entities, np.int64)), strict=True):
        among.append(day.number * scored.entities + day.codes[seen.taken > 0])
        found_on[day.codes[seen.found > 0]] = day.number
    key = scored.days * scored.entities + scored.codes
    return np.isin(key, np.concatenate(among)) | (scored.days > found_on[scored.codes])
