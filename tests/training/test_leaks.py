"""A training set from the lake with the model fitted on it: refused by the names of its leaks, or by none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from leaking import pass_on
from tiny_lake import CARDS, KNOWN_AT, TERMINALS, payments, view_rows

from feature_repo.definitions import use_case as fraud
from feature_repo.simulator import SimulatorParameters, append_slice, simulate
from lockstep.errors import UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange
from lockstep.materialize.ledger import Ledger
from lockstep.offline.registry import apply_definitions
from lockstep.serving.features import feature_matrix
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.leaks.find import Suspect, find_leaks
from lockstep.training.leaks.sources import sampled_rows
from lockstep.training.protocol import SPLIT, TRAIN
from lockstep.training.training_set import build_training_set, read_training_set
from lockstep.views import Ceilings, OnDemandView, UseCase, WindowedView, days
from lockstep.views.compute import bootstrap

WORLD = SimulatorParameters(
    customers=80,
    terminals=60,
    days=30,
    radius=40.0,
    seed=1,
    compromised_terminals_per_day=1.0,
    compromised_customers_per_day=2.0,
    late_label_share=0.3,
)
LEAKING_SPINE = """
    SELECT customer_id, terminal_id, event_timestamp, amount_cents, tx_fraud, tx_fraud_scenario, labelled_at, terminal_rate
    FROM (
        SELECT *, tx_datetime AS event_timestamp, avg(tx_fraud) OVER (PARTITION BY terminal_id) AS terminal_rate
        FROM transactions JOIN labels USING (transaction_id, tx_datetime)
    ) WHERE event_timestamp >= $start AND event_timestamp < $end AND labelled_at <= $known_at
"""
RATE = OnDemandView(
    name="rate",
    function=pass_on,
    inputs={"terminal_rate": "float64"},
    reads=(),
    outputs={"rate_now": "float64"},
    owner="fraud-ml",
)


def windowed(name: str) -> WindowedView:
    view = fraud.view(name)
    assert isinstance(view, WindowedView)
    return view


def suspect(settings: Settings, lake: Lake, use_case: UseCase, known_at: datetime) -> Suspect:
    """Make the training set, and fit the model on it."""
    made = build_training_set(settings, use_case, known_at=known_at)
    rows, contract = read_training_set(lake, made.table)
    vectors, train = feature_matrix(contract, rows), rows[SPLIT].to_numpy() == TRAIN
    with one_thread():
        fitted = use_case.model.estimator().fit(vectors[train], rows[use_case.model.label].to_numpy()[train])
    return Suspect(contract, rows, vectors, fitted)


@pytest.fixture(scope="module")
def honest(new_settings: Callable[[], Settings]) -> tuple[Settings, Lake, UseCase, Suspect]:
    """A small world, its views computed as ever, and the use case's model of it."""
    use_case = replace(fraud, model=replace(fraud.model, train=days(8), test=days(6)))
    settings, end = new_settings(), WORLD.start + timedelta(days=WORLD.days)
    lake, ledger = Lake.open(settings, use_case.project), Ledger.open(settings, use_case.project)
    append_slice(lake, simulate(WORLD), None, end)
    apply_definitions(settings, use_case)
    for name in ("customer_spend", "terminal_risk"):
        bootstrap(settings, lake, ledger, use_case.view(name), WORLD.start, end)
    return settings, lake, use_case, suspect(settings, lake, use_case, end)


def test_of_an_honest_set_that_was_changed_since_only_that_is_said(
    honest: tuple[Settings, Lake, UseCase, Suspect],
) -> None:
    settings, lake, use_case, given = honest
    place = given.rows.column_names.index("risk_7d")
    other = given.rows.set_column(place, "risk_7d", pa.array(np.ones(given.rows.num_rows)))
    found = find_leaks(settings, use_case, lake, replace(given, rows=other))
    assert [(a.name, a.subject) for a in found.alarms] == [("not_repeatable", "risk_7d")]
    assert (found.stored, found.unexplained) == ({"customer_spend": 400, "terminal_risk": 400}, {})


