"""The simulated world: the specification's rules row by row, and a replay that loses and doubles nothing."""

import hashlib
import itertools
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.simulator import SCHEMAS, SimulatorParameters, World, append_slice, simulate
from feature_repo.simulator.fraud import apply_fraud, compromised_customers, compromised_terminals
from feature_repo.simulator.population import draw_population
from feature_repo.simulator.transactions import draw_payments

REPOSITORY = Path(__file__).parents[2]
START = datetime(2018, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SMALL = SimulatorParameters(
    customers=60,
    terminals=300,
    days=45,
    radius=12.0,
    seed=1,
    compromised_terminals_per_day=1.5,
    compromised_customers_per_day=2.5,
)
KNOWN_AT = {"customers": "known_at", "terminals": "known_at", "transactions": "ingested_at", "labels": "labelled_at"}
TABLES = tuple(KNOWN_AT)


@pytest.fixture(scope="module")
def small() -> World:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def published() -> World:
    return simulate(SimulatorParameters())


def by_id(table: pa.Table) -> list[dict]:
    return table.sort_by("transaction_id").to_pylist()


def microseconds(table: pa.Table, column: str) -> np.ndarray:
    return table[column].cast(pa.int64()).to_numpy()


def digest(world: World) -> str:
    sha = hashlib.sha256()
    for name in TABLES:
        for column in getattr(world, name).columns:
            values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            sha.update(
                repr(values.to_pylist()).encode() if pa.types.is_string(column.type) else values.to_numpy().data
            )
    return sha.hexdigest()


# --- the same parameters make the same world ---


def test_equal_parameters_make_equal_tables(small: World) -> None:
    again = simulate(SMALL)
    assert all(getattr(again, name).equals(getattr(small, name)) for name in TABLES)


def test_another_seed_makes_every_table_different(small: World) -> None:
    other = simulate(replace(SMALL, seed=2))
    assert not any(getattr(other, name).equals(getattr(small, name)) for name in TABLES)


def test_a_seed_means_the_payments_it_always_meant(small: World) -> None:
    first = [list(row.values())[1:5] for row in by_id(small.transactions)[:3]]
    assert first == [
        [START + timedelta(minutes=52, seconds=36), 32, 211, 3_432],
        [START + timedelta(hours=2, minutes=10, seconds=11), 51, 287, 13_683],
        [START + timedelta(hours=2, minutes=10, seconds=47), 17, 211, 2_378],
    ]
    assert small.transactions.num_rows == 4_673


@pytest.mark.parametrize(("zone", "locale", "hash_seed"), [("America/New_York", "de_DE.UTF-8", "1")])
def test_time_zone_locale_and_hash_seed_of_the_machine_change_no_byte(
    small: World, zone: str, locale: str, hash_seed: str
) -> None:
    program = "import test_simulator as t; print(t.digest(t.simulate(t.SMALL)))"
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    environment = {"TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(small)


def test_the_time_zone_a_start_is_written_in_does_not_matter(small: World) -> None:
    new_york = datetime(2018, 3, 31, 20, tzinfo=timezone(timedelta(hours=-4)))
    assert digest(simulate(replace(SMALL, start=new_york))) == digest(small)


def test_more_days_leave_the_payments_of_the_first_days_as_they_were() -> None:
    population = draw_population(SMALL)
    short, long = (draw_payments(replace(SMALL, days=days), population) for days in (10, 20))
    rows = len(short.second)
    assert rows > 500
    for name in ("second", "customer_id", "terminal_id", "amount_cents"):
        assert np.array_equal(getattr(short, name), getattr(long, name)[:rows])


def test_another_rate_of_fraud_leaves_times_customers_and_terminals_as_they_were(small: World) -> None:
    calm = simulate(replace(SMALL, compromised_terminals_per_day=0, compromised_customers_per_day=0))
    columns = ["transaction_id", "tx_datetime", "customer_id", "terminal_id", "ingested_at"]
    assert calm.transactions.select(columns).equals(small.transactions.select(columns))
    assert set(calm.labels["tx_fraud_scenario"].to_pylist()) <= {0, 1}


# --- the published size has the published statistics ---


def test_the_published_size_has_the_rows_its_customers_habits_ask_for(published: World) -> None:
    # The published 1,754,155 rows are one draw: with lambda ~ U(0, 4) another 5,000 customers move the total by 0.8 %
    # (standard deviation) around 1.773 M. Given lambda the total is Poisson, so that is held to 0.3 %.
    inside_the_day = math.erf((43_200 - 1) / 20_000 / math.sqrt(2))
    expected = draw_population(published.parameters).payments_per_day.sum() * 183 * inside_the_day
    assert published.transactions.num_rows == pytest.approx(expected, rel=0.003)
    assert published.transactions.num_rows == pytest.approx(1_754_155, rel=0.01)


def test_the_published_size_has_the_published_shares_of_fraud(published: World) -> None:
    scenarios = np.bincount(published.labels["tx_fraud_scenario"].to_numpy(), minlength=4)
    shares = 100 * scenarios / scenarios.sum()
    assert 100 - shares[0] == pytest.approx(0.84, abs=0.05)
    assert shares[1:] == pytest.approx([0.0555, 0.5175, 0.2640], rel=0.15)


def test_the_published_size_has_the_published_amounts_and_hours(published: World) -> None:
    amounts = published.transactions["amount_cents"].to_numpy() / 100
    quantiles = np.quantile(amounts, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    assert quantiles == pytest.approx([6.00, 21.01, 44.64, 76.95, 130.94, 171.59], rel=0.05)
    second = microseconds(published.transactions, "tx_datetime") // 1_000_000 % 86_400
    assert (second.min() >= 1, second.max() <= 86_399) == (True, True)
    assert second.mean() == pytest.approx(43_200, abs=100)
    z = 43_200 / 20_000  # standard deviations from noon to midnight, where the normal is cut off
    density, mass = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erf(z / math.sqrt(2))
    assert second.std() == pytest.approx(20_000 * math.sqrt(1 - 2 * z * density / mass), rel=0.002)


def test_about_one_label_in_a_hundred_is_late_and_none_is_early(published: World) -> None:
    delay = microseconds(published.labels, "labelled_at") - microseconds(published.labels, "tx_datetime")
    week, two_days = 7 * 86_400_000_000, 2 * 86_400_000_000
    assert delay.min() == week
    assert week + 0.99 * two_days < delay.max() <= week + two_days
    assert (delay > week).mean() == pytest.approx(0.01, abs=0.0005)


def test_payments_arrive_within_seconds_and_at_most_a_minute(published: World) -> None:
    delay = microseconds(published.transactions, "ingested_at") - microseconds(published.transactions, "tx_datetime")
    assert delay.min() > 0
    assert np.median(delay) == pytest.approx(2_000_000, rel=0.01)
    assert delay.max() <= 60_000_000


def test_the_places_of_customers_and_terminals_fill_the_map(published: World) -> None:
    for name, first, rows in (("customers", "home", 5_000), ("terminals", "terminal", 10_000)):
        table = getattr(published, name).slice(0, rows)
        assert table[table.column_names[0]].to_pylist() == list(range(rows))
        for axis in (f"{first}_x", f"{first}_y"):
            assert pc.min_max(table[axis]).as_py() == pytest.approx({"min": 0, "max": 100}, abs=0.1)
            assert pc.mean(table[axis]).as_py() == pytest.approx(50, abs=2)


# --- the rules of the specification, row by row ---


def test_the_four_tables_have_exactly_the_declared_schemas(small: World) -> None:
    assert {name: getattr(small, name).schema.equals(SCHEMAS[name]) for name in TABLES} == dict.fromkeys(TABLES, True)
    stamp = pa.timestamp("us", tz="UTC")
    declared = {name: {field.name: field.type for field in schema} for name, schema in SCHEMAS.items()}
    common = {"transaction_id": pa.int64(), "tx_datetime": stamp, "customer_id": pa.int64(), "terminal_id": pa.int64()}
    assert declared == {
        "customers": {
            "customer_id": pa.int64(),
            "home_x": pa.float64(),
            "home_y": pa.float64(),
            "segment": pa.string(),
            "card_issued_day": pa.int64(),
            "changed_at": stamp,
            "known_at": stamp,
        },
        "terminals": {
            "terminal_id": pa.int64(),
            "terminal_x": pa.float64(),
            "terminal_y": pa.float64(),
            "category": pa.string(),
            "installed_day": pa.int64(),
            "changed_at": stamp,
            "known_at": stamp,
        },
        "transactions": common | {"amount_cents": pa.int64(), "ingested_at": stamp},
        "labels": common | {"tx_fraud": pa.int64(), "tx_fraud_scenario": pa.int64(), "labelled_at": stamp},
    }
    assert not any(field.nullable for schema in SCHEMAS.values() for field in schema)


def test_transaction_ids_are_ranks_by_time_from_zero(small: World) -> None:
    for table in (small.transactions, small.labels):
        rows = by_id(table)
        assert [row["transaction_id"] for row in rows] == list(range(table.num_rows))
        times = [row["tx_datetime"] for row in rows]
        assert times == sorted(times)
        assert times[0] > START
        assert times[-1] < START + 45 * DAY


def test_every_transaction_has_one_label_that_agrees_on_time_customer_and_terminal(small: World) -> None:
    common = ["transaction_id", "tx_datetime", "customer_id", "terminal_id"]
    assert (
        small.labels.sort_by("transaction_id")
        .select(common)
        .equals(small.transactions.sort_by("transaction_id").select(common))
    )
    assert small.labels["tx_fraud"].to_pylist() == [int(s > 0) for s in small.labels["tx_fraud_scenario"].to_pylist()]


def test_customers_pay_only_within_their_radius_and_at_every_terminal_there(small: World) -> None:
    customers, terminals = small.customers.slice(0, 60).to_pylist(), small.terminals.slice(0, 300).to_pylist()
    within = {
        (c["customer_id"], t["terminal_id"])
        for c in customers
        for t in terminals
        if math.hypot(c["home_x"] - t["terminal_x"], c["home_y"] - t["terminal_y"]) < SMALL.radius
    }
    reach = draw_population(SMALL).reach
    found = zip(np.repeat(np.arange(60), reach.size).tolist(), reach.terminal_id.tolist(), strict=True)
    assert list(found) == sorted(within)
    paid = Counter((row["customer_id"], row["terminal_id"]) for row in small.transactions.to_pylist())
    assert set(paid) <= within
    busiest = Counter(row["customer_id"] for row in small.transactions.to_pylist()).most_common(1)[0][0]
    assert {pair for pair in paid if pair[0] == busiest} == {pair for pair in within if pair[0] == busiest}


def test_a_customer_without_a_terminal_in_reach_never_pays() -> None:
    lonely = simulate(replace(SMALL, radius=1e-9))
    assert (lonely.transactions.num_rows, lonely.labels.num_rows) == (0, 0)
    assert set(lonely.customers["customer_id"].to_pylist()) == set(range(60))
    few = replace(SMALL, radius=3.0)
    reachless = set(np.flatnonzero(draw_population(few).reach.size == 0).tolist())
    paying = set(simulate(few).transactions["customer_id"].to_pylist())
    assert (len(reachless) > 5, len(paying) > 5, reachless & paying) == (True, True, set())


def test_amounts_and_scenarios_follow_the_three_rules_row_by_row(small: World) -> None:
    before = draw_payments(SMALL, draw_population(SMALL)).amount_cents.tolist()
    after = [row["amount_cents"] for row in by_id(small.transactions)]
    labels = by_id(small.labels)
    day_of = [(row["tx_datetime"] - START).days for row in labels]

    at_bad_terminal = set()
    pools = []
    for day in range(SMALL.days - 1):
        terminals, customers = set(compromised_terminals(SMALL, day)), set(compromised_customers(SMALL, day))
        at_bad_terminal |= {
            i for i, row in enumerate(labels) if row["terminal_id"] in terminals and day <= day_of[i] < day + 28
        }
        pools.append(
            {i for i, row in enumerate(labels) if row["customer_id"] in customers and day <= day_of[i] < day + 14}
        )

    assert min(before) > 0  # so that the factor of every row can be read off
    factors = [a / b for a, b in zip(after, before, strict=True)]
    for i, (amount, factor, row) in enumerate(zip(before, factors, labels, strict=True)):
        if factor > 1:
            expected = 3
        elif i in at_bad_terminal:
            expected = 2
        else:
            expected = 1 if amount > 22_000 else 0
        assert row["tx_fraud_scenario"] == expected
        assert factor <= 5 ** sum(i in pool for pool in pools)
    times_misused = [round(math.log(factor, 5)) for factor in factors]
    assert factors == [5**times for times in times_misused]
    assert sum(times_misused) == sum(len(pool) // 3 for pool in pools)
    assert max(times_misused) > 1  # a payment taken on two days is multiplied twice
    assert {row["tx_fraud_scenario"] for row in labels} == {0, 1, 2, 3}


def test_exactly_220_is_genuine_and_one_cent_more_is_a_fraud() -> None:
    calm = replace(SMALL, days=1)
    payments = replace(draw_payments(calm, draw_population(calm)), amount_cents=np.array([21_999, 22_000, 22_001]))
    amounts, scenario = apply_fraud(calm, payments)
    assert (amounts.tolist(), scenario.tolist()) == ([21_999, 22_000, 22_001], [0, 0, 1])


def test_nobody_is_compromised_on_the_last_day() -> None:
    everything = {"compromised_terminals_per_day": 300, "compromised_customers_per_day": 60}
    only = simulate(replace(SMALL, days=1, **everything))
    assert set(only.labels["tx_fraud_scenario"].to_pylist()) <= {0, 1}
    two = simulate(replace(SMALL, days=2, **everything))
    assert set(two.labels["tx_fraud_scenario"].to_pylist()) == {2, 3}


def test_a_fractional_rate_is_the_whole_number_and_sometimes_one_more() -> None:
    long = replace(SMALL, days=1_000)
    drawn = [compromised_terminals(long, day) for day in range(1_000)]
    sizes = Counter(len(terminals) for terminals in drawn)
    assert set(sizes) == {1, 2}
    assert sizes[2] == pytest.approx(500, abs=60)
    assert all(len(set(terminals.tolist())) == len(terminals) for terminals in drawn)


def test_the_default_rates_of_compromise_grow_with_the_population() -> None:
    rates = [
        (p.terminal_compromises_per_day, p.customer_compromises_per_day)
        for p in (SimulatorParameters(), SimulatorParameters(terminals=20_000, customers=2_500), SMALL)
    ]
    assert rates == [(2, 3), (4, 1.5), (1.5, 2.5)]


# --- what became known when ---


def test_hourly_slices_put_together_are_the_whole_table_in_its_order(small: World) -> None:
    end = START + 55 * DAY
    cuts = [None, *(START + n * HOUR for n in range(55 * 24)), end]
    for name in TABLES:
        slices = [small.known_between(name, since, until) for since, until in itertools.pairwise(cuts)]
        assert pa.concat_tables(slices).equals(getattr(small, name))


@given(data=st.data())
def test_a_slice_is_what_a_filter_on_the_known_time_finds(small: World, data: st.DataObject) -> None:
    name, column = data.draw(st.sampled_from(list(KNOWN_AT.items())))
    known = getattr(small, name)[column]
    moments = st.one_of(
        st.datetimes(datetime(2018, 3, 29), datetime(2018, 5, 30), timezones=st.just(UTC)),  # noqa: DTZ001
        st.integers(0, len(known) - 1).map(lambda i: known[i].as_py()),  # exactly on a row
    )
    start, end = sorted([data.draw(moments), data.draw(moments)])
    expected = getattr(small, name).filter((pc.field(column) >= start) & (pc.field(column) < end))
    assert small.known_between(name, start, end).equals(expected)


def test_a_slice_shares_its_memory_with_the_world(small: World) -> None:
    part = small.known_between("transactions", START + DAY, START + 2 * DAY)
    whole = small.transactions["amount_cents"].chunk(0).buffers()[1]
    assert part["amount_cents"].chunk(0).buffers()[1].address == whole.address


def test_labels_are_known_no_earlier_than_the_label_delay() -> None:
    world = simulate(replace(SMALL, label_delay=3 * DAY, late_label_share=0.0))
    assert world.known_between("labels", None, START + 3 * DAY).num_rows == 0
    first_day = world.known_between("labels", START + 3 * DAY, START + 4 * DAY)
    assert 0 < first_day.num_rows == sum(row["tx_datetime"] < START + DAY for row in world.labels.to_pylist())


def test_every_customer_and_terminal_is_known_before_the_world_starts(small: World) -> None:
    assert small.known_between("customers", None, START)["customer_id"].to_pylist() == list(range(60))
    assert small.known_between("terminals", None, START)["terminal_id"].to_pylist() == list(range(300))
    later = small.known_between("customers", START, START + 60 * DAY)
    assert 0 < later.num_rows == small.customers.num_rows - 60


# --- into the lake ---


class RecordingLake:
    """Keeps what was asked of it, and refuses rows for a table nobody ensured."""

    def __init__(self) -> None:
        self.partitions: dict[str, str | None] = {}
        self.commits: list[tuple[str, pa.Table]] = []

    def ensure_table(self, name: str, schema: pa.Schema, partition_by: str | None) -> None:
        assert schema == SCHEMAS[name]
        self.partitions[name] = partition_by

    def append(self, name: str, rows: pa.Table, properties: dict[str, str] = {}) -> None:  # noqa: B006
        assert name in self.partitions
        assert properties == {}
        self.commits.append((name, rows))


def test_appending_slices_brings_the_whole_world_into_the_lake_once(small: World) -> None:
    lake = RecordingLake()
    first = append_slice(lake, small, None, START + 10 * DAY)
    second = append_slice(lake, small, START + 10 * DAY, START + 60 * DAY)
    assert (tuple(first), tuple(second)) == (TABLES, TABLES)
    assert (first["customers"] >= 60, first["terminals"] >= 300, second["customers"] > 0) == (True, True, True)
    for name in TABLES:
        stored = pa.concat_tables([rows for table, rows in lake.commits if table == name])
        assert stored.equals(getattr(small, name))
        assert stored.num_rows == first[name] + second[name]
    assert lake.partitions == {
        "customers": None,
        "terminals": None,
        "transactions": "tx_datetime",
        "labels": "tx_datetime",
    }


def test_a_slice_without_new_rows_ensures_the_tables_and_commits_nothing(small: World) -> None:
    lake = RecordingLake()
    assert append_slice(lake, small, START - HOUR, START) == dict.fromkeys(TABLES, 0)
    assert tuple(lake.partitions) == TABLES
    assert lake.commits == []


# --- mistakes are refused early ---


def test_naive_times_are_refused_by_name(small: World) -> None:
    naive = datetime(2018, 4, 2)  # noqa: DTZ001
    with pytest.raises(ValueError, match=r"start=.* has no time zone"):
        replace(SMALL, start=naive)
    with pytest.raises(ValueError, match=r"start=.* has no time zone"):
        small.known_between("labels", naive, START)
    with pytest.raises(ValueError, match=r"end=.* has no time zone"):
        small.known_between("customers", None, naive)


def test_an_unknown_table_is_refused_with_the_known_ones(small: World) -> None:
    with pytest.raises(ValueError, match=r"'cards'.*customers, labels, terminals, transactions"):
        small.known_between("cards", None, START)


def test_an_end_before_its_start_is_refused(small: World) -> None:
    with pytest.raises(ValueError, match="is before start"):
        small.known_between("labels", START + DAY, START)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("customers", 0),
        ("terminals", 0),
        ("days", 0),
        ("radius", 0.0),
        ("radius", math.nan),
        ("seed", -1),
        ("compromised_terminals_per_day", 301),
        ("compromised_customers_per_day", -0.5),
        ("label_delay", -DAY),
        ("late_label_share", 1.01),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}=.* must be"):
        replace(SMALL, **{name: value})
