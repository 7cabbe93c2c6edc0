"""The reading at hand, and how it compares. Owner: reliability-engineering."""

from lockstep.views import OnDemandView
from pump_care.on_demand.reading import compare_reading
from pump_care.views.pump_vibration import pump_vibration

_WINDOWS = ("1d", "7d")

reading = OnDemandView(
    name="reading",
    function=compare_reading,
    inputs={"vibration_um": "int64", "pressure_kpa": "int64"},
    reads=tuple(
        (pump_vibration, f"{measure}_{window}") for measure in ("readings", "vibration_um") for window in _WINDOWS
    ),
    outputs={
        "vibration_mm": "float64",
        "pressure_bar": "float64",
        **{f"vibration_over_mean_{window}": "float64" for window in _WINDOWS},
    },
    owner="reliability-engineering",
    description="Vibration and pressure of a reading, and its vibration over the pump's mean of the last day and week.",
    tags={"plant": "waterworks"},
)
