"""The payment itself, with no look into the store. Owner: fraud-ml."""

from feature_repo.on_demand.payment import payment as compute_payment
from lockstep.views import OnDemandView

payment = OnDemandView(
    name="payment",
    function=compute_payment,
    inputs={"amount_cents": "int64", "request_time_us": "int64"},
    reads=(),
    outputs={"tx_amount": "float64", "tx_during_weekend": "float64", "tx_during_night": "float64"},
    owner="fraud-ml",
    description="Amount, weekend and night of a payment, from the request alone.",
    tags={"domain": "payments", "pii": "no", "tier": "2"},
)
