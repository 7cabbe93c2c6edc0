"""Somebody adds noise of one per cent to the features that are read as they are stored, between reading and scoring.

What was read and logged is a row that was written, so it is no `corruption`; no function made these features, so no
`transform`; and no conversion gives a number that differs each time, so no `type`. None of the definitions holds: `unexplained`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors

SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Noise(Fault):
    """Stored features of a vector are off by about a share of themselves."""

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Add to them."""
        stored = {view.name for view in contract.views}
        of_store = np.array([feature.view in stored for feature in contract.features])
        return vectors * (1 + SHARE * of_store * moment.draw.standard_normal(vectors.shape))


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if a stored feature goes to the model as it is."""
    stored = {view.name for view in contract.views}
    if any(feature.view in stored for feature in contract.features):
        yield Noise(
            name="noise-1pct",
            says=f"features that are read as they are stored have noise of {SHARE:.0%} in the vectors",
            causes=frozenset({"unexplained"}),
        )
