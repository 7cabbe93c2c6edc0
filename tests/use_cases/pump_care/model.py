"""How the model is made that says which pump will break down within three days."""

from typing import TYPE_CHECKING

from lockstep.views import ModelRecipe, Protocol, Thresholds, Words, days
from pump_care.services import pump_failure_v1

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SPINE = """
    SELECT
        readings.pump_id,
        readings.site_id,
        readings.read_at AS event_timestamp,
        readings.vibration_um,
        readings.pressure_kpa,
        outcomes.broke_down,
        outcomes.inspected_at
    FROM readings
    JOIN outcomes USING (reading_id)
    WHERE readings.read_at >= $start AND readings.read_at < $end
      AND outcomes.read_at >= $start AND outcomes.read_at < $end
      AND readings.received_at <= $known_at AND outcomes.inspected_at <= $known_at
"""

REQUESTS = """
    SELECT pump_id, site_id, vibration_um, pressure_kpa
    FROM readings
    ORDER BY read_at DESC, reading_id DESC
    LIMIT $rows
"""


def make_estimator() -> "Pipeline":
    """Return an unfitted classifier; what is missing (a site's first days) becomes the median."""
    # Every step loads the definitions, one of them trains: scikit-learn takes 2 s to import.
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), LogisticRegression()
    )


pump_failure = ModelRecipe(
    name="pump_failure",
    service=pump_failure_v1,
    spine=SPINE,
    spine_tables={
        "readings": (
            "reading_id",
            "read_at",
            "pump_id",
            "site_id",
            "vibration_um",
            "pressure_kpa",
            "received_at",
        ),
        "outcomes": ("reading_id", "read_at", "broke_down", "inspected_at"),
    },
    requests=REQUESTS,
    requests_tables={"readings": ("reading_id", "read_at", "pump_id", "site_id", "vibration_um", "pressure_kpa")},
    label="broke_down",
    label_known_at="inspected_at",
    estimator=make_estimator,
    trusted_types=("numpy.dtype",),
    train=days(21),
    gap=days(3),
    test=days(7),
    # A pump that broke down is repaired, and may break down again: none is left out.
    protocol=Protocol(entity="pump_id", top=5, leave_known_out=False),
    words=Words(rows="readings", positives="breakdowns", entities="pumps"),
    thresholds=Thresholds(average_precision=0.5, auc=0.8),
)
