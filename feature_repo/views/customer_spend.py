"""What a card has spent lately, not counting the payment at hand. Owner: payments-analytics."""

from feature_repo.entities import customer
from feature_repo.sources import transactions
from lockstep.views import count, days, hours, soft, total, total_of_squares, windowed_view

customer_spend = windowed_view(
    name="customer_spend",
    entity=customer,
    source=transactions,
    # Engines add integers; the mean and the deviation are made on demand.
    measures=[count("nb_tx"), total("amount_cents"), total_of_squares("amount_cents", "amount_cents_squared")],
    windows=[days(1), days(7), days(30)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="payments-analytics",
    description="Number, sum and sum of squares of a card's payments of the last 1, 7 and 30 days.",
    tags={"domain": "payments", "pii": "no", "tier": "2"},
)
