"""A training set, through views, lake and Feast, holds what can be counted by hand from the raw rows that were known."""

import math
import statistics
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.definitions import use_case
from feature_repo.simulator import SimulatorParameters, World, append_slice, simulate
from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.offline.history import training_features
from lockstep.offline.registry import apply_definitions
from lockstep.settings import Settings
from lockstep.training.training_set import build_training_set, read_training_set
from lockstep.views import FeatureService, UseCase, days
from lockstep.views.compute import bootstrap

DAY, HOUR, MINUTE = 86_400_000_000, 3_600_000_000, 60_000_000
WINDOWS = (1, 7, 30)
NAN = math.nan
WORLD = SimulatorParameters(
    customers=60,
    terminals=80,
    days=46,
    radius=30.0,
    seed=1,  # customers and terminals change, and one change is known after midnight only
    compromised_terminals_per_day=1.0,
    compromised_customers_per_day=2.0,
    late_label_share=0.3,
)
NOW = WORLD.start + timedelta(days=46)
Row = dict[str, int]


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(WORLD)


@pytest.fixture(scope="module")
def case() -> UseCase:
    """The use case with a service of every feature that is a number, and one of those that are not."""
    profile, static, activity = (
        use_case.view(n) for n in ("customer_profile", "terminal_static", "terminal_activity")
    )
    distance = use_case.on_demand_view("terminal_distance")
    every_number = FeatureService(
        name="every_number",
        features=(
            *use_case.service("fraud_v2").features,
            (distance, "distance_to_terminal"),
            *((activity, feature) for feature in activity.features),
        ),
        owner="fraud-ml",
    )
    on_file = FeatureService(
        name="on_file",
        features=((profile, "segment"), (profile, "card_issued_day"), (static, "category"), (static, "installed_day")),
        owner="fraud-ml",
    )
    model = replace(use_case.model, train=days(6), test=days(4))
    return replace(use_case, services=(*use_case.services, every_number, on_file), model=model)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, world: World, case: UseCase) -> Settings:
    """A home with the world in its lake and every view computed up to its end."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, clock_file=home / "clock").resolved()
    settings.clock.advance_to(NOW)
    lake, ledger = Lake.open(settings, case.project), Ledger.open(settings, case.project)
    append_slice(lake, world, None, NOW)
    apply_definitions(settings, case)
    for view in case.views:
        bootstrap(settings, lake, ledger, view, WORLD.start, NOW)
    return settings


def training_rows(settings: Settings, case: UseCase, service: str) -> tuple[list[dict], FeatureContract]:
    made = build_training_set(settings, case, known_at=NOW, service=service)
    rows, contract = read_training_set(Lake.open(settings, case.project), made.table)
    assert rows.num_rows > 300
    return plain(rows), contract


def plain(table: pa.Table) -> list[dict]:
    """Rows with times in microseconds, and NaN for null numbers."""
    types = [pa.int64() if pa.types.is_timestamp(t) else t for t in table.schema.types]
    rows = table.cast(pa.schema(list(zip(table.column_names, types, strict=True)))).to_pylist()
    return [{name: NAN if value is None else value for name, value in row.items()} for row in rows]


def readable_tick(time: int, every: int) -> int:
    """The newest tick whose rows could be read at `time`: both lags are five minutes."""
    return (time - 10 * MINUTE) // every * every


class Raw:
    """The raw rows, and what of them was known at a tick."""

    def __init__(self, world: World) -> None:
        self.paid, self.labels = plain(world.transactions), plain(world.labels)
        self.places = {
            "home": {row["customer_id"]: (row["home_x"], row["home_y"]) for row in plain(world.customers)},
            "terminal": {row["terminal_id"]: (row["terminal_x"], row["terminal_y"]) for row in plain(world.terminals)},
        }

    def payments(self, key: str, asked: Row, tick: int) -> list[Row]:
        """The payments of a card or terminal before the tick, known in time for it."""
        mine = (row for row in self.paid if row[key] == asked[key] and row["tx_datetime"] < tick)
        return [row for row in mine if row["ingested_at"] <= tick + 5 * MINUTE]

    def labelled(self, asked: Row, tick: int) -> list[Row]:
        """The labelled payments of a terminal until a week before the tick, known in time for it."""
        mine = (row for row in self.labels if row["terminal_id"] == asked["terminal_id"])
        return [r for r in mine if r["tx_datetime"] < tick - 7 * DAY and r["labelled_at"] <= tick + 5 * MINUTE]

    def features(self, asked: Row) -> dict[str, float]:
        """Every numeric feature of one payment, in plain words."""
        time, cents = asked["event_timestamp"], asked["amount_cents"]
        tick = readable_tick(time, HOUR)
        card, busy = self.payments("customer_id", asked, tick), self.payments("terminal_id", asked, tick)
        risky = self.labelled(asked, tick)
        found = {
            "tx_amount": cents / 100,
            "tx_during_weekend": float((time // DAY + 3) % 7 >= 5),
            "tx_during_night": float(time % DAY < 7 * HOUR),
            "distance_to_terminal": math.dist(
                self.places["home"][asked["customer_id"]], self.places["terminal"][asked["terminal_id"]]
            ),
        }
        for window in WINDOWS:
            since = tick - window * DAY
            before = [row["amount_cents"] for row in card if row["tx_datetime"] >= since]
            found[f"customer_nb_tx_{window}d"] = len(before) + 1 if card else NAN
            found[f"customer_avg_amount_{window}d"] = (
                (sum(before) + cents) / (100 * (len(before) + 1)) if card else NAN
            )
            labels = [row["tx_fraud"] for row in risky if row["tx_datetime"] >= since - 7 * DAY]
            found[f"nb_tx_{window}d"] = len(labels) if risky else NAN
            found[f"risk_{window}d"] = sum(labels) / len(labels) if labels else (0.0 if risky else NAN)
            found[f"payments_{window}d"] = sum(row["tx_datetime"] >= since for row in busy) if busy else NAN
            if window > 1:
                found[f"amount_to_avg_{window}d"] = cents * len(before) / sum(before) if before else NAN
                deviation = statistics.pstdev(before) if before else 0.0
                found[f"amount_zscore_{window}d"] = (
                    float(cents - statistics.fmean(before)) / deviation if deviation else NAN
                )
        return found


def test_every_numeric_feature_is_what_the_raw_rows_say(settings: Settings, case: UseCase, world: World) -> None:
    rows, contract = training_rows(settings, case, "every_number")
    raw = Raw(world)

    expected = [raw.features(row) for row in rows]

    names = [feature.name for feature in contract.features]
    assert set(names) == set(expected[0])
    for name in names:
        wanted = [row[name] for row in expected]
        # The deviation and the distance are taken another way here; all else is equal to the last bit.
        rel = 1e-12 if name.startswith(("amount_zscore", "distance")) else 0.0
        assert [row[name] for row in rows] == pytest.approx(wanted, rel=rel, abs=rel, nan_ok=True), name
    late = sum(row["labelled_at"] - row["tx_datetime"] > 7 * DAY for row in raw.labels)
    assert late > 0.2 * len(raw.labels)
    assert max(row["risk_7d"] for row in rows) > 0


def test_the_models_service_gives_columns_of_the_same_rows(settings: Settings, case: UseCase) -> None:
    everything, _ = training_rows(settings, case, "every_number")
    rows, contract = training_rows(settings, case, "fraud_v2")

    for feature in contract.features:
        wanted = [row[feature.name] for row in everything]
        assert [row[feature.name] for row in rows] == pytest.approx(wanted, rel=0, abs=0, nan_ok=True), feature.name
    assert len(contract.features) == 19


def test_the_service_without_feature_views_trains_on_the_request_alone(settings: Settings, case: UseCase) -> None:
    rows, contract = training_rows(settings, case, "payment_only")

    assert (contract.views, contract.join_keys) == ((), ())
    assert [cut.table for cut in contract.cut.tables] == ["labels", "transactions"]
    for row in rows:
        time = row["event_timestamp"]
        assert row["tx_amount"] == row["amount_cents"] / 100
        assert row["tx_during_weekend"] == ((time // DAY + 3) % 7 >= 5)
        assert row["tx_during_night"] == (time % DAY < 7 * HOUR)


def test_what_is_on_file_answers_from_the_first_tick_after_it_became_known(
    settings: Settings, case: UseCase, world: World
) -> None:
    on_file = {
        "customer_id": (plain(world.customers), "segment", "card_issued_day"),
        "terminal_id": (plain(world.terminals), "category", "installed_day"),
    }
    # Just before the rows of midnight's tick can be read, just after, and at noon; the first tick ends the world's first day.
    first = to_micros(WORLD.start) + DAY
    past = (10 * MINUTE - 1, 10 * MINUTE, 12 * HOUR)
    moments = np.array([first + day * DAY + minutes for day in range(45) for minutes in past])
    customers, terminals = np.arange(80) % 60, np.arange(80)
    times = np.repeat(moments, 80)
    spine = pa.table(
        {
            "customer_id": np.tile(customers, len(moments)),
            "terminal_id": np.tile(terminals, len(moments)),
            "event_timestamp": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        }
    )

    rows = training_features(settings, case, "on_file", spine).rows.to_pylist()

    for key, (changes, *columns) in on_file.items():
        assert len(changes) > len({row[key] for row in changes}), "somebody changed"
        for asked, time in zip(rows, times.tolist(), strict=True):
            tick = readable_tick(time, DAY)
            known = [r for r in changes if r[key] == asked[key] and r["known_at"] <= tick + 5 * MINUTE]
            newest = max((r for r in known if r["changed_at"] < tick), key=lambda row: row["changed_at"])
            expected = [newest[column] if tick >= first else None for column in columns]
            assert [asked[column] for column in columns] == expected
