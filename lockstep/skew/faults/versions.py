"""Two versions serve side by side, and a request's vectors follow the order of the other one's features."""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault, Moment, Vectors


@dataclass(frozen=True, kw_only=True)
class OtherOrder(Fault):
    """A share of the requests has the features in the order of their names."""

    share: float

    def vectors(self, contract: FeatureContract, vectors: Vectors, moment: Moment) -> Vectors:
        """Order the columns as the other version does."""
        if moment.draw.random() >= self.share:
            return vectors
        names = [(feature.name, feature.view) for feature in contract.features]
        return vectors[:, sorted(range(len(names)), key=names.__getitem__)]


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for half of the requests."""
    yield OtherOrder(
        name="versions-mixed",
        says="half of the requests have the features in the order of another version",
        causes=frozenset({"version_mix"}),
        share=0.5,
    )
