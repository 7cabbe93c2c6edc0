"""What a run refuses of its tables, and the rows of a source that it leaves out."""

from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from lockstep.clock import parse_time
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.lake.snapshots import QUARANTINED
from lockstep.materialize.ledger import Ledger
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, hours, latest_view, soft, total, windowed_view
from lockstep.views.compute import bootstrap, compute, correct
from lockstep.views.declare import StoredView

NOON = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", tz="UTC")
COLUMNS = {"at": TIME, "card": pa.int64(), "cents": pa.int64(), "seen": TIME}
CARD = Entity("card", "card", "int64", "o")
PAYMENTS = Source("payments", "at", "seen", "o")
SPEND = windowed_view(
    name="spend",
    entity=CARD,
    source=PAYMENTS,
    measures=[count("nb"), total("cents")],
    windows=[days(1)],
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="o",
)
NEWEST = latest_view(
    name="newest",
    entity=CARD,
    source=PAYMENTS,
    columns={"cents": "int64"},
    every=hours(1),
    ttl=days(3),
    freshness=soft(hours(3)),
    owner="o",
)
VIEWS = pytest.mark.parametrize("view", [SPEND, NEWEST], ids=lambda view: view.name)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake.open(settings, "test")


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def pay(lake: Lake, *rows: tuple[datetime | None, int | None, int, datetime | None], **columns: pa.DataType) -> None:
    schema = pa.schema(COLUMNS | columns)
    lake.ensure_table("payments", schema, "at")
    lake.append("payments", pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema))


def stored(settings: Settings, lake: Lake, view: StoredView) -> set[tuple[int, datetime, int]]:
    value = [*view.features][-1]
    with connect(settings) as connection:
        lake.register(connection, "stored", view.table, columns=view.schema.names)
        return {*connection.execute(f"SELECT card, event_timestamp, {value} FROM stored").fetchall()}


SOUND = (NOON - HOUR, 1, 500, NOON - HOUR)
UNSOUND = {
    "no key": (NOON - HOUR, None, 7, NOON - HOUR),
    "no event time": (None, 2, 7, NOON - HOUR),
    "no known time": (NOON - HOUR, 2, 7, None),
    "known before it happened": (NOON - HOUR, 2, 7, NOON - HOUR - timedelta(microseconds=1)),
    "known in the future": (NOON - HOUR, 2, 7, NOON + 40 * HOUR),
}


@VIEWS
@pytest.mark.parametrize("row", UNSOUND.values(), ids=list(UNSOUND))
def test_a_row_that_cannot_be_is_left_out_counted_and_told(settings, lake, ledger, caplog, view, row) -> None:
    pay(lake, SOUND, row)
    settings.clock.advance_to(NOON + HOUR)
    done = compute(settings, lake, ledger, view, NOON)
    assert (done.rows, done.quarantined) == (1, 1)
    assert stored(settings, lake, view) == {(1, NOON, 500)}
    assert lake.snapshots(view.table)[-1].properties[QUARANTINED] == "1"
    assert f"{view.name}: 1 rows of payments are quarantined" in caplog.text


def test_sound_rows_are_not_counted(settings, lake, ledger, caplog) -> None:
    pay(lake, SOUND, (NOON - HOUR, 2, 7, NOON - HOUR), (NOON + HOUR, 2, 7, NOON + HOUR))
    settings.clock.advance_to(NOON + HOUR)
    assert compute(settings, lake, ledger, SPEND, NOON).quarantined == 0
    assert not caplog.text


@VIEWS
def test_a_row_from_the_future_enters_once_its_time_has_come_and_a_correction_leaves_it_out_where_it_was(
    settings, lake, ledger, view
) -> None:
    pay(lake, SOUND, (NOON - HOUR, 2, 7, NOON + 90 * timedelta(minutes=1)))
    settings.clock.advance_to(NOON + HOUR)
    compute(settings, lake, ledger, view, NOON)
    settings.clock.advance_to(NOON + 2 * HOUR)
    later = compute(settings, lake, ledger, view, NOON + 2 * HOUR)
    assert later.quarantined == 0
    rows = stored(settings, lake, view)
    assert (2, NOON + HOUR, 7) in rows
    again = correct(settings, lake, ledger, view, NOON - HOUR, NOON + 2 * HOUR)
    assert (again.rows, again.quarantined) == (0, 1)
    assert stored(settings, lake, view) == rows


