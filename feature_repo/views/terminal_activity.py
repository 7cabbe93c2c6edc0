"""How busy a terminal is now, whatever becomes of its payments. Owner: acquiring.

Not the count in `terminal_risk`, which ends a week ago; hence another name, for a model may want both.
"""

from feature_repo.entities import terminal
from feature_repo.sources import transactions
from lockstep.views import count, days, hours, soft, windowed_view

terminal_activity = windowed_view(
    name="terminal_activity",
    entity=terminal,
    source=transactions,
    measures=[count("payments")],
    windows=[days(1), days(7), days(30)],
    every=hours(1),
    ttl=days(7),
    freshness=soft(hours(6)),
    owner="acquiring",
    description="Number of a terminal's payments of the last 1, 7 and 30 days.",
    tags={"domain": "terminals", "pii": "no", "tier": "3"},
)
