"""An on-demand feature is computed otherwise than in training."""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors


@dataclass(frozen=True, kw_only=True)
class OtherFunction(Fault):
    """One on-demand feature comes out a tenth greater."""

    view: str
    feature: str

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Make it so."""
        changed = vectors.copy()
        for place, feature in enumerate(contract.features):
            if (feature.view, feature.name) == (self.view, self.feature):
                changed[:, place] *= 1.1
        return changed


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the last feature that is made on demand."""
    made = {view.name for view in contract.on_demand}
    for feature in [f for f in contract.features if f.view in made][-1:]:
        yield OtherFunction(
            name="other-function",
            says=f"{feature.name} is computed a tenth greater than in training",
            causes=frozenset({"transform"}),
            view=feature.view,
            feature=feature.name,
        )
