"""What a change is said to take is what happens: the old view is computed on a real lake, and then the new one by its name."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.changes.describe import describe_view
from lockstep.changes.difference import Consequence
from lockstep.changes.stored import stored_changes
from lockstep.clock import parse_time
from lockstep.errors import BadInput, LockstepError, SchemaDrift, UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.materialize.ledger import Ledger
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, hours, latest_view, minutes, soft, total, windowed_view
from lockstep.views.compute import backfill, compute
from lockstep.views.declare import StoredView

NOON = parse_time("2018-06-01T12:00:00Z")
BEGIN = NOON - timedelta(days=4)
TIME = pa.timestamp("us", tz="UTC")
PAYMENTS = pa.schema({"at": TIME, "card": pa.int64(), "cents": pa.int64(), "fee": pa.int64(), "seen": TIME})
CARD = Entity("card", "card", "int64", "o")
SOURCE = Source("payments", "at", "seen", "o")
SPEND = windowed_view(
    name="spend",
    entity=CARD,
    source=SOURCE,
    measures=[count("nb"), total("cents")],
    windows=[hours(6), days(1)],
    every=hours(2),
    ttl=days(2),
    freshness=soft(hours(3)),
    owner="o",
)
FILE = latest_view(
    name="file",
    entity=CARD,
    source=SOURCE,
    columns={"cents": "int64", "fee": "int64"},
    every=hours(1),
    ttl=days(4),
    freshness=soft(hours(3)),
    owner="o",
)


def pay(lake: Lake, table: str = "payments") -> None:
    """A payment every five hours, and one more of a card that is quiet from then on."""
    times = [BEGIN + timedelta(hours=5 * n) for n in range(19)]
    rows = [{"at": t, "card": 1 + n % 2, "cents": 10 * n, "fee": n, "seen": t} for n, t in enumerate(times)]
    rows.append({"at": BEGIN, "card": 3, "cents": 7, "fee": 1, "seen": BEGIN})
    lake.ensure_table(table, PAYMENTS, "at")
    lake.append(table, pa.Table.from_pylist(rows, PAYMENTS))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    for table in ("payments", "payments_v2"):
        pay(opened, table)
    settings.clock.advance_to(NOON + hours(1))
    return opened


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def said(old: StoredView, new: StoredView) -> Consequence:
    changes = list(stored_changes(describe_view(old), describe_view(new), {}))
    return max((change.consequence for change in changes), key=lambda found: found.rank)


def rows_of(settings: Settings, lake: Lake, view: StoredView) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        lake.register(connection, "t", view.table, columns=view.schema.names)
        return connection.execute("SELECT * FROM t ORDER BY event_timestamp, created_timestamp, card").fetchall()


@pytest.mark.parametrize(
    ("view", "changes", "refusal"),
    [
        (SPEND, {"windows": [hours(6), days(1), days(2)]}, SchemaDrift),
        (SPEND, {"windows": [hours(6)]}, SchemaDrift),
        (SPEND, {"entity": replace(CARD, dtype="string")}, SchemaDrift),
        (SPEND, {"source": replace(SOURCE, table="payments_v2")}, BadInput),
        (SPEND, {"every": hours(3)}, UseCaseError),
        (FILE, {"columns": {"cents": "int64"}}, SchemaDrift),
        (FILE, {"columns": {"cents": "int32", "fee": "int64"}}, SchemaDrift),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else None,
)
def test_what_is_said_to_need_a_name_of_its_own_is_refused_by_every_way_to_compute_it(
    settings: Settings,
    lake: Lake,
    ledger: Ledger,
    view: StoredView,
    changes: dict[str, Any],
    refusal: type[LockstepError],
) -> None:
    backfill(settings, lake, ledger, view, BEGIN, NOON)
    new = replace(view, **changes)
    assert said(view, new) is Consequence.VERSION
    with pytest.raises(refusal):
        backfill(settings, lake, ledger, new, BEGIN, NOON)
    settings.clock.advance_to(NOON + hours(13))
    with pytest.raises((refusal, SchemaDrift)):
        compute(settings, lake, ledger, new, NOON + hours(12))


@pytest.mark.parametrize(
    ("view", "changes"),
    [
        (SPEND, {"measures": [count("nb"), total("fee", "cents")]}),
        (SPEND, {"measures": [total("cents"), count("nb")]}),
        (SPEND, {"delay": hours(4)}),
        (SPEND, {"every": hours(1)}),
        (FILE, {"source": replace(SOURCE, event_time="seen", known_at="at")}),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else None,
)
def test_what_is_said_to_need_a_back_fill_is_refused_until_it_was_done_and_then_is_as_if_it_had_always_been(
    settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, changes: dict[str, Any]
) -> None:
    backfill(settings, lake, ledger, view, BEGIN, NOON)
    new = replace(view, **changes)
    assert said(view, new) is Consequence.BACKFILL
    settings.clock.advance_to(NOON + hours(3))
    with pytest.raises(SchemaDrift, match="under another definition"):
        compute(settings, lake, ledger, new, NOON + hours(2))
    backfill(settings, lake, ledger, new, BEGIN, NOON)
    compute(settings, lake, ledger, new, NOON + hours(2))
    afresh = replace(new, name=f"{new.name}_v2")
    backfill(settings, lake, ledger, afresh, BEGIN, NOON)
    compute(settings, lake, ledger, afresh, NOON + hours(2))
    asked = [NOON - hours(n) for n in range(90)]
    nothing = (0,) * len(new.features)  # what a correction writes where the view has no value
    for card in (1, 2, 3):
        found = [[told or nothing for told in answers(settings, lake, each, card, asked)] for each in (new, afresh)]
        assert found[0] == found[1]


def answers(settings: Settings, lake: Lake, view: StoredView, card: int, asked: list[datetime]) -> list[Any]:
    """What the view's table answers at these times, corrections included."""
    rows = [row for row in rows_of(settings, lake, view) if row[0] == card]

    def at(time: datetime) -> tuple[Any, ...] | None:
        known = [row for row in rows if row[-2] <= time and time - row[-2] <= view.ttl]
        best = max(known, key=lambda row: row[-2:], default=None)
        values = dict(zip(view.schema.names, best, strict=True)) if best else {}
        return tuple(values[name] for name in sorted(view.features)) if best else None

    return [at(time) for time in asked]


