"""How often the pumps of a site break down. Owner: site-operations.

An outcome is known three days after the reading, so the windows end three days before the tick. They move slowly: every two
hours is enough.
"""

from lockstep.views import count, days, hard, hours, ratio, total, windowed_view
from pump_care.entities import site
from pump_care.sources import outcomes

site_breakdowns = windowed_view(
    name="site_breakdowns",
    entity=site,
    source=outcomes,
    measures=[count("outcomes"), total("broke_down", "breakdowns")],
    ratios=[ratio("breakdown_share", "breakdowns", "outcomes")],
    windows=[days(7), days(21)],
    delay=days(3),
    every=hours(2),
    ttl=days(7),
    freshness=hard(hours(6)),
    owner="site-operations",
    description="Number and share of a site's readings that a breakdown followed, over a week and three.",
    tags={"plant": "waterworks"},
)
