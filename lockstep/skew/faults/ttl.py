"""The ttl is not looked at, while a pipeline stands still; or it is read in another unit, and rows are refused that are good."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract
from lockstep.online.reader import ReadPlan
from lockstep.skew.fault import Fault
from lockstep.views.declare import DAY


@dataclass(frozen=True, kw_only=True)
class OtherTtl(Fault):
    """Rows of one view are judged by another ttl."""

    view: str
    ttl_us: int

    def plan(self, plan: ReadPlan) -> ReadPlan:
        """Put the other ttl into the plan."""
        groups = tuple(
            replace(
                group,
                slices=tuple(
                    replace(part, view=part.view.model_copy(update={"ttl_us": self.ttl_us}))
                    if part.view.name == self.view
                    else part
                    for part in group.slices
                ),
            )
            for group in plan.groups
        )
        return replace(plan, groups=groups)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both for the view with the shortest ttl that falls back on nothing."""
    limited = [view for view in contract.views if view.ttl_us]
    for view in sorted(limited, key=lambda v: v.ttl_us)[:1]:
        stopped = timedelta(days=-(-view.ttl_us * MICROSECOND // DAY) + 1)
        yield OtherTtl(
            name=f"ttl-ignored:{view.name}",
            says=f"the pipeline of {view.name} stands still for {stopped.days} d, and its ttl is not looked at",
            causes=frozenset({"ttl"}),
            also=frozenset({"materialization_gap"}),
            lags={view.name: stopped},
            guarded=not view.freshness_hard,
            view=view.name,
            ttl_us=0,
        )
        short = max(view.ttl_us // 24, 1)
        yield OtherTtl(
            name=f"ttl-too-short:{view.name}",
            says=f"the ttl of {view.name} in hours is taken for days: 24 times too short",
            causes=frozenset({"ttl"}),
            view=view.name,
            ttl_us=short,
        )
