"""What features are about: a pump, named by the text on its plate, and the site it stands on."""

from lockstep.views import Entity

pump = Entity(
    name="pump",
    join_key="pump_id",
    dtype="string",
    owner="reliability-engineering",
    description="A pump; its number on the plate, such as P-017.",
)

site = Entity(
    name="site",
    join_key="site_id",
    dtype="int64",
    owner="site-operations",
    description="A place with several pumps and one crew.",
)
