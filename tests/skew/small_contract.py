"""A contract of two stored views and one on-demand view, and rows of it: what hooks of faults are tried on."""

import numpy as np
import pyarrow as pa

from lockstep.clock import parse_time
from lockstep.contract import Column, Feature, FeatureContract, OnDemand, TrainingCut, View
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.layout import field_of, fields_of
from lockstep.online.reader import Reading, ViewRows
from lockstep.online.values import encode_column
from lockstep.skew.fault import Moment

HOUR = 3_600_000_000


def view(name: str, key: str, *columns: Column, hard: bool = False) -> View:
    return View(
        name=name,
        table=name,
        join_keys=(Column(name=key, dtype="int64"),),
        columns=columns,
        ttl_us=72 * HOUR,
        every_us=HOUR,
        compute_lag_us=1,
        visible_lag_us=1,
        freshness_us=6 * HOUR,
        freshness_hard=hard,
        owner="o",
        definition_hash="d",
    )


SPEND = view("spend", "card", Column(name="nb_1d", dtype="int64"), Column(name="nb_7d", dtype="int64"))
RISK = view(
    "risk",
    "shop",
    Column(name="nb_30d", dtype="int64"),
    Column(name="risk_7d", dtype="float64"),
    Column(name="risk_24h", dtype="float64"),
    hard=True,
)
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(Column(name="card", dtype="int64"), Column(name="shop", dtype="int64")),
    request_inputs=(Column(name="request_time_us", dtype="int64"), Column(name="cents", dtype="int64")),
    features=(
        Feature(name="risk_7d", view="risk", dtype="float64"),
        Feature(name="nb_1d", view="spend", dtype="int64"),
        Feature(name="euros", view="made", dtype="float64"),
    ),
    views=(SPEND, RISK),
    on_demand=(
        OnDemand(
            name="made",
            function="test:made",
            source_hash="h",
            inputs=(Column(name="cents", dtype="int64"),),
            reads=(),
            outputs=(Column(name="euros", dtype="float64"),),
            owner="o",
        ),
    ),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=parse_time("2018-06-01T00:00:00Z")),
)


def moment(previous: Reading | None = None) -> Moment:
    return Moment(np.random.default_rng(0), previous)


def reading(*risks: float, sequence: int = 1) -> Reading:
    """One row a risk, read at an interval of that number; the counts are the row's number."""
    rows = range(len(risks))
    mark = Mark(interval=sequence, snapshot_id=sequence, sequence=sequence, watermark_us=0)
    epochs = Epochs("i", {name: ViewEpoch(committed=mark) for name in ("spend", "risk")})

    def of(values: dict[str, list[object]]) -> ViewRows:
        return ViewRows(["present" for _ in rows], [HOUR + row for row in rows], [HOUR for _ in rows], values)

    spend = of({"nb_1d": list(rows), "nb_7d": list(rows)})
    risk = of({"nb_30d": list(rows), "risk_7d": list(risks), "risk_24h": [0.0 for _ in rows]})
    return Reading(epochs, epochs, {"spend": spend, "risk": risk})


def stored_row() -> dict[bytes, bytes]:
    values = {"nb_30d": ("int64", 3), "risk_7d": ("float64", 0.25), "risk_24h": ("float64", 0.5)}
    row = dict.fromkeys(fields_of(RISK)[:2], b"t")
    row |= {field_of("risk", n): encode_column(pa.array([v]), dtype)[0] for n, (dtype, v) in values.items()}  # type: ignore[arg-type]
    return row | {field_of("spend", "nb_1d"): b"spend"}
