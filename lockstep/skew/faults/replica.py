"""The store claims to have all, and the rows that it gives are a day old, as those of a replica that fell behind."""

from collections.abc import Iterator

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault
from lockstep.views.declare import DAY


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield one for each view."""
    for view in contract.views:
        yield Fault(
            name=f"replica-1d:{view.name}",
            says=f"the store claims all of {view.name}, and gives the rows of a day ago",
            causes=frozenset({"materialization_gap"}),
            lags={view.name: DAY},
            honest=False,
        )