def test_rows_of_a_view_that_the_set_was_made_from_are_looked_at_first(
    honest: tuple[Settings, Lake, UseCase, Suspect],
) -> None:
    settings, lake, _, given = honest
    view = windowed("terminal_risk")
    asked = given.rows.select(["terminal_id", "event_timestamp"]).slice(given.rows.num_rows - 20)
    within = TimeRange("event_timestamp", WORLD.start, WORLD.start + timedelta(days=WORLD.days))
    found = sampled_rows(settings, lake, view, given.snapshots, within, asked, 30, 0)

    table = lake.table("terminal_risk").scan().to_arrow()
    rows = table.select(["terminal_id", "event_timestamp", "created_timestamp"]).to_pylist()
    visible = [
        max(
            (
                (row["event_timestamp"], row["created_timestamp"])
                for row in rows
                if row["terminal_id"] == terminal and row["created_timestamp"] + view.visible_lag <= time
            ),
            default=None,
        )
        for terminal, time in zip(*(asked[name].to_pylist() for name in asked.column_names), strict=True)
    ]
    newest = {(key, *row) for key, row in zip(asked["terminal_id"].to_pylist(), visible, strict=True) if row}
    columns = ("terminal_id", "event_timestamp", "created_timestamp")
    assert newest
    assert newest <= set(zip(*(found[name].to_pylist() for name in columns), strict=True))
    assert found.num_rows == 30


def tiny(settings: Settings, use_case: UseCase, risk: pa.Table) -> Lake:
    """Write payments, labels, rows of `customer_spend` by hand and these of `terminal_risk`."""
    lake = Lake.open(settings, use_case.project)
    spend = view_rows(windowed("customer_spend"), CARDS - 1)
    for name, rows in {**payments(), "customer_spend": spend, "terminal_risk": risk}.items():
        lake.ensure_table(name, rows.schema)
        lake.append(name, rows)
    apply_definitions(settings, use_case)
    return lake


def leaking_risk() -> pa.Table:
    """`terminal_risk` once more, its shares over the days before the tick, whether or not the labels were known."""
    labels, rows = payments()["labels"], view_rows(windowed("terminal_risk"), TERMINALS)
    time, key = labels["tx_datetime"].cast(pa.int64()).to_numpy(), labels["terminal_id"].to_numpy()
    fraudulent = labels["tx_fraud"].to_numpy()
    asked = zip(rows["terminal_id"].to_pylist(), rows["event_timestamp"].cast(pa.int64()).to_pylist(), strict=True)
    inside = [
        fraudulent[(key == terminal) & (time >= tick - 7 * 86_400_000_000) & (time < tick)] for terminal, tick in asked
    ]
    shares = pa.array([float(labels.mean()) if len(labels) else 0.0 for labels in inside])
    return rows.set_column(rows.column_names.index("risk_7d"), rows.schema.field("risk_7d"), shares)


def test_leaks_of_the_spine_and_of_a_table_and_what_they_do_are_all_named(
    new_settings: Callable[[], Settings], use_case: UseCase
) -> None:
    service = use_case.model.service
    service = replace(service, features=(*service.features, (RATE, "rate_now")))
    services = tuple(service if s.name == service.name else s for s in use_case.services)
    ceilings = Ceilings(average_precision=0.9, auc=0.9, not_as_declared=1.0)
    model = replace(use_case.model, service=service, spine=LEAKING_SPINE, ceilings=ceilings, test=days(6))
    leaking = replace(use_case, on_demand=(*use_case.on_demand, RATE), services=services, model=model)
    settings = new_settings()
    lake = tiny(settings, leaking, leaking_risk())
    found = find_leaks(settings, leaking, lake, suspect(settings, lake, leaking, KNOWN_AT))
    assert [(a.name, a.subject) for a in found.alarms] == [
        ("whole_history_rate", "terminal_rate (spine)"),
        ("label_without_delay", "terminal_risk:risk_7d"),
        ("one_feature", "transaction_context:tx_amount"),
        ("too_good", "average_precision"),
        ("too_good", "auc"),
    ]
    by_hand = {
        f"{name}:{feature}" for name in ("customer_spend", "terminal_risk") for feature in fraud.view(name).features
    }
    assert set(found.unexplained) == by_hand - {"terminal_risk:risk_7d"}, "what is wrong otherwise is no leak"


def test_a_spine_of_tables_that_nobody_declares_is_refused(
    honest: tuple[Settings, Lake, UseCase, Suspect],
) -> None:
    settings, lake, use_case, given = honest
    undeclared = replace(use_case, sources=tuple(s for s in use_case.sources if s.table != "labels"))
    with pytest.raises(UseCaseError, match="reads labels, which is neither a source nor a view of the use case"):
        find_leaks(settings, undeclared, lake, given)
