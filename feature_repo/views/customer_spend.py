"""What a card has spent lately, not counting the payment at hand. Owner: payments-analytics."""

from feature_repo.entities import customer
from feature_repo.sources import transactions
from lockstep.views import count, days, hours, soft, total, windowed_view

customer_spend = windowed_view(
    name="customer_spend",
    entity=customer,
    source=transactions,
    measures=[count("nb_tx"), total("amount_cents")],  # engines add integers; the mean is made on demand
    windows=[days(1), days(7), days(30)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="payments-analytics",
    description="Number and sum of a card's payments of the last 1, 7 and 30 days.",
)
