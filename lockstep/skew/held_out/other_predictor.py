"""The predictor serves a version from before the last view: what it answers is right for that version, which looks at less.

Vectors are made and logged by the contract. The score is not this version's of them: another version scored it, `version_mix`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Vectors


@dataclass(frozen=True, kw_only=True)
class OtherPredictor(Fault):
    """The model looks at no feature of a view: to it they are null."""

    view: str

    def posted(self, contract: FeatureContract, vectors: Vectors) -> Vectors:
        """Hide the view's features from the model."""
        posted = vectors.copy()
        posted[:, [feature.view == self.view for feature in contract.features]] = np.nan
        return posted


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the last view that features are read from as they are stored."""
    read = {feature.view for feature in contract.features}
    for view in [view for view in contract.views if view.name in read][-1:]:
        yield OtherPredictor(
            name=f"other-predictor:{view.name}",
            says=f"the predictor serves a version that does without {view.name}",
            causes=frozenset({"version_mix"}),
            view=view.name,
        )
