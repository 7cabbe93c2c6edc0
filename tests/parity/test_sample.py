"""Which rows of the served log are evidence, and which are missing from it."""

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.clock import parse_time
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.lake import Lake
from lockstep.parity.sample import PER_STRATUM, Served, read_served, stratified, uniform
from lockstep.serving.log_rows import PARTITION_BY, SCHEMA, SERVED_LOG

T = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(),
    request_inputs=(),
    features=(),
    views=(),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=T),
)
EPOCHS = '{"incarnation":"i","views":{}}'


@pytest.fixture
def lake(settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    return opened


def row(counter: int, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "request_id": "r",
        "row": 0,
        "request_time": T,
        "read_time": T,
        "inputs": "{}",
        "entity_keys": "{}",
        "epoch_before": EPOCHS,
        "epoch_after": EPOCHS,
        "views": [],
        "vector": [],
        "contract": CONTRACT.hash,
        "model": "m",
        "score": 0.5,
        "flags": [],
        "shadow": True,
        "why": "uniform",
        "process": "p",
        "counter": counter,
    }
    return plain | changes


def read(settings, lake: Lake, rows: list[dict[str, Any]], until: datetime = T + HOUR) -> Served:
    lake.append(SERVED_LOG, pa.Table.from_pylist(rows, SCHEMA))
    return read_served(settings, lake, model="m", contract=CONTRACT, shadow=True, since=T, until=until)


def test_the_window_takes_its_first_moment_and_not_its_last(settings, lake) -> None:
    times = [T - timedelta(microseconds=1), T, T + HOUR - timedelta(microseconds=1), T + HOUR]
    found = read(settings, lake, [row(n, request_time=time) for n, time in enumerate(times, 1)])
    assert {r.counter for r in found.rows} == {2, 3}


@pytest.mark.parametrize("change", [{"model": "other"}, {"contract": "c" * 64}, {"shadow": False}])
def test_rows_of_another_model_contract_or_traffic_are_not_this_models_evidence(settings, lake, change) -> None:
    found = read(settings, lake, [row(1), row(2, **change)])
    assert [r.counter for r in found.rows] == [1]


def test_a_request_id_used_twice_names_two_rows(settings, lake) -> None:
    found = read(settings, lake, [row(1), row(2)])
    assert len({r.name for r in found.rows}) == 2


def test_the_order_is_a_hash_of_our_own_numbers_and_uniform_takes_its_beginning(settings, lake) -> None:
    found = read(settings, lake, [row(n, why="flagged" if n == 7 else "uniform") for n in range(1, 101)])
    ranks = [r.rank for r in found.rows]
    assert ranks == sorted(ranks)
    assert [r.counter for r in found.rows] != list(range(1, 101))
    assert uniform(found.rows, 30) == tuple(r for r in found.rows if r.counter != 7)[:30]


def test_every_hour_and_flag_that_occurs_is_a_stratum(settings, lake) -> None:
    rows = [row(n, request_time=T + HOUR * (n % 2)) for n in range(1, 21)] + [row(21, flags=["spend:missing"])]
    strata = stratified(read(settings, lake, rows, until=T + 2 * HOUR).rows)
    assert {name: len(found) for name, found in strata.items()} == {
        "flag spend:missing": 1,
        "hour 2018-06-01T12Z": PER_STRATUM,
        "hour 2018-06-01T13Z": PER_STRATUM,
    }


@pytest.mark.parametrize(
    ("counters", "lost"), [([1, 2, 3, 4], 0.0), ([1, 2, 4], 0.25), ([3, 4], 0.5), ([1, 1, 2], 0.0)]
)
def test_gaps_are_losses_also_before_the_first_row_that_arrived(settings, lake, counters, lost: float) -> None:
    assert read(settings, lake, [row(n) for n in counters]).lost == pytest.approx(lost)


def test_a_busy_champion_does_not_dilute_what_the_dark_service_lost(settings, lake) -> None:
    champion = [row(n, process="busy", model="champion", shadow=False) for n in range(1, 1001)]
    assert read(settings, lake, [*champion, row(1), row(3), row(4)]).lost == pytest.approx(0.25)


def test_without_a_log_there_is_no_evidence(settings) -> None:
    empty = Lake.open(settings, "else")
    found = read_served(settings, empty, model="m", contract=CONTRACT, shadow=True, since=T, until=T + HOUR)
    assert found == Served((), 0.0)
