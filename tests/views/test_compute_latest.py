"""Computing a latest view into its table on a real lake: bootstrap, live, every type."""

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lockstep.clock import parse_time
from lockstep.errors import UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.materialize.ledger import Ledger
from lockstep.settings import Settings
from lockstep.views import Entity, LatestView, Source, days, latest_view, soft
from lockstep.views.compute import bootstrap, compute
from lockstep.views.declare import ARROW_TYPES

MIDNIGHT = parse_time("2018-06-01T00:00:00Z")
TIME = ARROW_TYPES["timestamp"]
PROFILES = pa.schema(
    [
        pa.field("changed_at", TIME),
        pa.field("card", pa.int64(), nullable=False),
        pa.field("tick", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("told_at", TIME),
    ]
)
# A column may be named as the query names its own.
PROFILE = latest_view(
    name="profile",
    entity=Entity("card", "card", "int64", "o"),
    source=Source("profiles", "changed_at", "told_at", "o"),
    columns={"tick": "string", "score": "float64", "changed_at": "timestamp"},
    every=days(1),
    ttl=days(365),
    freshness=soft(days(2)),
    owner="o",
)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    opened = Lake.open(settings, "test")
    opened.ensure_table("profiles", PROFILES, "changed_at")
    return opened


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger.open(settings, "test")


def tell(lake: Lake, *rows: tuple[str, int, str | None, float | None, str]) -> None:
    values = [
        {"changed_at": parse_time(at), "card": card, "tick": tick, "score": score, "told_at": parse_time(told)}
        for at, card, tick, score, told in rows
    ]
    lake.append("profiles", pa.Table.from_pylist(values, PROFILES))


def written(settings: Settings, lake: Lake, view: LatestView = PROFILE) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        lake.register(connection, "written", view.table, columns=view.schema.names)
        names = ", ".join(f'"{name}"' for name in ("event_timestamp", "created_timestamp", "card", *view.features))
        return connection.execute(f"SELECT {names} FROM written ORDER BY ALL").fetchall()


def day(number: int) -> datetime:
    return MIDNIGHT + days(number)


def test_bootstrap_writes_what_each_tick_could_have_known_and_live_goes_on(settings, lake, ledger) -> None:
    tell(
        lake,
        ("2018-05-20T08:00:00Z", 1, "Bern", 0.5, "2018-05-20T09:00:00Z"),
        ("2018-05-25T08:00:00Z", 1, "Ulm", None, "2018-05-28T09:00:00Z"),
        ("2018-05-27T08:00:00Z", 2, None, 0.25, "2018-05-27T09:00:00Z"),
    )
    settings.clock.advance_to(day(0) + timedelta(hours=1))
    done = bootstrap(settings, lake, ledger, PROFILE, day(-30), day(0))
    assert (done.tick, done.rows) == (day(0), 3)
    tell(lake, ("2018-06-01T08:00:00Z", 2, None, 0.75, "2018-06-01T08:00:00Z"))
    settings.clock.advance_to(day(1) + timedelta(hours=1))
    live = compute(settings, lake, ledger, PROFILE, day(1) + timedelta(hours=1))
    planned_at = ledger.computes("profile")[-1].planned_at
    assert (live.tick, live.rows) == (day(1), 1)
    lag = timedelta(minutes=5)
    changed = [parse_time(f"2018-{at}T08:00:00Z") for at in ("05-20", "05-25", "05-27", "06-01")]
    assert written(settings, lake) == [
        (day(-11), day(-11) + lag, 1, "Bern", 0.5, changed[0]),
        (day(-4), day(-4) + lag, 2, None, 0.25, changed[2]),
        (day(-3), day(-3) + lag, 1, "Ulm", None, changed[1]),
        (day(1), planned_at, 2, None, 0.75, changed[3]),
    ]


def test_a_tick_at_which_nothing_changed_commits_an_empty_snapshot(settings, lake, ledger) -> None:
    tell(lake, ("2018-05-20T08:00:00Z", 1, "Bern", 0.5, "2018-05-20T09:00:00Z"))
    settings.clock.advance_to(day(1))
    rows = [compute(settings, lake, ledger, PROFILE, day(n)).rows for n in (0, 1, 1)]
    assert rows == [1, 0, 0]
    assert [s.tick for s in lake.snapshots("profile")] == [int(day(n).timestamp()) * 1_000_000 for n in (0, 1)]


def test_every_type_goes_through_as_the_online_store_can_hold_it(settings, lake, ledger) -> None:
    values = {
        "bool": True,
        "int32": -(2**31),
        "int64": 2**63 - 1,
        "float32": 0.5,
        "float64": 0.1,
        "string": "Zürich",
        "bytes": b"\x00\xff",
        "timestamp": parse_time("2018-05-01T00:00:07Z"),
    }
    assert list(values) == list(ARROW_TYPES)
    columns = {f"a_{dtype}": dtype for dtype in ARROW_TYPES}
    view = latest_view(
        name="everything",
        entity=PROFILE.entity,
        source=Source("things", "changed_at", "told_at", "o"),
        columns=columns,
        every=days(1),
        ttl=days(365),
        freshness=soft(days(2)),
        owner="o",
    )
    schema = pa.schema(
        [
            pa.field("card", pa.int64(), nullable=False),
            *(pa.field(name, ARROW_TYPES[dtype]) for name, dtype in columns.items()),
            pa.field("changed_at", TIME),
            pa.field("told_at", TIME),
        ]
    )
    lake.ensure_table("things", schema, "changed_at")
    times = {"changed_at": day(-1), "told_at": day(-1)}
    some = {"card": 1, **{f"a_{dtype}": value for dtype, value in values.items()}, **times}
    none = {"card": 2, **dict.fromkeys(columns), **times}
    # Feast's layout has no NaN and no part of a second.
    finer = some | {"card": 3, "a_timestamp": values["timestamp"] + timedelta(microseconds=999_999)}
    no_number = none | {"card": 4, "a_float32": float("nan"), "a_float64": float("nan")}
    lake.append("things", pa.Table.from_pylist([some, none, finer, no_number], schema))
    settings.clock.advance_to(day(1))
    assert compute(settings, lake, ledger, view, day(0)).rows == 4
    assert [row[2:] for row in written(settings, lake, view)] == [
        (1, *values.values()),
        (2, *[None] * len(values)),
        (3, *values.values()),
        (4, *[None] * len(values)),
    ]
    assert compute(settings, lake, ledger, view, day(1)).rows == 0, "equal values are recognised in every type"


def test_a_kind_of_view_that_nobody_computes_is_refused(settings, lake, ledger) -> None:
    class OtherView(LatestView):
        kind = "other"

    tell(lake, ("2018-05-20T08:00:00Z", 1, "Bern", 0.5, "2018-05-20T09:00:00Z"))
    settings.clock.advance_to(day(0))
    other = OtherView(**{field.name: getattr(PROFILE, field.name) for field in fields(PROFILE)})
    with pytest.raises(UseCaseError, match="view profile is of the kind 'other', whose ticks nobody computes"):
        compute(settings, lake, ledger, other, day(0))
    assert (ledger.computes("profile"), lake.exists("profile")) == ([], False)
