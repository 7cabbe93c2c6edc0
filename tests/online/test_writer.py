"""The writer: the greatest (event, created) stays, whoever comes when; what cannot be stored is refused."""

from itertools import permutations

import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from stored_rows import EVERY_TYPE, HOUR_US, NOON_US, PROJECT, key_of, make_rows, make_view, write_as_feast

from lockstep.contract import View
from lockstep.errors import BadInput, SchemaDrift
from lockstep.local import LocalRedis
from lockstep.online.layout import decode_pair, event_field, field_of, pair_field
from lockstep.online.values import decode_value
from lockstep.online.writer import Written, read_back, write_rows

VIEW = make_view()


def stored(store: redis.Redis, view: View, key: int) -> tuple[int, int, int] | None:
    """Return (n, event, created) as stored."""
    fields = store.hgetall(key_of(view, key))
    if event_field(view.name) not in fields:
        return None
    pair = decode_pair(fields[event_field(view.name)], fields.get(pair_field(view.name)))
    return decode_value(fields[field_of(view.name, "n")], "int64"), *pair


def write(store: redis.Redis, *rows: tuple[int, int, int, int]) -> Written:
    return write_rows(store, PROJECT, VIEW, make_rows(VIEW, *rows))


def test_what_was_written_is_stored_with_its_event_and_created_time(store: redis.Redis) -> None:
    written = write(store, (1, 10, NOON_US, NOON_US + 5), (2, 20, NOON_US, NOON_US + 6))

    assert (written.accepted, written.rejected) == (2, 0)
    assert stored(store, VIEW, 1) == (10, NOON_US, NOON_US + 5)
    assert stored(store, VIEW, 2) == (20, NOON_US, NOON_US + 6)
    assert store.dbsize() == 2


def test_every_order_of_four_versions_ends_at_the_newest(store: redis.Redis) -> None:
    versions = [(NOON_US, 5), (NOON_US, 6), (NOON_US + HOUR_US, 4), (NOON_US + HOUR_US, 7)]
    orders = list(permutations(versions))
    counted = []
    for turn in range(4):
        rows = [(key, versions.index(order[turn]), *order[turn]) for key, order in enumerate(orders)]
        counted.append(write(store, *rows))

    assert {stored(store, VIEW, key) for key in range(len(orders))} == {(3, *versions[3])}
    # At each turn those are accepted that are the greatest so far: 24/1, 24/2, 24/3, 24/4.
    assert [(w.accepted, w.rejected) for w in counted] == [(24, 0), (12, 12), (8, 16), (6, 18)]


def test_of_one_event_the_newer_created_wins_and_the_older_does_not_come_back(store: redis.Redis) -> None:
    write(store, (1, 10, NOON_US, 5))

    assert write(store, (1, 11, NOON_US, 6)).accepted == 1
    assert write(store, (1, 10, NOON_US, 5)).rejected == 1
    assert stored(store, VIEW, 1) == (11, NOON_US, 6)


def test_writing_again_is_accepted_and_changes_nothing(store: redis.Redis) -> None:
    first = write(store, (1, 10, NOON_US, 5), (2, 20, NOON_US, 5))
    before = store.hgetall(key_of(VIEW, 1))

    assert write(store, (1, 10, NOON_US, 5), (2, 20, NOON_US, 5)) == first
    assert store.hgetall(key_of(VIEW, 1)) == before


def test_a_row_that_a_stock_feast_writer_put_there_counts_as_created_before_any_of_ours(store: redis.Redis) -> None:
    write(store, (1, 10, NOON_US, 99), (2, 20, NOON_US, 99))
    write_as_feast(store, VIEW, 1, 11, NOON_US + HOUR_US)
    write_as_feast(store, VIEW, 2, 21, NOON_US + HOUR_US)

    assert stored(store, VIEW, 1) == (11, NOON_US + HOUR_US, -1)
    assert write(store, (1, 10, NOON_US, 99)).rejected == 1
    assert write(store, (2, 22, NOON_US + HOUR_US, 0)).accepted == 1
    assert stored(store, VIEW, 1) == (11, NOON_US + HOUR_US, -1)
    assert stored(store, VIEW, 2) == (22, NOON_US + HOUR_US, 0)


# The limits of what the script can compare, around zero, and around ordinary times.
TIMES = st.sampled_from([-(1 << 53), -1_000_001, -1_000_000, -1, 0, 1, NOON_US - 1, NOON_US, 1 << 53])
STEPS = st.lists(st.tuples(st.sampled_from(["ours", "feast"]), TIMES, st.sampled_from([0, 1, NOON_US, 1 << 53])))


@budget(max_examples=150)
@given(STEPS)
def test_any_history_ends_as_in_the_naive_store(server: LocalRedis, steps: list[tuple[str, int, int]]) -> None:
    naive: tuple[int, int, int] | None = None
    with redis.Redis(port=server.port) as store:
        store.flushall()
        for turn, (who, event, created) in enumerate(steps):
            new = (turn, event, created if who == "ours" else -1)
            newer = naive is None or new[1:] >= naive[1:]
            if who == "feast" and not (naive is None or event > naive[1]):
                continue  # Feast looks first, and sends only what is newer
            if who == "feast":
                write_as_feast(store, VIEW, 1, turn, event)
            else:
                assert write(store, (1, *new)).accepted == newer
            naive = new if newer else naive
            assert stored(store, VIEW, 1) == naive


def test_views_of_one_entity_share_a_hash_and_do_not_touch_each_other(store: redis.Redis) -> None:
    other = make_view("risk")
    write(store, (1, 10, NOON_US, 5))
    write_rows(store, PROJECT, other, make_rows(other, (1, 70, NOON_US - HOUR_US, 4)))

    assert store.dbsize() == 1
    assert stored(store, VIEW, 1) == (10, NOON_US, 5)
    assert stored(store, other, 1) == (70, NOON_US - HOUR_US, 4)


