"""Nulls become zeros on the way to the model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors


@dataclass(frozen=True, kw_only=True)
class NullToZero(Fault):
    """Every null of a vector is a zero."""

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Fill in zeros."""
        return np.nan_to_num(vectors, nan=0.0)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it."""
    yield NullToZero(
        name="null-to-zero",
        says="what has no value goes to the model as 0",
        causes=frozenset({"type", "transform"}),
    )
