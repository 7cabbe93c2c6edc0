"""Vectors are made for a version that has one feature more: from the middle on values are a place late, and the last falls off.

The vector follows another version's contract: `version_mix`. Everything was read and computed right, so it is no `wrong_row`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors


@dataclass(frozen=True, kw_only=True)
class InsertedFeature(Fault):
    """The feature in the middle is there twice."""

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Move what comes after it."""
        middle = len(contract.features) // 2
        return np.insert(vectors, middle, vectors[:, middle], axis=1)[:, :-1]


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if there is a second half to move."""
    if len(contract.features) > 1:
        yield InsertedFeature(
            name="inserted-feature",
            says="vectors have the places of a version with one feature more in the middle",
            causes=frozenset({"version_mix"}),
        )