def test_bootstrap_leaves_out_the_same_rows(settings, lake, ledger) -> None:
    pay(lake, SOUND, *UNSOUND.values())
    settings.clock.advance_to(NOON + HOUR)
    assert bootstrap(settings, lake, ledger, SPEND, NOON - 3 * HOUR, NOON).quarantined == len(UNSOUND)
    assert {row[0] for row in stored(settings, lake, SPEND)} == {1}


@pytest.mark.parametrize(
    ("view", "columns", "problem"),
    [
        (SPEND, {"cents": pa.float64()}, "column cents is double in the table and int64 in the view"),
        (SPEND, {"card": pa.string()}, "column card is string in the table and int64 in the view"),
        (
            SPEND,
            {"seen": pa.timestamp("us")},
            r"column seen is timestamp\[us\] in the table and timestamp\[us, tz=UTC\]",
        ),
        (replace(SPEND, measures=[total("fee")]), {}, r"column fee \(int64\) is missing"),
        (
            replace(NEWEST, columns={"cents": "string"}),
            {},
            "column cents is int64 in the table and string in the view",
        ),
    ],
)
def test_a_source_that_drifted_is_refused_before_anything_is_claimed(
    settings, lake, ledger, view, columns, problem
) -> None:
    lake.ensure_table("payments", pa.schema(COLUMNS | columns))
    lake.append("payments", pa.schema(COLUMNS | columns).empty_table())
    settings.clock.advance_to(NOON + HOUR)
    for run in (compute, lambda *given: bootstrap(*given[:4], NOON - HOUR, given[4])):
        with pytest.raises(SchemaDrift, match=f"source payments is not what it declares: {problem}"):
            run(settings, lake, ledger, view, NOON)
    assert (ledger.computes(view.name), lake.snapshots(view.name)) == ([], [])


def test_a_narrower_integer_is_what_a_view_can_add_up(settings, lake, ledger) -> None:
    pay(lake, SOUND, cents=pa.int32())
    settings.clock.advance_to(NOON + HOUR)
    compute(settings, lake, ledger, SPEND, NOON)
    assert stored(settings, lake, SPEND) == {(1, NOON, 500)}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"cents_1d": pa.string()}, "column cents_1d is string in the table and int64 in the view"),
        ({"cents_1d": pa.int32()}, "column cents_1d is int32 in the table and int64 in the view"),
        ({"cents_1d": None}, r"column cents_1d \(int64\) is missing"),
        ({"fee_1d": pa.int64()}, r"column fee_1d \(int64\) is not the view's"),
    ],
)
def test_a_feature_table_that_drifted_is_refused(settings, lake, ledger, table, problem) -> None:
    pay(lake, SOUND)
    settings.clock.advance_to(NOON + HOUR)
    types = {f.name: f.type for f in SPEND.schema} | table
    lake.ensure_table("spend", pa.schema({name: dtype for name, dtype in types.items() if dtype is not None}))
    with pytest.raises(SchemaDrift, match=f"view spend: feature table spend is not what it declares: {problem}"):
        compute(settings, lake, ledger, SPEND, NOON)
    assert ledger.computes("spend") == []


@pytest.mark.parametrize("run", [bootstrap, correct])
def test_times_without_a_zone_are_refused(settings, lake, ledger, run) -> None:
    pay(lake, SOUND)
    settings.clock.advance_to(NOON + HOUR)
    with pytest.raises(BadInput, match="zone"):
        run(settings, lake, ledger, SPEND, NOON.replace(tzinfo=None) - HOUR, NOON)
    with pytest.raises(BadInput, match="zone"):
        compute(settings, lake, ledger, SPEND, NOON.replace(tzinfo=None))