def test_a_server_that_forgot_the_script_is_told_it_again(store: redis.Redis) -> None:
    write(store, (1, 10, NOON_US, 5))
    store.script_flush()

    assert write(store, (1, 11, NOON_US, 6), (2, 20, NOON_US, 6)).accepted == 2
    assert stored(store, VIEW, 1) == (11, NOON_US, 6)


def test_batches_are_bounded_and_reported_and_make_no_difference_to_the_digest(store: redis.Redis) -> None:
    rows = make_rows(VIEW, *[(key, key, NOON_US, 5) for key in range(25)])
    reported: list[int] = []

    small = write_rows(store, PROJECT, VIEW, rows, progress=reported.append, batch_rows=10)
    large = write_rows(store, PROJECT, VIEW, pa.concat_tables([rows.slice(20), rows.slice(0, 20)]))

    assert reported == [10, 10, 5]
    assert small == large
    assert small.accepted == 25


def test_the_digest_tells_any_difference(store: redis.Redis) -> None:
    digests = {
        write(store, row).digest
        for row in [(1, 10, NOON_US, 5), (2, 10, NOON_US, 5), (1, 11, NOON_US, 5), (1, 10, NOON_US, 6)]
    }

    assert len(digests) == 4


def test_no_rows_are_written_as_none(store: redis.Redis) -> None:
    written = write(store)

    assert (written.accepted, written.rejected) == (0, 0)
    assert read_back(store, PROJECT, VIEW, make_rows(VIEW)) == []


def test_reading_back_finds_each_row_that_is_not_as_it_was_sent(store: redis.Redis) -> None:
    rows = make_rows(VIEW, *[(key, key, NOON_US, 5) for key in range(6)])
    write_rows(store, PROJECT, VIEW, rows)
    store.delete(key_of(VIEW, 1))
    store.hset(key_of(VIEW, 2), field_of("spend", "n"), b"\x20\x63")
    write(store, (3, 77, NOON_US, 6))  # newer: no mismatch
    write_as_feast(store, VIEW, 4, 77, NOON_US + 1)  # newer: no mismatch
    store.hdel(key_of(VIEW, 5), pair_field("spend"))  # created is not known, so it may be older

    assert read_back(store, PROJECT, VIEW, rows) == [1, 2, 5]


def test_an_older_stored_row_is_a_mismatch(store: redis.Redis) -> None:
    write(store, (1, 10, NOON_US, 5))

    assert read_back(store, PROJECT, VIEW, make_rows(VIEW, (1, 10, NOON_US, 6))) == [0]


def test_every_type_is_read_back(store: redis.Redis) -> None:
    view = make_view("all", EVERY_TYPE, join_keys={"customer_id": "int64", "shop": "string", "year": "int32"})
    times = pa.scalar(NOON_US, pa.int64()).cast(pa.timestamp("us", "UTC")).as_py()
    rows = make_rows(
        view,
        (-(1 << 63), "Ünï", -1, True, -5, -(1 << 63), 0.1, -0.1, "ß", b"\x00", times, NOON_US, 5),
        (1, "", 2018, None, None, None, None, None, None, None, None, NOON_US, 5),
    )
    written = write_rows(store, PROJECT, view, rows)

    assert written.accepted == 2
    assert read_back(store, PROJECT, view, rows) == []


def test_text_as_the_lake_hands_it_over_is_the_same_text(store: redis.Redis) -> None:
    view = make_view("named", {"name": "string"})
    rows = make_rows(view, (1, "one", NOON_US, 5))
    large = rows.set_column(1, "name", rows["name"].cast(pa.large_string()))

    assert write_rows(store, PROJECT, view, large) == write_rows(store, PROJECT, view, rows)


@pytest.mark.parametrize("column", ["customer_id", "event_timestamp", "created_timestamp"])
def test_a_row_without_key_or_time_is_refused_and_nothing_is_written(store: redis.Redis, column: str) -> None:
    rows = make_rows(VIEW, (1, 10, NOON_US, 5), (2, 20, NOON_US, 5))
    place = rows.column_names.index(column)
    holed = rows.set_column(place, column, pa.array([rows[column][0].as_py(), None], rows[column].type))

    with pytest.raises(BadInput, match=f"1 rows of spend have no {column}"):
        write_rows(store, PROJECT, VIEW, holed)
    assert store.dbsize() == 0


def test_a_table_that_is_not_what_the_view_declares_is_refused(store: redis.Redis) -> None:
    rows = make_rows(VIEW, (1, 10, NOON_US, 5))

    with pytest.raises(SchemaDrift, match="no column n"):
        write_rows(store, PROJECT, VIEW, rows.drop_columns("n"))
    with pytest.raises(SchemaDrift, match="n as int32, declared int64"):
        write_rows(store, PROJECT, VIEW, rows.set_column(1, "n", pa.array([1], pa.int32())))
    naive = rows["event_timestamp"].cast(pa.timestamp("us"))
    with pytest.raises(SchemaDrift, match="event_timestamp"):
        write_rows(store, PROJECT, VIEW, rows.set_column(2, "event_timestamp", naive))


@pytest.mark.parametrize(("event", "created"), [((1 << 53) + 1, 5), (-(1 << 53) - 1, 5), (NOON_US, -1)])
def test_a_time_that_could_not_be_compared_exactly_is_refused(store: redis.Redis, event: int, created: int) -> None:
    with pytest.raises(BadInput, match="out of range"):
        write(store, (1, 10, event, created))
