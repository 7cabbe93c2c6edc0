"""How much the metrics would vary with other entities: the bootstrap, drawing entities and not rows.

Rows of one entity are alike, so rows drawn one by one would make intervals too narrow (the cluster bootstrap: Davison & Hinkley,
*Bootstrap Methods and their Application*, 1997, section 3.8). Intervals are percentiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.errors import BadInput
from lockstep.training.evaluation.document import CONFIDENCE, Interval
from lockstep.training.evaluation.entities import guessed_precision, mean_precision, rank_days
from lockstep.training.evaluation.ranking import RowRanking
from lockstep.training.evaluation.scored import Scored


@dataclass(frozen=True, eq=False)
class Replicated:
    """A model's metrics in each replicate, and what a guess reaches there.

    NaN is what is not defined, as average precision is not without a positive.
    """

    average_precision: NDArray[np.float64]
    auc: NDArray[np.float64]
    entity_precision: NDArray[np.float64]
    share: NDArray[np.float64]
    guessed_precision: NDArray[np.float64]

    @property
    def guess(self) -> "Replicated":
        """The guess as if it were a model."""
        return Replicated(
            average_precision=self.share,
            auc=np.full_like(self.auc, 0.5),
            entity_precision=self.guessed_precision,
            share=self.share,
            guessed_precision=self.guessed_precision,
        )


def draw(entities: int, replicates: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each entity was drawn, of as many draws with replacement as there are entities."""
    chance = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(chance.integers(entities, size=entities), minlength=entities)


def resample(models: Mapping[str, Scored], *, top: int, replicates: int, seed: int) -> dict[str, Replicated]:
    """Return the metrics of several models on the same drawn entities, so that their differences are paired.

    Args:
        models: the same rows, each with one model's scores.
        top: how many entities are looked at in a day.
        replicates: how often entities are drawn.
        seed: of the draws; these depend on the number of entities and on nothing else.

    Raises:
        BadInput: the models were not scored on the same rows.
    """
    scored = list(models.values())
    _require_same_rows(scored)
    ranked = [(RowRanking(one), rank_days(one)) for one in scored]
    values = np.empty((len(scored), 5, replicates))
    for n, weights in enumerate(draw(scored[0].entities, replicates, seed)):
        for m, (rows, days) in enumerate(ranked):
            average_precision, auc, share = rows.measure(weights)
            daily, guessed = (of(days, top, weights) for of in (mean_precision, guessed_precision))
            values[m, :, n] = average_precision, auc, daily, share, guessed
    return {name: Replicated(*values[m]) for m, name in enumerate(models)}


def interval(values: NDArray[np.float64], entities: int) -> Interval | None:
    """Return the interval of the replicates in which the metric is defined.

    None if it is in none, or if there is one entity: drawn alone it is always itself, which tells nothing of another.
    """
    defined = values[~np.isnan(values)]
    if entities < 2 or not len(defined):
        return None
    low, high = np.percentile(defined, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Interval(low=float(low), high=float(high), replicates=len(defined))


def _require_same_rows(scored: Sequence[Scored]) -> None:
    for other in scored[1:]:
        if not all(
            np.array_equal(getattr(scored[0], column), getattr(other, column))
            for column in ("times_us", "labels", "codes")
        ):
            raise BadInput("two models can be compared on the same held-out rows only")
