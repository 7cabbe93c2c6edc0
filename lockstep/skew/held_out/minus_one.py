"""The transformer writes -1 for what has no value, as a library does that knows no NaN.

Of a stored feature that is a conversion of null: `type`. Of one that is made on demand the stored parts are equal and the result
differs: `transform`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors


@dataclass(frozen=True, kw_only=True)
class MinusOne(Fault):
    """Every null of a vector is -1."""

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Fill in -1."""
        return np.nan_to_num(vectors, nan=-1.0)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it."""
    yield MinusOne(
        name="minus-one",
        says="what has no value goes to the model as -1",
        causes=frozenset({"type", "transform"}),
    )
