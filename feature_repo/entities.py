"""What features are about: the card holder and the terminal of a payment."""

from lockstep.views import Entity

customer = Entity(
    name="customer",
    join_key="customer_id",
    dtype="int64",
    owner="payments-analytics",
    description="A card holder; one card each.",
)

terminal = Entity(
    name="terminal",
    join_key="terminal_id",
    dtype="int64",
    owner="risk-operations",
    description="A point of sale.",
)
