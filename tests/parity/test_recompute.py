"""A view's table against the raw source: what is computed wrong, or not at all, is found; what is right is not."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lockstep.clock import parse_time
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import ComputeRow, Mode
from lockstep.parity.recompute import Recomputed, keys_that_change, recompute, ticks_between
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, hours, latest_view, ratio, soft, total, windowed_view
from lockstep.views.compute import backfill, compute
from lockstep.views.declare import StoredView
from lockstep.views.execution import Execution

NOON = parse_time("2018-06-01T12:00:00Z")
BEGIN, LAST = NOON - days(3), NOON + hours(4)
TIME = pa.timestamp("us", tz="UTC")
PAYMENTS = pa.schema({"at": TIME, "card": pa.int64(), "cents": pa.int32(), "seen": TIME})
COMMON: dict[str, Any] = {
    "entity": Entity("card", "card", "int64", "o"),
    "source": Source("payments", "at", "seen", "o"),
    "every": hours(2),
    "ttl": days(2),
    "freshness": soft(hours(3)),
    "owner": "o",
}
SPEND = windowed_view(
    name="spend",
    measures=[count("nb"), total("cents")],
    ratios=[ratio("mean", "cents", "nb", empty=-1.0)],
    windows=[hours(6), days(1)],
    **COMMON,
)
FILE = latest_view(name="file", columns={"cents": "int64", "seen": "timestamp"}, **COMMON)


def pay(lake: Lake, since: datetime, until: datetime) -> None:
    """A payment every 50 minutes, each third one known five hours late; of three cards, and of one that pays once."""
    times = [BEGIN - days(2) + timedelta(minutes=50 * n) for n in range(200)]
    rows = [
        {"at": t, "card": 1 + n % 3, "cents": 10 * n, "seen": t + (timedelta(milliseconds=1) if n % 9 else hours(5))}
        for n, t in enumerate(times)
    ]
    rows.append({"at": BEGIN, "card": 4, "cents": 7, "seen": BEGIN})
    lake.append("payments", pa.Table.from_pylist([r for r in rows if since <= r["seen"] < until], PAYMENTS))


def lived(settings: Settings, view: StoredView) -> Recomputed:
    """The view back-filled and computed live twice, and then held against its source."""
    lake, ledger = Lake.open(settings, "test"), Ledger.open(settings, "test")
    lake.ensure_table("payments", PAYMENTS, "at")
    since = BEGIN - days(3)
    for tick in (NOON, NOON + hours(2), LAST):
        pay(lake, since, tick + view.compute_lag)
        since = tick + view.compute_lag
        settings.clock.advance_to(since)
        if tick == NOON:
            backfill(settings, lake, ledger, view, BEGIN, NOON)
        else:
            compute(settings, lake, ledger, view, tick)
    asked = ticks_between(view, BEGIN, LAST, 100)
    return recompute(lake, ledger, view, [1, 2, 3, 4, 5], asked, LAST)


@pytest.mark.parametrize("view", [SPEND, FILE, replace(SPEND, ttl=timedelta(0)), replace(SPEND, delay=hours(3))])
def test_a_table_that_is_computed_by_the_definition_is_found_right(settings: Settings, view: StoredView) -> None:
    found = lived(settings, view)
    assert (found.differing, found.late, found.keys) == ({}, (), 5)
    assert found.ticks == {"bootstrap": 36, "live": 2}
    assert found.values == 5 * 38 * len(view.features)
    assert 38 * 3 < found.alive < 38 * 5


def one_too_many(found: pa.Table, view: StoredView) -> pa.Table:
    for n, field in enumerate(found.schema):
        if field.name in view.features and pa.types.is_integer(field.type):
            found = found.set_column(n, field, pc.add(found[field.name], 1).cast(field.type))
    return found


@pytest.mark.parametrize("view", [SPEND, FILE], ids=lambda view: view.name)
@pytest.mark.parametrize("fault", ["values", "live"])
def test_what_is_computed_wrong_and_a_live_run_that_appends_nothing_are_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, view: StoredView, fault: str
) -> None:
    right = Execution._as_appended

    def wrong(self: Execution, row: ComputeRow, found: pa.Table) -> pa.Table:
        appended = right(self, row, found)
        if fault == "values":
            return one_too_many(appended, self.view)
        return appended.slice(0, 0) if row.mode is Mode.LIVE else appended

    monkeypatch.setattr(Execution, "_as_appended", wrong)
    found = lived(settings, view)
    modes = {what.rpartition("(")[2] for what in found.differing}
    assert modes == ({"bootstrap)", "live)"} if fault == "values" else {"live)"})
    assert "the table says" in found.examples[0]


def test_ticks_that_were_not_computed_are_named(settings: Settings) -> None:
    lived(settings, SPEND)
    lake, ledger = Lake.open(settings, "test"), Ledger.open(settings, "test")
    after = LAST + hours(2)
    assert recompute(lake, ledger, SPEND, [1], [after], after).late == (
        "spend is computed up to 2018-06-01T16:00:00+00:00, and the last run was for 2018-06-01T18:00:00+00:00",
        "spend has no row in the ledger for the tick 2018-06-01T18:00:00+00:00",
    )


def test_the_keys_to_ask_live_are_those_that_change_then_and_the_ticks_are_spread(settings: Settings) -> None:
    lived(settings, SPEND)
    lake = Lake.open(settings, "test")
    assert set(keys_that_change(lake, SPEND, NOON, LAST, 9)) == {1, 2, 3}
    assert len(keys_that_change(lake, SPEND, NOON, LAST, 2)) == 2
    assert keys_that_change(lake, replace(SPEND, delay=days(30)), NOON, LAST, 9) == []
    # Nothing happens in no time; but a row of 04:30 became known at 09:30.
    nine = NOON - hours(3)
    assert keys_that_change(lake, replace(SPEND, delay=hours(3)), nine, nine, 9) == [1]
    spread = ticks_between(SPEND, BEGIN, NOON, 5)
    assert (len(spread), spread[-1]) == (5, NOON)
    assert BEGIN < spread[0] <= BEGIN + hours(16)
