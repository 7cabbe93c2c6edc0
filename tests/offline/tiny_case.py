"""A use case of one windowed view, one on-demand view and one service; importable, since its function is found by name."""

from collections.abc import Mapping
from typing import Any, cast

from lockstep.views import (
    Entity,
    FeatureService,
    ModelRecipe,
    OnDemandView,
    Source,
    UseCase,
    count,
    days,
    hours,
    minutes,
    soft,
    total,
    windowed_view,
)

card = Entity("card", join_key="card_id", dtype="int64", owner="cards", description="A payment card")
payments = Source("payments", event_time="paid_at", known_at="ingested_at", owner="cards")
spend = windowed_view(
    name="spend",
    entity=card,
    source=payments,
    measures=[count("n"), total("cents")],
    windows=[days(1)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="cards",
    compute_lag=minutes(5),
    visible_lag=minutes(5),
    description="What a card has spent",
    tags={"tier": "gold"},
)


def fold(columns: Mapping[str, Any]) -> dict[str, Any]:
    cents = columns["amount"]
    return {
        "mean": (columns["cents_1d"] + cents) / (columns["n_1d"] + 1.0),
        "amount_again": cents,
        "kinds": [str(columns[name].dtype) for name in sorted(columns)][0:1] * len(cents),
    }


context = OnDemandView(
    name="context",
    function=fold,
    inputs={"amount": "int64"},
    reads=((spend, "n_1d"), (spend, "cents_1d")),
    outputs={"mean": "float64", "amount_again": "int64", "kinds": "string"},
    owner="risk",
    description="The payment folded in",
)
service = FeatureService(
    name="tiny_v1",
    features=((context, "mean"), (spend, "cents_1d"), (context, "amount_again"), (context, "kinds")),
    owner="risk",
)
use_case = UseCase(
    project="tiny",
    entities=(card,),
    sources=(payments,),
    views=(spend,),
    on_demand=(context,),
    services=(service,),
    model=cast("ModelRecipe", None),  # nothing here fits a model
)