@pytest.mark.parametrize(
    "changes",
    [{"compute_lag": minutes(7)}, {"visible_lag": minutes(7)}, {"owner": "p"}],
    ids="-".join,
)
def test_what_is_said_to_need_the_registry_alone_is_computed_on(
    settings: Settings, lake: Lake, ledger: Ledger, changes: dict[str, Any]
) -> None:
    backfill(settings, lake, ledger, SPEND, BEGIN, NOON)
    new = replace(SPEND, **changes)
    assert said(SPEND, new) is Consequence.REGISTER
    settings.clock.advance_to(NOON + hours(5))
    assert compute(settings, lake, ledger, new, NOON + hours(4)).tick == NOON + hours(4)


def test_a_quiet_key_of_a_latest_view_answers_with_nothing_under_a_short_ttl_until_its_rows_are_back_filled(
    settings: Settings, lake: Lake, ledger: Ledger
) -> None:
    backfill(settings, lake, ledger, FILE, BEGIN, NOON)
    new = replace(FILE, ttl=days(1))
    assert said(FILE, new) is Consequence.BACKFILL
    asked = [NOON - hours(n) for n in range(60)]
    assert None in answers(settings, lake, new, 3, asked)
    backfill(settings, lake, ledger, new, BEGIN, NOON)
    assert set(answers(settings, lake, new, 3, asked)) == {(7, 1)}


@pytest.mark.parametrize("ttl", [days(2), timedelta(0)])
def test_under_a_longer_ttl_a_quiet_key_of_a_windowed_view_answers_for_as_long_once_its_ticks_are_back_filled(
    settings: Settings, lake: Lake, ledger: Ledger, ttl: timedelta
) -> None:
    begin, quiet_since = NOON - days(7), NOON - days(6.5)
    paid = {"at": quiet_since, "card": 4, "cents": 7, "fee": 1, "seen": quiet_since}
    lake.append("payments", pa.Table.from_pylist([paid], PAYMENTS))
    old = replace(SPEND, ttl=ttl)
    backfill(settings, lake, ledger, old, begin, NOON)
    new, afresh = replace(old, ttl=days(5)), replace(old, ttl=days(5), name="spend_v2")
    assert said(old, new) is Consequence.BACKFILL
    backfill(settings, lake, ledger, afresh, begin, NOON)
    settings.clock.advance_to(NOON + days(4))
    for view in (new, afresh):  # the definition is the same one: nothing is refused
        compute(settings, lake, ledger, view, NOON + days(3.5))
    asked = [NOON + hours(n) for n in range(84)]
    right = answers(settings, lake, afresh, 4, asked)
    assert answers(settings, lake, new, 4, asked) != right
    backfill(settings, lake, ledger, new, begin, NOON)
    assert answers(settings, lake, new, 4, asked) == right
