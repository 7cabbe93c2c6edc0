"""The payment itself, and the card's spending with this payment counted in. Owner: fraud-ml."""

from feature_repo.on_demand.transaction import transaction_context as compute_context
from feature_repo.views.customer_spend import customer_spend
from lockstep.views import OnDemandView

_DAYS = (1, 7, 30)

transaction_context = OnDemandView(
    name="transaction_context",
    function=compute_context,
    inputs={"amount_cents": "int64", "request_time_us": "int64"},
    reads=tuple((customer_spend, f"{measure}_{days}d") for measure in ("nb_tx", "amount_cents") for days in _DAYS),
    outputs={
        "tx_amount": "float64",
        "tx_during_weekend": "float64",
        "tx_during_night": "float64",
        **{f"customer_nb_tx_{days}d": "float64" for days in _DAYS},
        **{f"customer_avg_amount_{days}d": "float64" for days in _DAYS},
    },
    owner="fraud-ml",
    description="Amount, weekend and night of a payment; the card's payments and mean amount including it.",
    tags={"domain": "payments", "pii": "no", "tier": "2"},
)
