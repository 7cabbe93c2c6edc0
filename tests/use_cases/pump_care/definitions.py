"""Everything the library works on, in one value."""

from lockstep.views import UseCase
from pump_care import PROJECT
from pump_care.entities import pump, site
from pump_care.model import pump_failure
from pump_care.services import pump_failure_v1
from pump_care.sources import outcomes, pumps, readings
from pump_care.views.pump_file import pump_file
from pump_care.views.pump_vibration import pump_vibration
from pump_care.views.reading import reading
from pump_care.views.site_breakdowns import site_breakdowns

use_case = UseCase(
    project=PROJECT,
    entities=(pump, site),
    sources=(readings, outcomes, pumps),
    views=(pump_vibration, site_breakdowns, pump_file),
    on_demand=(reading,),
    services=(pump_failure_v1,),
    model=pump_failure,
    tags={"plant": "waterworks"},
)
