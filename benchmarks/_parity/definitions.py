"""Five stored views of ten features each, three of a card and two of a shop, and one on-demand view."""

from typing import Any

from benchmarks._parity import PROJECT
from benchmarks._parity.on_demand import compare_amount
from lockstep.views import (
    Entity,
    FeatureService,
    LatestView,
    ModelRecipe,
    OnDemandView,
    Protocol,
    Source,
    Thresholds,
    UseCase,
    days,
    hours,
    latest_view,
    soft,
)
from lockstep.views.declare import DataType

OWNER = "benchmarks"
FLOATS, INTEGERS = 8, 2


def make_estimator() -> Any:
    """Return an unfitted classifier that takes nulls."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - takes 2 s

    return HistGradientBoostingClassifier(max_iter=50, random_state=7)


def _source(table: str) -> Source:
    return Source(table=table, event_time="event_time", known_at="known_at", owner=OWNER)


def _view(number: int, entity: Entity, source: Source) -> LatestView:
    floats: dict[str, DataType] = {f"v{number}_f{n}": "float64" for n in range(FLOATS)}
    integers: dict[str, DataType] = {f"v{number}_n{n}": "int64" for n in range(INTEGERS)}
    return latest_view(
        name=f"view_{number}",
        entity=entity,
        source=source,
        columns=floats | integers,
        every=hours(1),
        ttl=days(1),
        freshness=soft(hours(3)),
        owner=OWNER,
    )


card = Entity(name="card", join_key="card_id", dtype="int64", owner=OWNER)
shop = Entity(name="shop", join_key="shop_id", dtype="int64", owner=OWNER)
sources = {entity.name: _source(f"{entity.name}s") for entity in (card, shop)}
views = tuple(
    _view(number, entity, sources[entity.name]) for number, entity in enumerate((card, card, card, shop, shop))
)
amount = OnDemandView(
    name="amount",
    function=compare_amount,
    inputs={"amount_cents": "int64"},
    reads=((views[0], "v0_f0"),),
    outputs={"amount_ratio": "float64"},
    owner=OWNER,
)
service = FeatureService(
    name="all_features",
    features=(*((view, feature) for view in views for feature in view.features), (amount, "amount_ratio")),
    owner=OWNER,
)
use_case = UseCase(
    project=PROJECT,
    entities=(card, shop),
    sources=tuple(sources.values()),
    views=views,
    on_demand=(amount,),
    services=(service,),
    model=ModelRecipe(
        name="benchmark",
        service=service,
        spine="",
        spine_tables={},
        requests="",
        requests_tables={},
        label="label",
        label_known_at="label_known_at",
        estimator=make_estimator,
        trusted_types=(),
        train=days(1),
        gap=days(1),
        test=days(1),
        protocol=Protocol(entity="card_id"),
        thresholds=Thresholds(average_precision=0.5, auc=0.5),
    ),
)
