"""How far a view is behind, told by what the ledger and the lake know."""

from datetime import timedelta
from typing import Any

import pytest

from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.monitoring.lag import Lag, measure_lag
from lockstep.online.store import connect
from lockstep.settings import Settings
from lockstep.views import UseCase
from lockstep.views.compute import compute
from tests.interrupted import interrupted
from tests.views.test_compute import NOON, PAYMENTS, SPEND, pay

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
USE_CASE: Any = UseCase("test", (), (SPEND.source,), (SPEND,), (), (), None)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("payments", PAYMENTS, "at")
    pay(opened, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
    return opened


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def lag(settings: Settings, lake: Lake, ledger: Ledger) -> Lag:
    (found,) = measure_lag(settings, USE_CASE, lake, ledger)
    return found


def test_a_view_that_was_never_computed_is_late_and_says_so(settings, lake, ledger) -> None:
    found = lag(settings, lake, ledger)
    assert (found.is_late, found.computed, found.online, found.ticks, found.snapshots) == (True, None, None, None, 0)
    assert str(found) == "LATE spend: never online; never computed; 0 snapshots not online; owner o"


def test_what_is_computed_and_not_online_is_counted_in_snapshots(settings, lake, ledger) -> None:
    for hour in (0, 1):
        settings.clock.advance_to(NOON + hour * HOUR + MINUTE)
        compute(settings, lake, ledger, SPEND, NOON + hour * HOUR)
    found = lag(settings, lake, ledger)
    assert (found.computed, found.online, found.snapshots, found.is_late) == (NOON + HOUR, None, 2, True)


def test_ticks_are_due_once_their_compute_lag_is_over(settings, lake, ledger) -> None:
    settings.clock.advance_to(NOON + MINUTE)
    compute(settings, lake, ledger, SPEND, NOON)
    settings.clock.advance_to(NOON + 3 * HOUR + 4 * MINUTE)
    assert lag(settings, lake, ledger).ticks == 2
    settings.clock.advance_to(NOON + 3 * HOUR + 6 * MINUTE)
    assert lag(settings, lake, ledger).ticks == 3


def test_a_view_is_late_once_its_watermark_is_older_than_promised(settings, lake, ledger) -> None:
    with LocalRedis(settings.home) as server:
        online = server.settings(settings)
        store: Any = connect(online)
        settings.clock.advance_to(NOON + MINUTE)
        compute(settings, lake, ledger, SPEND, NOON)
        Materializer(online, lake, ledger, store, "test", SPEND).run()
        store.close()
    settings.clock.advance_to(NOON + 3 * HOUR - MINUTE)
    found = lag(settings, lake, ledger)
    assert (found.is_late, found.online, found.snapshots) == (False, NOON, 0)
    assert str(found).startswith("fresh spend: 2:59:")
    settings.clock.advance_to(NOON + 3 * HOUR + MINUTE)
    assert lag(settings, lake, ledger).is_late


def test_a_table_that_was_rolled_back_is_said_to_be_and_its_ticks_are_missing(settings, lake, ledger) -> None:
    with LocalRedis(settings.home) as server:
        online = server.settings(settings)
        store: Any = connect(online)
        for hour in (0, 1, 2):
            settings.clock.advance_to(NOON + hour * HOUR + 6 * MINUTE)
            compute(settings, lake, ledger, SPEND, NOON + hour * HOUR)
        Materializer(online, lake, ledger, store, "test", SPEND).run()
        store.close()
    assert (lag(settings, lake, ledger).rolled_back, lag(settings, lake, ledger).ticks) == (False, 0)
    first = lake.snapshots("spend")[0]
    lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=first.id).commit()
    found = lag(settings, lake, ledger)
    assert (found.rolled_back, found.ticks, found.computed) == (True, 2, NOON)
    assert "its table was rolled back" in str(found)


def test_what_was_planned_and_is_not_finished_is_named(settings, lake, ledger, monkeypatch) -> None:
    settings.clock.advance_to(NOON + MINUTE)
    interrupted(monkeypatch, Lake, "append_parts", lambda: compute(settings, lake, ledger, SPEND, NOON))
    (unfinished,) = lag(settings, lake, ledger).unfinished
    assert unfinished.startswith("ticks up to 2018-06-01T12:00:00+00:00 planned since 2018-06-01T12:01:")
