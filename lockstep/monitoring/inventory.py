"""The views of a project: who owns them, what they promise, who uses them, how far they have come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, nearest
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.settings import Settings
from lockstep.views import OnDemandView, StoredView, UseCase


@dataclass(frozen=True)
class ViewState:
    """One view as it is declared, and as it is now.

    Attributes:
        name: of the view.
        kind: what it is made of: windowed, latest or on-demand.
        owner: who answers for it.
        features: its features with their types.
        services: the feature services that take a feature of it, directly or through an on-demand view.
        consumers: the models in use that were trained on it.
        entity: what it is about; "" for an on-demand view.
        objective: how old its watermark may be; None for an on-demand view.
        hard: whether a model may not use it past the objective.
        ttl: how long a row answers; 0 is for ever.
        every: the time between two ticks.
        rows: rows in the lake; None for an on-demand view.
        watermark: the last tick that is online, None before the first.
        age: how long ago that was.
    """

    name: str
    kind: str
    owner: str
    description: str
    tags: Mapping[str, str]
    features: Mapping[str, str]
    services: tuple[str, ...]
    consumers: tuple[str, ...]
    entity: str = ""
    objective: timedelta | None = None
    hard: bool = False
    ttl: timedelta | None = None
    every: timedelta | None = None
    rows: int | None = None
    watermark: datetime | None = None
    age: timedelta | None = None
    source: str = ""
    reads: tuple[str, ...] = field(default=())

    @property
    def freshness(self) -> str:
        """How the watermark stands to the objective, in a word: fresh, late, never (nothing is online) or "" (on demand)."""
        if self.objective is None:
            return ""
        if self.age is None:
            return "never"
        return "fresh" if self.age <= self.objective else "late"


def inventory(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, models: Mapping[str, FeatureContract]
) -> list[ViewState]:
    """Return every view of a use case, stored ones first, in the order in which they are declared.

    Args:
        settings: the clock.
        use_case: what declares them.
        lake: has their rows.
        ledger: knows what is online.
        models: the contracts of the models in use, by what to call the model.
    """
    stored = [_stored(settings, use_case, lake, ledger, models, view) for view in use_case.views]
    return stored + [_on_demand(use_case, models, view) for view in use_case.on_demand]


def one_view(views: list[ViewState], name: str) -> ViewState:
    """Return the view of that name.

    Raises:
        BadInput: there is none.
    """
    found = next((view for view in views if view.name == name), None)
    if found is None:
        raise BadInput(f"there is no view {name!r}", hint=nearest(name, (view.name for view in views)))
    return found


def _stored(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    models: Mapping[str, FeatureContract],
    view: StoredView,
) -> ViewState:
    committed = [r for r in ledger.materializations(view.name) if r.state is State.COMMITTED]
    watermark = committed[-1].watermark if committed else None
    current = lake.current(view.table) if lake.exists(view.table) else None
    return ViewState(
        name=view.name,
        kind=view.kind,
        owner=view.owner,
        description=view.description,
        tags=view.tags,
        features=view.features,
        services=_services(use_case, view.name),
        consumers=tuple(name for name, c in models.items() if view.name in {v.name for v in c.views}),
        entity=view.entity.name,
        objective=view.freshness.objective,
        hard=view.freshness.hard,
        ttl=view.ttl,
        every=view.every,
        rows=int(current.properties.get("total-records", "0")) if current else 0,
        watermark=watermark,
        age=settings.clock.now() - watermark if watermark else None,
        source=view.source.table,
    )


def _on_demand(use_case: UseCase, models: Mapping[str, FeatureContract], view: OnDemandView) -> ViewState:
    return ViewState(
        name=view.name,
        kind="on-demand",
        owner=view.owner,
        description=view.description,
        tags=view.tags,
        features=view.features,
        services=_services(use_case, view.name),
        consumers=tuple(name for name, c in models.items() if view.name in {o.name for o in c.on_demand}),
        reads=tuple(f"{source.name}:{column}" for source, column in view.reads),
        source=", ".join(view.inputs),
    )


def _services(use_case: UseCase, name: str) -> tuple[str, ...]:
    """Return the services that take a feature of the view, or of an on-demand view that reads it."""
    readers = {name} | {view.name for view in use_case.on_demand if name in {source.name for source, _ in view.reads}}
    return tuple(s.name for s in use_case.services if readers & {view.name for view, _ in s.features})
