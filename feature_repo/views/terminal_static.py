"""Where a terminal stands and what is sold there. Owner: acquiring."""

from feature_repo.entities import terminal
from feature_repo.sources import terminals
from lockstep.views import days, latest_view, soft

terminal_static = latest_view(
    name="terminal_static",
    entity=terminal,
    source=terminals,
    columns={"terminal_x": "float64", "terminal_y": "float64", "category": "string", "installed_day": "int64"},
    every=days(1),
    ttl=days(365),
    freshness=soft(days(7)),
    owner="acquiring",
    description="Place on the map, category, and the day of installation, in days since 1970-01-01.",
    tags={"domain": "terminals", "pii": "no", "tier": "3"},
)
