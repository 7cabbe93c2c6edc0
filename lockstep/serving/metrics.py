"""What a transformer counts beside its requests, for Prometheus. No label names an entity.

KServe's endpoint speaks OpenMetrics to who asks for that.
"""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram, Info

from lockstep.contract import FeatureContract
from lockstep.online.reader import ViewRows
from lockstep.serving.edge import SECONDS

READ_SECONDS = Histogram("lockstep_feature_read_seconds", "One read of the online store.", buckets=SECONDS)
PREDICTOR_SECONDS = Histogram("lockstep_predictor_seconds", "One call of the predictor.", buckets=SECONDS)
LOOP_LAG = Histogram(
    "lockstep_event_loop_lag_seconds", "How late the event loop comes back to what waits.", buckets=SECONDS
)
FEATURE_AGE = Gauge(
    "lockstep_feature_age_seconds",
    "How old the watermark of a view is; absent while the store vouches for none.",
    ["view"],
)
VIEW_ROWS = Counter(
    "lockstep_served_view_rows", "Rows read for live requests, by view and status.", ["view", "status"]
)
MISSING = Counter(
    "lockstep_missing_features",
    "Stored features without a value in live requests: nothing is stored, it is past its ttl, or it is a null.",
    ["view", "feature", "reason"],
)
READY = Gauge("lockstep_ready", "Whether store and predictor answer, and serve the same contract.")
CONTRACT = Info("lockstep_contract", "What this process serves.")


def describe_contract(contract: FeatureContract, digest: str, *, shadow: bool) -> None:
    """Say which contract and model this process serves, and whether anybody acts on its answers."""
    CONTRACT.info(
        {
            "project": contract.project,
            "service": contract.feature_service,
            "contract": contract.hash,
            "fallback": contract.fallback.hash if contract.fallback else "",
            "model": digest,
            "shadow": str(shadow).lower(),
        }
    )


def count_rows(views: Mapping[str, ViewRows]) -> None:
    """Count what was read of each view, by status, and the features that have no value."""
    for name, view in views.items():
        rows = len(view.status)
        present = view.status.count("present")
        VIEW_ROWS.labels(name, "present").inc(present)
        absent = [(status, view.status.count(status)) for status in ("missing", "stale")] if present < rows else []
        for status, number in absent:
            VIEW_ROWS.labels(name, status).inc(number)
        for column, values in view.values.items():
            for status, number in absent:
                MISSING.labels(name, column, status).inc(number)
            # A stale row may hold a null, too; then it is stale.
            nulls = (
                sum(v is None and s == "present" for v, s in zip(values, view.status, strict=True))
                if None in values
                else 0
            )
            if nulls:
                MISSING.labels(name, column, "null").inc(nulls)


def tell_ages(ages_us: Mapping[str, int | None]) -> None:
    """Say how old the views are."""
    for view, age in ages_us.items():
        if age is None:
            FEATURE_AGE.remove(view)
        else:
            FEATURE_AGE.labels(view).set(age / 1_000_000)
