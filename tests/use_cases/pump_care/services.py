"""The features of the model, in the model's order."""

from lockstep.views import FeatureService, default
from pump_care.views.pump_file import pump_file
from pump_care.views.pump_vibration import pump_vibration
from pump_care.views.reading import reading
from pump_care.views.site_breakdowns import site_breakdowns

pump_failure_v1 = FeatureService(
    name="pump_failure_v1",
    features=(
        (reading, "vibration_mm"),
        (reading, "pressure_bar"),
        (reading, "vibration_over_mean_1d"),
        (reading, "vibration_over_mean_7d"),
        (pump_vibration, "readings_1d"),
        (pump_vibration, "vibration_um_7d"),
        (site_breakdowns, "breakdowns_7d"),
        (site_breakdowns, "breakdown_share_7d"),
        (site_breakdowns, "breakdown_share_21d"),
        (pump_file, "repairs"),
    ),
    # A pump that is on no file was repaired by nobody we know of.
    policy={"repairs": default(0.0)},
    owner="reliability-engineering",
    description="A reading, its pump's last week and repairs, and its site's last month.",
)
