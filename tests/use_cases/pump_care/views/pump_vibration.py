"""How a pump has been vibrating lately. Owner: reliability-engineering."""

from lockstep.views import count, days, hours, soft, total, windowed_view
from pump_care.entities import pump
from pump_care.sources import readings

pump_vibration = windowed_view(
    name="pump_vibration",
    entity=pump,
    source=readings,
    measures=[count("readings"), total("vibration_um")],
    windows=[days(1), days(7)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="reliability-engineering",
    description="Number of a pump's readings and their vibration, of the last day and week.",
    tags={"plant": "waterworks"},
)
