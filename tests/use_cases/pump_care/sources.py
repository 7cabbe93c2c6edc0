"""The raw tables of the lake: what the sensors said, what came of it, and what is on file about each pump."""

from lockstep.views import Source

readings = Source(
    table="readings",
    event_time="read_at",
    known_at="received_at",
    owner="reliability-engineering",
    description="Vibration in micrometres and pressure in kilopascals, every few hours a pump.",
)

outcomes = Source(
    table="outcomes",
    event_time="read_at",
    known_at="inspected_at",
    owner="site-operations",
    description="Whether the pump broke down within three days of a reading; known after these, or later.",
)

pumps = Source(
    table="pumps",
    event_time="changed_at",
    known_at="entered_at",
    owner="site-operations",
    description="What is on file about a pump; a row more for each repair, entered an hour after the breakdown.",
)
