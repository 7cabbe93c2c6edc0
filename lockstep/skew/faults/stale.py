"""A view's rows come online an hour, a day or a week late, as after a pipeline that runs late.

A late pipeline is honest: the epoch hash says how far it has come, so past a hard objective the fallback model answers. What
happens where nobody looks at that is a variant of its own, `unguarded`.
"""

from collections.abc import Iterator
from datetime import timedelta

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract, View
from lockstep.skew.fault import Fault

LAGS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield one for each view and lag."""
    for view in contract.views:
        for label, lag in LAGS.items():
            yield _late(view, label, lag, guarded=True)
            if view.freshness_hard and lag // MICROSECOND > view.freshness_us:
                yield _late(view, label, lag, guarded=False)


def _late(view: View, label: str, lag: timedelta, *, guarded: bool) -> Fault:
    within = lag // MICROSECOND + view.every_us <= view.freshness_us
    falls_back = guarded and view.freshness_hard and not within
    unseen = ""
    if within:
        unseen = "it keeps the objective: excused as late"
    elif falls_back:
        unseen = "the fallback model answers, which does without the view"
    return Fault(
        name=f"stale-{label}{'' if guarded else '-unguarded'}:{view.name}",
        says=f"{view.name} comes online {label} late{'' if guarded else ', and its objective is not looked at'}",
        causes=frozenset() if unseen else frozenset({"materialization_gap"}),
        unseen=unseen,
        lags={view.name: lag},
        guarded=guarded,
    )
