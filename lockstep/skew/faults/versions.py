"""Two versions serve side by side, and a request's vectors or scores are those of the other one."""

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


@dataclass(frozen=True, kw_only=True)
class OtherModel(Fault):
    """A share of the requests is scored by the fallback model, and answered and logged as the main one's."""

    share: float

    def by_fallback(self, moment: Moment) -> bool:
        """Draw."""
        return bool(moment.draw.random() < self.share)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both for half of the requests; that of the models only where there are two."""
    if contract.fallback:
        yield OtherModel(
            name="models-mixed",
            says="half of the requests are scored by the fallback model, and logged as the main one's",
            causes=frozenset({"version_mix"}),
            share=0.5,
        )
    yield OtherOrder(
        name="order-mixed",
        says="half of the requests have the features in the order of a version that nobody registered",
        causes=frozenset({"version_mix", "unexplained"}),
        share=0.5,
    )
