"""The raw tables of the lake, append only, each with the time a row became known."""

from lockstep.views import Source

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
    description="Which payments were fraud, known a week after the payment or, for a few, later.",
)
