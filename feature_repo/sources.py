"""The raw tables of the lake, append only, each with the time a row became known."""

from lockstep.views import Source

customers = Source(
    table="customers",
    event_time="changed_at",
    known_at="known_at",
    owner="customer-data",
    description="What is on file about card holders; a row more for each change.",
)

terminals = Source(
    table="terminals",
    event_time="changed_at",
    known_at="known_at",
    owner="acquiring",
    description="What is on file about points of sale; a row more for each change.",
)

transactions = Source(
    table="transactions",
    event_time="tx_datetime",
    known_at="ingested_at",
    owner="payments-analytics",
    description="Card payments; amounts in cents.",
)

labels = Source(
    table="labels",
    event_time="tx_datetime",
    known_at="labelled_at",
    owner="risk-operations",
    description="Whether a payment was fraud: one row a payment, known a week after it or, for a few, later.",
)
