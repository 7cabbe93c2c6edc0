"""A correction that was tried once was left in: a pod multiplies one stored feature by 1.07 after it was read and logged.

The stored row is one that was written: no `corruption`. No function made the feature: no `transform`. No unit is 1.07 of
another, and no precision is lost by so much: no `type`. None of the definitions holds: `unexplained`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors

FACTOR = 1.07


@dataclass(frozen=True, kw_only=True)
class Factor(Fault):
    """Half of the requests have one feature a little greater in the vectors."""

    place: int

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Multiply it."""
        if moment.draw.random() >= 0.5:
            return vectors
        changed = vectors.copy()
        changed[:, self.place] *= FACTOR
        return changed


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the last whole number that goes to the model as it is stored."""
    stored = {view.name for view in contract.views}
    places = [n for n, f in enumerate(contract.features) if f.view in stored and f.dtype == "int64"]
    for place in places[-1:]:
        yield Factor(
            name="factor-1.07",
            says=f"half of the requests have {contract.features[place].name} times {FACTOR} in the vectors",
            causes=frozenset({"unexplained"}),
            place=place,
        )
