"""What is on file about a pump. Owner: site-operations."""

from lockstep.views import days, hours, latest_view, soft
from pump_care.entities import pump
from pump_care.sources import pumps

pump_file = latest_view(
    name="pump_file",
    entity=pump,
    source=pumps,
    columns={"rated_kpa": "int64", "repairs": "int64"},
    every=hours(1),
    ttl=days(30),
    freshness=soft(hours(24)),
    owner="site-operations",
    description="The pressure a pump is made for, and how often it has been repaired.",
    tags={"plant": "waterworks"},
)
