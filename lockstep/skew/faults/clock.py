"""The serving node's clock is five hours ahead or behind, as a local time taken for UTC; it stamps the request times, too."""

from collections.abc import Iterator
from datetime import timedelta

from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault

APART = {"+5h": timedelta(hours=5), "-5h": timedelta(hours=-5)}


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both, and both with the objectives of the views not looked at, where one is hard."""
    hard = any(view.freshness_hard for view in contract.views)
    for label, apart in APART.items():
        for guarded in (True, False) if hard else (True,):
            yield Fault(
                name=f"clock{label}{'' if guarded else '-unguarded'}",
                says=f"the serving node's clock is {label} off{'' if guarded else ', and no objective is looked at'}",
                causes=frozenset({"clock_skew"}),
                clock=apart,
                guarded=guarded,
            )
