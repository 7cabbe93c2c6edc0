"""A use case as small as serving needs it: two views, one on-demand function, one model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier

from lockstep.contract import Column, Feature, FeatureContract, OnDemand, TableCut, TrainingCut, View
from lockstep.hashing import source_hash
from lockstep.serving.artifact import contract_metadata
from lockstep.threads import one_thread

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SEED = 7


def enrich(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the amount over the card's mean, and the hour of the day."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = given["amount_cents"] / given["avg_amount_7d"]
    return {"amount_ratio": ratio, "hour": given["request_time_us"] // HOUR_US % 24}


def view(name: str, key: str, columns: tuple[Column, ...], ttl_us: int) -> View:
    return View(
        name=name,
        table=name,
        join_keys=(Column(name=key, dtype="int64"),),
        columns=columns,
        ttl_us=ttl_us,
        every_us=HOUR_US,
        compute_lag_us=300_000_000,
        visible_lag_us=300_000_000,
        freshness_us=3 * HOUR_US,
        freshness_hard=False,
        owner="tests",
        definition_hash="0" * 64,
    )


CARDS = view(
    "cards",
    "customer_id",
    (Column(name="nb_tx_7d", dtype="int64"), Column(name="avg_amount_7d", dtype="float64")),
    3 * DAY_US,
)
TERMINALS = view("terminals", "terminal_id", (Column(name="risk_28d", dtype="float64"),), 0)


def contract(**changes: Any) -> FeatureContract:
    fields: dict[str, Any] = {
        "project": "fraud_case",
        "feature_service": "fraud_v1",
        "join_keys": (Column(name="customer_id", dtype="int64"), Column(name="terminal_id", dtype="int64")),
        "request_inputs": (
            Column(name="amount_cents", dtype="int64"),
            Column(name="request_time_us", dtype="int64"),
        ),
        "features": (
            Feature(name="risk_28d", view="terminals", dtype="float64"),
            Feature(name="nb_tx_7d", view="cards", dtype="int64"),
            Feature(name="amount_ratio", view="enriched", dtype="float64"),
            Feature(name="hour", view="enriched", dtype="int64"),
            Feature(name="avg_amount_7d", view="cards", dtype="float64"),
        ),
        "views": (CARDS, TERMINALS),
        "on_demand": (
            OnDemand(
                name="enriched",
                function="fraud_case:enrich",
                source_hash=source_hash("fraud_case"),
                inputs=(Column(name="amount_cents", dtype="int64"), Column(name="request_time_us", dtype="int64")),
                reads=(("cards", "avg_amount_7d"),),
                outputs=(Column(name="amount_ratio", dtype="float64"), Column(name="hour", dtype="int64")),
                owner="tests",
            ),
        ),
        "cut": TrainingCut(
            tables=(TableCut(table="cards", snapshot_id=1, tag="t"),),
            spine_hash="1" * 64,
            known_at=datetime(2018, 5, 1, tzinfo=UTC),
        ),
    }
    return FeatureContract(**fields | changes)


def with_fallback() -> FeatureContract:
    """Return the contract with a hard objective of the terminals, and a fallback that does without them."""
    main = contract(views=(CARDS, TERMINALS.model_copy(update={"freshness_hard": True})))
    features = tuple(feature for feature in main.features if feature.view != "terminals")
    fallback = main.model_copy(
        update={"feature_service": "fraud_v1_fallback", "features": features, "views": (CARDS,)}
    )
    return main.model_copy(update={"fallback": fallback})


def with_policy(**policies: dict[str, Any]) -> FeatureContract:
    """Return the contract with a policy for some of its features."""
    features = tuple(f.model_copy(update=policies.get(f.name, {})) for f in contract().features)
    return contract(features=features)


def fitted(width: int = 5) -> HistGradientBoostingClassifier:
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(600, width))
    rows[::9, 0] = np.nan
    with one_thread():
        return HistGradientBoostingClassifier(max_iter=20, random_state=SEED).fit(rows, (rows[:, 1] > 0).astype(int))


def write_model(
    folder: Path, given: FeatureContract, estimator: Any, sklearn_version: str = sklearn.__version__
) -> Path:
    """Write what MLflow's `log_model` writes, as far as anyone reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "flavors": {"sklearn": {"pickled_model": "model.skops", "sklearn_version": sklearn_version}},
        "metadata": contract_metadata(given),
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    skops.io.dump(estimator, folder / "model.skops")
    if given.fallback:
        (folder / "extra_files").mkdir(exist_ok=True)
        skops.io.dump(fitted(len(given.fallback.features)), folder / "extra_files" / "fallback.skops")
    return folder
