"""Where a card holder lives and what kind of customer they are. Owner: customer-data."""

from feature_repo.entities import customer
from feature_repo.sources import customers
from lockstep.views import days, hours, latest_view, soft

customer_profile = latest_view(
    name="customer_profile",
    entity=customer,
    source=customers,
    # Not x and y: a function that takes a place of each kind names its inputs by the column alone.
    columns={"home_x": "float64", "home_y": "float64", "segment": "string", "card_issued_day": "int64"},
    every=days(1),
    ttl=days(365),
    freshness=soft(hours(48)),
    owner="customer-data",
    description="Home on the map, segment, and the day the card was issued, in days since 1970-01-01.",
    tags={"domain": "customers", "pii": "yes", "tier": "3"},
)
