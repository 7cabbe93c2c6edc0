"""The definition of a view has changed since the model was trained."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault
from lockstep.views.use_case import UseCase


@dataclass(frozen=True, kw_only=True)
class Redefined(Fault):
    """A view is computed twice as often as it was."""

    view: str

    def definitions(self, use_case: UseCase) -> UseCase:
        """Declare it so."""
        views = tuple(
            replace(view, every=view.every / 2) if view.name == self.view else view for view in use_case.views
        )
        return replace(use_case, views=views)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the first view."""
    for view in contract.views[:1]:
        yield Redefined(
            name=f"redefined:{view.name}",
            says=f"{view.name} is declared with ticks half as long as when the model was trained",
            causes=frozenset({"schema_drift"}),
            view=view.name,
        )
