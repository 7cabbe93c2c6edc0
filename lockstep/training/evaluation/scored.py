"""The held-out rows with a model's scores: what every metric is computed from."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput
from lockstep.views.declare import DAY

DAY_US = DAY // MICROSECOND


@dataclass(frozen=True, eq=False)
class Scored:
    """Held-out rows, without those of entities that nobody asks about any more; all arrays have one element a row.

    Attributes:
        times_us: event times, microseconds since 1970, UTC.
        labels: 0 or 1, of both at least one.
        scores: the model's probability of label 1.
        entity: the key whose instances are ranked each day, of any type that sorts.
        group: of which kind a positive is; what a negative has here is not read. None if kinds are not told apart.

    Raises:
        BadInput: the arrays differ in length; a label is not 0 or 1, or all are alike; a score is not in [0, 1]; a key is null.
    """

    times_us: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    entity: NDArray[np.generic]
    group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        columns = {"times": self.times_us, "labels": self.labels, "scores": self.scores, "entities": self.entity}
        if self.group is not None:
            columns["groups"] = self.group
        if len({array.shape for array in columns.values()}) != 1 or self.labels.ndim != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in columns.items())
            raise BadInput(f"the held-out columns differ in length: {shapes}", hint="give one element a row")
        if not np.isin(self.labels, (0, 1)).all():
            raise BadInput("a held-out label is neither 0 nor 1")
        positives = int(self.labels.sum())
        if positives in {0, self.rows}:
            kind = "negative" if positives else "positive"
            raise BadInput(
                f"the {self.rows} held-out rows have no {kind} label, so no ranking of them can be judged",
                hint="hold out more days",
            )
        outside = self.rows - int(np.count_nonzero((self.scores >= 0) & (self.scores <= 1)))
        if outside:
            raise BadInput(
                f"{outside} of {self.rows} held-out scores are no probabilities: NaN, or not in [0, 1]",
                hint="give what predict_proba returns for label 1",
            )
        if (self.codes < 0).any():
            raise BadInput("a held-out row has no entity: its key is null")

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.labels)

    @property
    def positives(self) -> int:
        """How many rows have label 1."""
        return int(self.labels.sum())

    @property
    def share(self) -> float:
        """The share of positives: the average precision of a guess."""
        return self.positives / self.rows

    @property
    def entities(self) -> int:
        """How many entities."""
        return int(self.codes.max()) + 1

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Each row's entity as its place among the sorted keys, so that it does not depend on the order of rows."""
        return pd.factorize(self.entity, sort=True)[0].astype(np.int64)

    @cached_property
    def days(self) -> NDArray[np.int64]:
        """Each row's UTC day, counted from 1970."""
        return np.floor_divide(self.times_us, DAY_US)

    def with_scores(self, scores: NDArray[np.float64]) -> "Scored":
        """Return the same rows with another model's scores.

        Raises:
            BadInput: they are not as many, or no probabilities.
        """
        return replace(self, scores=scores)
