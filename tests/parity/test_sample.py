"""Which rows of the served log are evidence, and which are missing from it."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.clock import parse_time, to_micros
from lockstep.contract import Column, Feature, FeatureContract, TrainingCut, View
from lockstep.errors import SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.snapshots import NO_SNAPSHOT
from lockstep.parity.sample import (
    PER_STRATUM,
    Logged,
    Window,
    WindowFound,
    find_served,
    rank,
    read_rows,
    read_served,
    stratified,
    uniform,
)
from lockstep.serving.log_rows import PARTITION_BY, SCHEMA, SERVED_LOG

T = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(),
    request_inputs=(),
    features=(Feature(name="nb", view="spend", dtype="int64"), Feature(name="hour", view="night", dtype="float64")),
    views=(
        View(
            name="spend",
            table="spend",
            join_keys=(Column(name="card", dtype="int64"),),
            columns=(Column(name="nb", dtype="int64"), Column(name="ratio", dtype="float64")),
            ttl_us=0,
            every_us=1,
            compute_lag_us=0,
            visible_lag_us=0,
            freshness_us=1,
            freshness_hard=False,
            owner="o",
            definition_hash="d",
        ),
    ),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=T),
)
EPOCHS = '{"incarnation":"i","views":{}}'


@pytest.fixture
def lake(settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    return opened


def spend(status: str, values: str = "{}", event: datetime | None = None) -> dict[str, Any]:
    return {"view": "spend", "status": status, "event_timestamp": event, "created_timestamp": event, "values": values}


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
        "vector": [3.0, 14.0],
        "contract": CONTRACT.hash,
        "model": "m",
        "score": 0.5,
        "rejected": None,
        "flags": [],
        "shadow": True,
        "why": "uniform",
        "process": "p",
        "counter": counter,
    }
    return plain | changes


def window(until: datetime = T + HOUR, **changes: Any) -> Window:
    return Window(**{"model": "m", "contract": CONTRACT, "shadow": True, "since": T, "until": until} | changes)


def find(settings, lake: Lake, rows: list[dict[str, Any]], until: datetime = T + HOUR, **changes: Any) -> WindowFound:
    lake.append(SERVED_LOG, pa.Table.from_pylist(rows, SCHEMA))
    return find_served(settings, lake, window(until), **changes)


def counters(rows: Iterable[Logged]) -> list[int]:
    return sorted(row.counter for row in rows)


def test_the_window_takes_its_first_moment_and_not_its_last(settings, lake) -> None:
    times = [T - timedelta(microseconds=1), T, T + HOUR - timedelta(microseconds=1), T + HOUR]
    found = find(settings, lake, [row(n, request_time=time) for n, time in enumerate(times, 1)])
    assert counters(found.rows) == [2, 3]


@pytest.mark.parametrize("change", [{"model": "other"}, {"contract": "c" * 64}, {"shadow": False}])
def test_rows_of_another_model_contract_or_traffic_are_not_this_models_evidence(settings, lake, change) -> None:
    found = find(settings, lake, [row(1), row(2, **change)])
    assert counters(found.rows) == [1]


def test_rows_that_name_a_contract_that_is_none_of_the_models_are_counted_as_foreign(settings, lake) -> None:
    others = [row(2, contract="c" * 64), row(3, contract="f" * 64), row(4, contract="f" * 64)]
    others += [
        row(5, contract="x", model="other"),
        row(6, contract="x", shadow=False),
        row(7, contract="x", request_time=T - HOUR),
    ]
    found = find(settings, lake, [row(1), *others], known=["c" * 64])
    assert (counters(found.rows), found.foreign) == ([1], 2)


def test_a_row_is_read_whole_and_numbers_come_back_as_they_were(settings, lake) -> None:
    values = '{"nb":3,"ratio":"nan"}'
    told = row(
        1,
        inputs='{"amount":7}',
        entity_keys='{"card":9}',
        views=[spend("present", values, T)],
        flags=["spend:stale"],
        why="flagged",
        vector=[None, 14.0],
        score=None,
        rejected="spend:nb",
    )
    find(settings, lake, [told])
    (served,) = read_served(settings, lake, window())
    assert (served.inputs, served.keys, served.vector) == ({"amount": 7}, {"card": 9}, (None, 14.0))
    assert (served.score, served.rejected, served.uniform, served.flags) == (None, "spend:nb", False, ("spend:stale",))
    assert (served.request_us, served.read_us) == (to_micros(T), to_micros(T))
    read = served.views["spend"]
    assert (read.status, read.event_us, read.created_us, read.values["nb"]) == (
        "present",
        to_micros(T),
        to_micros(T),
        3,
    )
    assert read.values["ratio"] != read.values["ratio"], "NaN"


def test_a_log_is_read_as_it_was_in_a_snapshot(settings, lake) -> None:
    first = find(settings, lake, [row(1), row(2)])
    second = find(settings, lake, [row(3)])
    assert first.snapshot_id != second.snapshot_id
    again = window(snapshot_id=first.snapshot_id)
    assert find_served(settings, lake, again) == first
    assert counters(second.rows) == [1, 2, 3]
    assert [r.counter for r in read_rows(settings, lake, again, first.rows)] == [r.counter for r in first.rows]


def test_rows_are_read_in_the_order_in_which_they_were_chosen(settings, lake) -> None:
    found = find(settings, lake, [row(n) for n in range(1, 31)])
    chosen = uniform(found.rows, 12, seed=3)
    assert [r.name for r in read_rows(settings, lake, window(), chosen)] == [r.name for r in chosen]
    assert read_rows(settings, lake, window(), ()) == ()


def test_a_request_id_used_twice_names_two_rows(settings, lake) -> None:
    find(settings, lake, [row(1), row(2), row(1, process="q")])
    assert [r.name for r in read_served(settings, lake, window())] == ["p/1", "p/2", "q/1"]


def test_a_row_that_is_in_the_log_twice_is_one_row(settings, lake) -> None:
    found = find(settings, lake, [row(1), row(2), row(1)])
    assert counters(found.rows) == [1, 2]
    assert len(uniform(found.rows, 10, seed=1)) == 2


def logged(number: int, *strata: str, process: str = "p", uniform: bool = True) -> Logged:
    return Logged(process, number, uniform, strata)


LOG = [logged(n, process=f"p{n % 3}", uniform=n % 10 != 7) for n in range(1, 501)]


def test_the_same_seed_takes_the_same_rows_however_they_lie_and_another_one_others() -> None:
    first = uniform(LOG, 50, seed=1)
    assert uniform(LOG[::-1], 50, seed=1) == first
    assert uniform(LOG, 80, seed=1)[:50] == first, "more rows are the same ones and others"
    other = uniform(LOG, 50, seed=2)
    assert len(set(first) & set(other)) < 15
    assert [rank(1, r.name) for r in first] == sorted(rank(1, r.name) for r in first)


def test_a_uniform_sample_has_only_rows_that_were_logged_by_chance_and_all_of_them_if_there_are_few() -> None:
    found = uniform(LOG, 10_000, seed=1)
    assert len(found) == 450
    assert all(r.uniform for r in found)


def test_over_many_seeds_each_row_is_taken_equally_often() -> None:
    taken = Counter(r.name for seed in range(400) for r in uniform(LOG[:100], 30, seed))
    assert len(taken) == 90
    # Binomial(400, 1/3): 133 on average, its standard deviation is 9.4.
    assert all(133 - 50 < times < 133 + 50 for times in taken.values())


def test_every_hour_process_flag_status_and_null_that_occurs_is_a_stratum(settings, lake) -> None:
    rows = [row(n, request_time=T + HOUR * (n % 2), views=[spend("present")]) for n in range(1, 21)]
    rows.append(row(21, process="q", flags=["spend:missing"], views=[spend("missing")], vector=[None, 1.0]))
    strata = stratified(find(settings, lake, rows, until=T + 2 * HOUR).rows, seed=1)
    assert {name: len(found) for name, found in strata.items()} == {
        "flag spend:missing": 1,
        "hour 2018-06-01T12Z": PER_STRATUM,
        "hour 2018-06-01T13Z": PER_STRATUM,
        "null spend:nb": 1,
        "process p": PER_STRATUM,
        "process q": 1,
        "view spend missing": 1,
        "view spend present": PER_STRATUM,
    }


@pytest.mark.parametrize("seed", range(5))
def test_what_one_row_in_ten_thousand_has_is_in_the_strata_whatever_the_seed(seed: int) -> None:
    rare = {17: "null spend:nb", 1_234: "flag spend:stale", 7_777: "process q"}
    log = [logged(n, "process p", *([rare[n]] if n in rare else [])) for n in range(10_000)]
    strata = stratified(log, seed)
    assert {name: [r.counter for r in found] for name, found in strata.items() if name != "process p"} == {
        name: [n] for n, name in rare.items()
    }
    assert len(strata["process p"]) == PER_STRATUM


def test_a_stratum_takes_rows_of_its_seed_and_others_of_another_seed() -> None:
    log = [logged(n, "process p") for n in range(1_000)]
    one = stratified(log, 1)
    assert stratified(log[::-1], 1) == one
    assert stratified(log, 2) != one


@pytest.mark.parametrize(
    ("numbers", "lost"), [([1, 2, 3, 4], 0.0), ([1, 2, 4], 0.25), ([3, 4], 0.5), ([1, 1, 2], 0.0)]
)
def test_gaps_are_losses_also_before_the_first_row_that_arrived(settings, lake, numbers, lost: float) -> None:
    assert find(settings, lake, [row(n) for n in numbers]).lost == pytest.approx(lost)


def test_rows_before_the_window_and_of_other_traffic_fill_the_numbers_of_a_process(settings, lake) -> None:
    rows = [row(1, request_time=T - HOUR), row(2, shadow=False), row(3, model="other"), row(4)]
    assert find(settings, lake, rows).lost == 0.0


def test_a_busy_champion_does_not_dilute_what_the_dark_service_lost(settings, lake) -> None:
    champion = [row(n, process="busy", model="champion", shadow=False) for n in range(1, 1001)]
    assert find(settings, lake, [*champion, row(1), row(3), row(4)]).lost == pytest.approx(0.25)


def test_a_long_past_does_not_dilute_a_loss_and_an_old_loss_is_not_held_against_the_window(settings, lake) -> None:
    past = [row(n, request_time=T - 30 * HOUR) for n in range(11, 1011)]
    found = find(settings, lake, [*past, row(1012), row(1013), row(1015, request_time=T + HOUR)])
    assert found.lost == pytest.approx(0.5), "1011 and 1014, beside 1012 and 1013"


def test_a_process_that_served_nothing_in_the_window_lost_nothing_of_it(settings, lake) -> None:
    assert find(settings, lake, [row(n, process="q", request_time=T - HOUR) for n in (1, 3)] + [row(1)]).lost == 0.0


def test_rows_that_share_a_name_are_counted_and_read_in_one_order(settings, lake) -> None:
    others = [row(2, score=0.25), row(2, score=0.75), row(3, model="other"), row(3), row(1)]
    found = find(settings, lake, [row(1), row(2), *others])
    assert (counters(found.rows), found.twice) == ([1, 2, 3], 3)
    read = read_served(settings, lake, window())
    assert [(r.counter, r.model, r.score) for r in read] == [(1, "m", 0.5), (2, "m", 0.75), (3, "m", 0.5)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vector": [3.0, 14.0, 1.0]}, "its vector has 3 values, its contract 2 features"),
        ({"vector": []}, "its vector has 0 values, its contract 2 features"),
        ({"vector": None}, "TypeError"),
        ({"flags": None}, "TypeError"),
        ({"epoch_before": None}, "this is no reading of the epoch hash"),
        ({"inputs": "{"}, "JSONDecodeError"),
        ({"process": None}, "it has no process or no counter"),
        ({"counter": None}, "it has no process or no counter"),
    ],
)
def test_a_row_that_no_transformer_logs_is_named(settings, lake, change: dict[str, Any], why: str) -> None:
    found = find(settings, lake, [row(1), row(**{"counter": 7} | change)])
    named = f"row {change.get('process', 'p')}/{change.get('counter', 7)} of served_log cannot be read: .*{why}"
    with pytest.raises(SchemaDrift, match=named):
        read_rows(settings, lake, window(), found.rows)


def test_a_row_that_names_no_contract_is_foreign(settings, lake) -> None:
    found = find(settings, lake, [row(1), row(2, contract=None)])
    assert (counters(found.rows), found.foreign) == ([1], 1)


def test_without_a_log_or_with_an_empty_one_there_is_no_evidence(settings, lake) -> None:
    nothing = WindowFound((), 0, 0.0, NO_SNAPSHOT)
    assert find_served(settings, Lake.open(settings, "else"), window()) == nothing
    assert find_served(settings, lake, window()) == nothing
    assert read_served(settings, lake, window()) == ()
