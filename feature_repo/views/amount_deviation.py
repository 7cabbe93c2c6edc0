"""How far the payment lies from the card's own recent ones. Owner: fraud-ml."""

from feature_repo.on_demand.deviation import amount_deviation as compute_deviation
from feature_repo.views.customer_spend import customer_spend
from lockstep.views import OnDemandView

_MEASURES = ("nb_tx", "amount_cents", "amount_cents_squared")
_DAYS = (7, 30)  # a day holds two payments of a card: too few to deviate from

amount_deviation = OnDemandView(
    name="amount_deviation",
    function=compute_deviation,
    inputs={"amount_cents": "int64"},
    reads=tuple((customer_spend, f"{measure}_{days}d") for measure in _MEASURES for days in _DAYS),
    outputs={
        **{f"amount_to_avg_{days}d": "float64" for days in _DAYS},
        **{f"amount_zscore_{days}d": "float64" for days in _DAYS},
    },
    owner="fraud-ml",
    description="The amount over the mean of the card's payments before it, and in their standard deviations from it.",
    tags={"domain": "payments", "pii": "no", "tier": "2"},
)
