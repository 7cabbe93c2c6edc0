"""Our features of the published events, row by row against the handbook's own way of making them: pandas' rolling windows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo.definitions import use_case
from feature_repo.published_results import PUBLICATION, events_of
from feature_repo.simulator import World, simulate_published
from lockstep.errors import BadInput
from lockstep.training.protocol import TEST, TRAIN
from lockstep.training.reproduction import Prepared, PublishedEvents, Size, prepare
from lockstep.views.declare import EVENT_TIMESTAMP

COLUMNS = ["customer_id", "terminal_id", "tx_datetime", "amount_cents"]
WINDOWS = (1, 7, 30)
NAMES = [feature for _, feature in PUBLICATION.service.features]
# In a small world nearly every card is soon known to be compromised: they stay in here.
SMALL = replace(PUBLICATION, protocol=replace(PUBLICATION.protocol, leave_known_out=False))


@pytest.fixture(scope="module")
def world() -> World:
    """A small published world, whose seconds are made hours: so many payments of a card and a terminal share their time."""
    small = simulate_published(customers=60, terminals=40, days=137, radius=40.0)
    hour_us = 3_600_000_000

    def coarse(table: pa.Table, *columns: str) -> pa.Table:
        for name in columns:
            times = table[name].cast(pa.int64()).to_numpy() // hour_us * hour_us
            table = table.set_column(table.column_names.index(name), name, pa.array(times, pa.timestamp("us", "UTC")))
        return table

    return replace(
        small,
        transactions=coarse(small.transactions, "tx_datetime", "ingested_at"),
        labels=coarse(small.labels, "tx_datetime", "labelled_at"),
    )


@pytest.fixture(scope="module")
def events(world: World) -> PublishedEvents:
    return events_of(world)


@pytest.fixture(scope="module")
def prepared(events: PublishedEvents) -> Prepared:
    return prepare(use_case, "feature_repo", SMALL, events)


def rolled(world: World) -> pd.DataFrame:
    """The features of all payments, by their place: one of rolling windows, and two for those that end a week ago."""
    rows = world.transactions.select(COLUMNS).to_pandas()
    rows["amount"], rows["fraud"] = rows["amount_cents"] / 100, world.labels["tx_fraud"].to_numpy()
    rows["place"] = np.arange(len(rows))
    time = rows["tx_datetime"]
    made = pd.DataFrame({"tx_amount": rows["amount"]})
    made["tx_during_weekend"] = (time.dt.weekday >= 5).astype(float)
    made["tx_during_night"] = (time.dt.hour <= 6).astype(float)
    for _, own in rows.set_index("tx_datetime").groupby("customer_id"):
        for days in WINDOWS:
            amounts = own["amount"].rolling(f"{days}D")
            made.loc[own["place"], f"customer_nb_tx_{days}d"] = amounts.count().to_numpy()
            made.loc[own["place"], f"customer_avg_amount_{days}d"] = amounts.mean().to_numpy()
    for _, own in rows.set_index("tx_datetime").groupby("terminal_id"):
        week = own["fraud"].rolling("7D")
        for days in WINDOWS:
            longer = own["fraud"].rolling(f"{7 + days}D")
            number, frauds = (longer.count() - week.count()).to_numpy(), (longer.sum() - week.sum()).to_numpy()
            made.loc[own["place"], f"nb_tx_{days}d"] = number
            made.loc[own["place"], f"risk_{days}d"] = np.divide(
                frauds, number, out=np.zeros(len(own)), where=number > 0
            )
    return made


def test_every_feature_of_every_row_is_the_one_that_rolling_windows_give(world: World, prepared: Prepared) -> None:
    theirs = rolled(world)[NAMES].to_numpy()
    for split in (TRAIN, TEST):
        held = prepared.splits[split]
        places = held.rows["position"].to_numpy()
        assert len(places) > 300
        for number, name in enumerate(NAMES):
            np.testing.assert_allclose(held.vectors[:, number], theirs[places, number], atol=1e-9, err_msg=name)


def test_of_payments_at_one_time_those_that_stand_before_a_row_are_in_its_windows(
    world: World, events: PublishedEvents, prepared: Prepared
) -> None:
    blind = prepare(use_case, "feature_repo", SMALL, replace(events, places={}))
    column = NAMES.index("customer_nb_tx_1d")
    with_ties, without = (of.splits[TRAIN].vectors[:, column] for of in (prepared, blind))
    times = pd.DataFrame(world.transactions.select(["customer_id", "tx_datetime"]).to_pandas())
    earlier = times.groupby(["customer_id", "tx_datetime"]).cumcount().to_numpy()
    assert np.array_equal(with_ties - without, earlier[prepared.splits[TRAIN].rows["position"].to_numpy()])
    assert (with_ties > without).sum() > 30


def test_rows_stay_in_the_published_order(prepared: Prepared) -> None:
    for held in prepared.splits.values():
        assert (np.diff(held.rows["position"].to_numpy()) > 0).all()
        assert not held.rejected.any()


def test_a_source_or_place_that_is_missing_is_named(events: PublishedEvents) -> None:
    without = replace(events, sources={"transactions": events.sources["transactions"]})
    with pytest.raises(BadInput, match="published events have no labels, the source of view terminal_risk"):
        prepare(use_case, "feature_repo", SMALL, without)
    with pytest.raises(BadInput, match="the spine lacks position"):
        prepare(use_case, "feature_repo", SMALL, replace(events, spine=events.spine.drop_columns("position")))


def test_a_spine_of_other_days_is_refused(world: World, events: PublishedEvents) -> None:
    payments = world.transactions
    labels = world.labels.select(["tx_fraud", "tx_fraud_scenario", "labelled_at"])
    spine = payments.select(COLUMNS).rename_columns(["customer_id", "terminal_id", EVENT_TIMESTAMP, "amount_cents"])
    for name in labels.column_names:
        spine = spine.append_column(name, labels[name])
    whole = spine.append_column("position", pa.array(np.arange(len(spine))))
    with pytest.raises(BadInput, match="rows outside"):
        prepare(use_case, "feature_repo", SMALL, replace(events, spine=whole))


def test_sizes_are_those_of_the_splits(prepared: Prepared) -> None:
    train = prepared.splits[TRAIN]
    assert prepared.sizes[TRAIN] == Size(train.rows.num_rows, int(train.rows["tx_fraud"].to_numpy().sum()))
    assert prepared.sizes[TEST].positives > 0
