"""What is looked up of served rows, in one query of all files, against a few naive lines over lists of rows."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from parity_case import view

from lockstep.clock import from_micros, to_micros
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.parity.elsewhere import Elsewhere, rows_elsewhere
from lockstep.parity.expect import Stored, Version, expired, look_up, version_of
from lockstep.parity.sample import ServedRow, ServedView, same
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from tests.lake.compaction import compact

LAG, TTL = 2, 6
TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {
        "card": pa.int64(),
        "shop": pa.string(),
        "nb": pa.int64(),
        "a ratio": pa.float64(),
        EVENT_TIMESTAMP: TIME,
        CREATED_TIMESTAMP: TIME,
    }
)
TABLES = itertools.count()
Key = tuple[int, str]
RowsOf = Mapping[int, Sequence[dict[str, Any]]]


def spend(name: str, ttl: int = TTL) -> Any:
    found = view(name, ["card", "shop"], {"nb": "int64", "a ratio": "float64"}, ttl)
    keys = tuple(key.model_copy(update={"dtype": "string"}) if key.name == "shop" else key for key in found.join_keys)
    return found.model_copy(update={"join_keys": keys, "visible_lag_us": LAG})


def row_of(key: Key, event: int, created: int) -> dict[str, Any]:
    """A row; nulls and NaN are among its values, and each version of a key has its own."""
    number = key[0] * 100 + event * 10 + created + (key[1] == "b")
    values = {"nb": None if number % 5 == 0 else number, "a ratio": (None, float("nan"), number / 8)[number % 3]}
    return {
        "card": key[0],
        "shop": key[1],
        **values,
        EVENT_TIMESTAMP: from_micros(event),
        CREATED_TIMESTAMP: from_micros(event + created),
    }


def states_of(lake: Lake, name: str, known: dict[int, list[dict[str, Any]]]) -> None:
    """Note what rows each snapshot has that is not known yet, as PyIceberg reads it."""
    for snapshot in lake.snapshots(name) if lake.current(name) else []:
        if snapshot.sequence not in known:
            known[snapshot.sequence] = lake.table(name).scan(snapshot_id=snapshot.id).to_arrow().to_pylist()


# The oracle.


def version_in(row: dict[str, Any]) -> Version:
    return Version(to_micros(row[EVENT_TIMESTAMP]), to_micros(row[CREATED_TIMESTAMP]))


def naive(of: Any, states: RowsOf, row: ServedRow, cut: int) -> Stored:
    key = row.keys["card"], row.keys["shop"]
    mine = {n: [r for r in rows if (r["card"], r["shop"]) == key] for n, rows in {0: (), **states}.items()}
    read = version_of(row.views.get(of.name))
    held = next((r for rows in mine.values() for r in rows if version_in(r) == read), None)
    before, after = (epochs.views[of.name] for epochs in (row.before, row.after))
    low = before.committed.sequence if before.committed else 0
    marks = [mark for mark in (before.writing, after.committed, after.writing) if mark]
    high = max([low, *(mark.sequence for mark in marks)])
    flies = before != after or before.writing is not None
    allowed = (low, *(n for n in sorted(states) if low < n <= high)) if flies else (low,)
    newest = tuple(max(map(version_in, mine.get(n, [])), default=None) for n in allowed)
    seen = [
        v for v in map(version_in, mine[cut]) if v.event_us <= row.request_us and v.created_us + LAG <= row.request_us
    ]
    known = max(seen, default=None)
    if known is not None and expired(of, known.event_us, row.request_us):
        known = None
    brought = min((n for n, rows in mine.items() if known in map(version_in, rows)), default=0) if known else 0
    values = {name: held[name] for name in ("nb", "a ratio")} if held else None
    first = {v: min(n for n, rows in mine.items() if v in map(version_in, rows)) for v in seen}
    later = [v for v in seen if read is None or read < v]
    missed = tuple(
        min((v.created_us for v in later if first[v] > n), default=None) if has == read else None
        for n, has in zip(allowed, newest, strict=True)
    )
    return Stored(values, allowed, newest, flies, known, brought, missed)


def told(stored: Stored) -> tuple[Any, ...]:
    values = None if stored.held is None else {n: "NaN" if v != v else v for n, v in stored.held.items()}
    return values, stored.allowed, stored.newest, stored.in_flight, stored.known, stored.brought, stored.missed


# What may happen.

KEYS = st.tuples(st.integers(1, 3), st.sampled_from("ab"))
ROWS = st.lists(st.tuples(KEYS, st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=6, unique=True)
CHANGES = st.one_of(
    st.tuples(st.just("append"), ROWS),
    st.tuples(st.just("append"), ROWS),
    st.tuples(st.just("delete"), st.integers(1, 3)),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("roll back"), st.integers(0, 3)),
)
SEQUENCES = st.integers(0, 7)
SERVED = st.lists(
    st.tuples(
        st.tuples(st.integers(1, 4), st.sampled_from("ab")),
        st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 4))),
        st.tuples(SEQUENCES, st.one_of(st.none(), SEQUENCES)),
        st.one_of(st.none(), st.tuples(SEQUENCES, st.one_of(st.none(), SEQUENCES))),
        st.integers(0, 24),
    ),
    min_size=5,
    max_size=25,
)


TWICE = "append", [((1, "a"), 0, 0)]
ASKED = [((1, "a"), (0, 0), (1, None), None, 2)]


def change(lake: Lake, name: str, what: str, given: Any) -> None:
    table, current = lake.table(name), lake.current(name)
    if what == "append":
        lake.append(name, pa.Table.from_pylist([row_of(*of) for of in given], SCHEMA))
    elif current is None:
        return
    elif what == "delete" and any(r["card"] == given for r in table.scan().to_arrow().to_pylist()):
        table.delete(f"card = {given}")
    elif what == "compact" and table.scan().to_arrow().num_rows:
        compact(table)
    elif what == "roll back":
        earlier = lake.snapshots(name)[given % len(lake.snapshots(name))]
        table.manage_snapshots().set_current_snapshot(snapshot_id=earlier.id).commit()


def mark(sequence: int | None) -> Mark | None:
    return Mark(sequence, sequence, sequence, 0) if sequence else None


def served(name: str, number: int, of: Any, latest: int) -> ServedRow:
    key, version, before, after, at = of
    views: dict[str, ServedView] = {}
    if version is not None:
        views[name] = ServedView("present", version[0], version[0] + version[1], {"nb": 1, "a ratio": None})

    def epochs(marks: tuple[int, int | None]) -> Epochs:
        return Epochs("i", {name: ViewEpoch(*(mark(min(m, latest)) if m else None for m in marks))})

    nothing: Any = {}
    return ServedRow(
        *("r", 0, at, at, nothing, {"card": key[0], "shop": key[1]}, epochs(before), epochs(after or before)),
        *(views, (), "c", "m", 0.5, (), True, "p", number),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Lake]:
    settings = Settings(home=tmp_path_factory.mktemp("look_up")).resolved()
    return settings, Lake.open(settings, "test")


@given(st.lists(CHANGES, min_size=1, max_size=7), SERVED, st.booleans())
@example(changes=[TWICE, TWICE], asked=ASKED, earlier=False)
@example(changes=[TWICE, ("delete", 1), ("roll back", 0)], asked=ASKED, earlier=False)
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_looked_up_is_what_a_naive_reader_finds(
    home: tuple[Settings, Lake], changes: list[tuple[str, Any]], asked: list[Any], earlier: bool
) -> None:
    settings, lake = home
    of = spend(name := f"spend{next(TABLES)}")
    lake.ensure_table(name, SCHEMA)
    states: dict[int, list[dict[str, Any]]] = {}
    for what, given_ in changes:
        change(lake, name, what, given_)
        states_of(lake, name, states)
    latest = max(states, default=0)
    current = lake.current(name)
    cut = current.sequence if current else 0
    snapshot_id = None
    if earlier and current:
        first = lake.snapshots(name)[0]
        cut, snapshot_id = first.sequence, first.id
    rows = [served(name, n, row, latest) for n, row in enumerate(asked)]
    found = look_up(settings, lake, of, rows, snapshot_id)
    assert found.cut == cut
    assert [told(stored) for stored in found.rows] == [told(naive(of, states, row, cut)) for row in rows]


def test_values_that_are_equal_are_the_logs_own(home: tuple[Settings, Lake]) -> None:
    settings, lake = home
    of = spend("own")
    lake.ensure_table(of.name, SCHEMA)
    lake.append(of.name, pa.Table.from_pylist([row_of((1, "a"), 3, 1)], SCHEMA))
    values = {name: row_of((1, "a"), 3, 1)[name] for name in ("nb", "a ratio")}
    right = served(of.name, 1, ((1, "a"), (3, 1), (1, None), None, 20), 1)
    right.views[of.name].values.update(values)  # type: ignore[attr-defined]
    wrong = served(of.name, 2, ((1, "a"), (3, 1), (1, None), None, 20), 1)
    found = look_up(settings, lake, of, [right, wrong])
    assert found.rows[0].held is right.views[of.name].values
    assert all(same(found.rows[1].held[name], value) for name, value in values.items())  # type: ignore[index]


def test_of_two_rows_of_one_version_the_one_that_was_served_is_meant(home: tuple[Settings, Lake]) -> None:
    settings, lake = home
    of = spend("written_twice")
    lake.ensure_table(of.name, SCHEMA)
    for nb in (7, 8):
        lake.append(of.name, pa.Table.from_pylist([{**row_of((1, "a"), 3, 1), "nb": nb, "a ratio": 0.5}], SCHEMA))
        if nb == 7:
            lake.table(of.name).delete("card = 1")
    for nb, sequence in ((7, 1), (8, 3)):
        row = served(of.name, 1, ((1, "a"), (3, 1), (sequence, None), None, 20), 3)
        row.views[of.name].values.update({"nb": nb, "a ratio": 0.5})  # type: ignore[attr-defined]
        assert look_up(settings, lake, of, [row]).rows[0].held is row.views[of.name].values


def test_another_keys_row_is_found_whatever_its_columns_are_called(home: tuple[Settings, Lake]) -> None:
    settings, lake = home
    of = spend("another")
    lake.ensure_table(of.name, SCHEMA)
    lake.append(of.name, pa.Table.from_pylist([row_of((1, "a"), 3, 1), row_of((2, "b"), 3, 1)], SCHEMA))
    row = served(of.name, 1, ((1, "a"), (3, 1), (1, None), None, 20), 1)
    values = {name: row_of((2, "b"), 3, 1)[name] for name in ("nb", "a ratio")}
    row.views[of.name].values.update(values)  # type: ignore[attr-defined]
    found = rows_elsewhere(settings, look_up(settings, lake, of, [row]), {5: row.views[of.name]})
    assert found == {5: Elsewhere((2, "b"), 1)}


def test_what_nobody_knows_any_more_is_named(home: tuple[Settings, Lake]) -> None:
    settings, lake = home
    of = spend("gone")
    lake.ensure_table(of.name, SCHEMA)
    for event in (1, 2):
        lake.append(of.name, pa.Table.from_pylist([row_of((1, "a"), event, 1)], SCHEMA))
    second = lake.snapshots(of.name)[1]
    compact(lake.table(of.name))
    lake.table(of.name).maintenance.expire_snapshots().by_id(second.id).commit()
    read = served(of.name, 1, ((1, "a"), (1, 1), (2, None), None, 20), 3)
    with pytest.raises(BadInput, match="its snapshot number 2 held is not known any more") as bad:
        look_up(settings, lake, of, [read])
    assert "it has expired" in bad.value.hint
    assert look_up(settings, lake, of, [served(of.name, 1, ((1, "a"), (1, 1), (3, None), None, 20), 3)]).rows[0].held


@pytest.mark.parametrize("card", ["x", 2**63])
def test_a_key_that_its_column_cannot_hold_is_told_with_its_row(home: tuple[Settings, Lake], card: Any) -> None:
    settings, lake = home
    of = spend(f"drifted{next(TABLES)}")
    lake.ensure_table(of.name, SCHEMA)
    lake.append(of.name, pa.Table.from_pylist([row_of((1, "a"), 3, 1)], SCHEMA))
    row = served(of.name, 1, ((card, "a"), (3, 1), (1, None), None, 20), 1)
    with pytest.raises(SchemaDrift, match="the served row p/1 has card = "):
        look_up(settings, lake, of, [row])


def test_a_table_without_a_snapshot_and_no_rows_at_all_hold_nothing(home: tuple[Settings, Lake]) -> None:
    settings, lake = home
    of = spend("empty")
    lake.ensure_table(of.name, SCHEMA)
    asked = served(of.name, 1, ((1, "a"), (1, 1), (0, None), (0, 0), 20), 0)
    assert look_up(settings, lake, of, [asked]).rows == [Stored(None, (0,), (None,), False, None, 0, (None,))]
    assert look_up(settings, lake, of, []).rows == []
