"""How much fraud a terminal has seen, a week ago and before. Owner: risk-operations.

Whether a payment was fraud is known a week later, so the windows end seven days before the tick. The source has one label
row a payment, fraud or not, and the count is that of the labelled payments: the denominator of the risk, with its delay, as
the published feature is defined. How busy a terminal is now is in `terminal_activity`.
"""

from feature_repo.entities import terminal
from feature_repo.sources import labels
from lockstep.views import count, days, hard, hours, ratio, total, windowed_view

terminal_risk = windowed_view(
    name="terminal_risk",
    entity=terminal,
    source=labels,
    measures=[count("nb_tx"), total("tx_fraud", "nb_fraud")],
    ratios=[ratio("risk", "nb_fraud", "nb_tx", empty=0.0)],
    windows=[days(1), days(7), days(30)],
    delay=days(7),
    every=hours(1),
    ttl=days(7),
    # Of all views this one costs most when it is late, so the fallback model takes over.
    freshness=hard(hours(6)),
    owner="risk-operations",
    description="Number of a terminal's labelled payments and frauds, and their share, over 1, 7 and 30 days ending a week ago.",
    tags={"domain": "risk", "pii": "no", "tier": "1"},
)
