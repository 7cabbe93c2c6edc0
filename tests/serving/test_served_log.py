"""The served log without processes: its schema, its queue, and the drain into the lake."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
import redis
import redis.asyncio
from prometheus_client import REGISTRY

from lockstep.errors import SchemaDrift, Transient
from lockstep.lake import Lake
from lockstep.local import LocalRedis
from lockstep.materialize.ledger import Ledger
from lockstep.online.epoch import Epochs
from lockstep.online.reader import Reading, ViewRows
from lockstep.retention import maintain
from lockstep.serving import drain as draining
from lockstep.serving import log
from lockstep.serving.drain import drain, last_id, stream_name
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import (
    PARTITION_BY,
    SCHEMA,
    SERVED_LOG,
    UNIFORM,
    Served,
    decode_values,
    encode_rows,
    encode_values,
    read_row,
    stream_key,
)
from lockstep.serving.request import Request
from lockstep.settings import Settings
from lockstep.views import load_use_case

GOLDEN = Path(__file__).parents[1] / "golden" / "served_log_schema.json"
PROJECT = "fraud_case"
NOON_US = 1_527_854_400_000_000


@pytest.fixture
def other(tmp_path: Path) -> Iterator[redis.Redis]:
    """Another Redis, of which the clock may be behind."""
    with LocalRedis(tmp_path / "other") as local, redis.Redis(port=local.port) as connection:
        yield connection


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake.open(settings, PROJECT)


def served(request_id: str, rows: int = 2) -> Served:
    request = Request(request_id, [NOON_US] * rows, {"customer_id": [7] * rows}, [{"amount_cents": 1250}] * rows)
    vectors = np.full((rows, 2), 0.1 + 0.2)
    vectors[:, 1] = np.nan
    epochs = Epochs("i", {})
    read = ViewRows(["present"] * rows, [NOON_US] * rows, [-1] * rows, {"nb": [3] * rows})
    reading = Reading(epochs, epochs, {"cards": read})
    return Served(request, NOON_US + 5, reading, vectors, [0.25] * rows, [[]] * rows, "c" * 64, shadow=False)


def add(client: redis.Redis, request_id: str, rows: int = 2, counter: int = 1, behind: bool = False) -> None:
    """Put rows into the stream; `behind` the clock of all other rows."""
    chosen = [(row, UNIFORM) for row in range(rows)]
    for number, row in enumerate(encode_rows(served(request_id, rows), chosen, "m" * 64, "p", counter), counter):
        client.xadd(stream_key(PROJECT), {"row": row}, id=f"1-{number}" if behind else "*")


def dies_before_it_trims(lake: Lake, client: redis.Redis) -> None:
    gone = redis.ConnectionError("gone")
    with patch.object(redis.Redis, "xtrim", side_effect=gone), pytest.raises(Transient, match="not answer: gone"):
        drain(lake, client, PROJECT)


def test_the_schema_is_the_published_one(lake: Lake) -> None:
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)  # and it agrees with itself
    table = lake.table(SERVED_LOG)
    published = {
        "arrow": {field.name: str(field.type) for field in SCHEMA},
        "iceberg": orjson.loads(table.schema().model_dump_json()),
        "partition": [str(field) for field in table.spec().fields],
    }

    assert published == orjson.loads(GOLDEN.read_bytes())


def test_stored_values_that_json_has_no_number_for_survive_the_log() -> None:
    values = {"a": float("nan"), "b": float("-inf"), "c": None, "d": 0.1 + 0.2, "e": (1 << 63) - 1, "s": "NaN"}

    decoded = decode_values(encode_values(values), {"a", "b", "c", "d"})

    assert np.isnan(decoded.pop("a"))
    assert decoded == {"b": float("-inf"), "c": None, "d": 0.1 + 0.2, "e": (1 << 63) - 1, "s": "NaN"}


def test_the_queue_is_bounded_and_what_it_drops_is_a_gap_in_the_counter(
    server: LocalRedis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "QUEUE_ROWS", 5)

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            for name in ("first", "second", "third"):
                served_log.offer(served(name))  # nothing is sent meanwhile: the third would be rows 5 and 6
            await asyncio.sleep(0.1)
            served_log.offer(served("fourth"))
            await served_log.close()
            return served_log

    done = asyncio.run(run())

    rows = [orjson.loads(fields[b"row"]) for _, fields in client.xrange(stream_key(PROJECT))]
    assert [(row["request_id"], row["counter"]) for row in rows] == [
        ("first", 1),
        ("first", 2),
        ("second", 3),
        ("second", 4),
        ("fourth", 7),
        ("fourth", 8),
    ]
    assert (done.sent, done.dropped) == (6, 2)


def test_a_store_that_refuses_rows_costs_the_rows_and_not_the_log(server: LocalRedis, client: redis.Redis) -> None:
    client.set(stream_key(PROJECT), "no stream")

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            served_log.offer(served("lost"))
            await asyncio.sleep(0.1)
            await connection.delete(stream_key(PROJECT))
            served_log.offer(served("kept"))
            await served_log.close()
            return served_log

    done = asyncio.run(run())

    assert (done.sent, done.dropped) == (2, 2)
    assert client.xlen(stream_key(PROJECT)) == 2


def test_what_is_said_of_a_refusal_holds_nothing_of_the_row(
    server: LocalRedis, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(stream_key(PROJECT), "no stream")

    async def run() -> None:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            served_log.offer(served("MISCONF customer-4929"))
            await served_log.close()

    asyncio.run(run())

    assert caplog.messages == ["2 rows of the served log were not confirmed: ResponseError WRONGTYPE"]


def test_of_a_batch_the_rows_that_were_taken_are_not_lost(server: LocalRedis, client: redis.Redis) -> None:
    client.set("no stream", "x")

    class Halved(redis.asyncio.client.Pipeline):
        def xadd(self, name: Any, *arguments: Any, **options: Any) -> Any:
            return super().xadd("no stream" if len(self) else name, *arguments, **options)

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            with patch.object(redis.asyncio.client, "Pipeline", Halved):
                served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
                served_log.offer(served("r", rows=3))
                await served_log.close()
                return served_log

    done = asyncio.run(run())

    assert (done.sent, done.dropped, client.xlen(stream_key(PROJECT))) == (1, 2, 1)


def test_a_row_that_cannot_be_encoded_costs_its_request_and_not_the_log(
    server: LocalRedis, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    odd = served("odd", rows=4)
    odd.reading.views["cards"].values["nb"][1] = [b"4929"]

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            for each in (served("before"), odd, odd, served("after")):
                served_log.offer(each)
            await served_log.close()
            return served_log

    done = asyncio.run(run())

    rows = [orjson.loads(fields[b"row"]) for _, fields in client.xrange(stream_key(PROJECT))]
    assert [(row["request_id"], row["counter"]) for row in rows] == [
        ("before", 1),
        ("before", 2),
        ("odd", 3),
        ("odd", 7),
        ("after", 11),
        ("after", 12),
    ]
    assert (done.sent, done.dropped) == (6, 6)
    assert REGISTRY.get_sample_value("lockstep_served_log_queue_rows") == 0
    assert caplog.messages == ["rows of the served log cannot be encoded and are dropped: TypeError"]


def test_what_waits_when_the_log_is_closed_and_cannot_be_sent_is_counted_as_dropped(
    server: LocalRedis, client: redis.Redis
) -> None:
    before = REGISTRY.get_sample_value("lockstep_served_log_rows_total", {"outcome": "dropped"}) or 0.0

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            client.client_pause(30_000, all=False)
            served_log.offer(served("lost", rows=3))
            await served_log.close(deadline=0.1)
            return served_log

    try:
        done = asyncio.run(run())
    finally:
        client.client_unpause()

    assert (done.sent, done.dropped) == (0, 3)
    assert REGISTRY.get_sample_value("lockstep_served_log_rows_total", {"outcome": "dropped"}) == before + 3


def test_a_stream_that_nobody_drains_loses_its_oldest_rows(
    server: LocalRedis, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STREAM_ROWS", 200)

    async def run() -> ServedLog:
        async with redis.asyncio.Redis(host="127.0.0.1", port=server.port) as connection:
            served_log = ServedLog(connection, PROJECT, "m", linger=0.02)
            served_log.offer(served("many", rows=1000))
            await served_log.close()
            return served_log

    assert asyncio.run(run()).sent == 1000
    # Redis drops blocks of 100.
    assert 200 <= client.xlen(stream_key(PROJECT)) <= 300
    ((_, newest),) = client.xrevrange(stream_key(PROJECT), count=1)
    assert orjson.loads(newest[b"row"])["counter"] == 1000


def ids(lake: Lake) -> list[str]:
    return sorted(lake.table(SERVED_LOG).scan().to_arrow()["request_id"].to_pylist())


def test_a_drain_moves_rows_as_they_are_and_a_second_one_adds_nothing(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    (newest, _), *_ = client.xrevrange(stream_key(PROJECT), count=1)

    done = drain(lake, client, PROJECT)
    again = drain(lake, client, PROJECT)

    assert (done.rows, done.last_id) == (2, newest.decode())
    assert (again.rows, again.last_id) == (0, newest.decode())
    assert client.xlen(stream_key(PROJECT)) == 0
    table = lake.table(SERVED_LOG)
    (snapshot,) = lake.snapshots(SERVED_LOG)
    assert snapshot.properties.items() >= {stream_name(client, stream_key(PROJECT)): done.last_id}.items()
    assert str(table.spec().fields[0].transform) == "day"
    row = table.scan().to_arrow().to_pylist()[1]
    assert row["request_id"] == "a"
    assert row["row"] == 1
    assert row["vector"] == [0.1 + 0.2, None]
    assert row["read_time"].isoformat() == "2018-06-01T12:00:00.000005+00:00"
    assert (row["counter"], row["flags"], row["epoch_before"]) == (2, [], '{"incarnation":"i","views":{}}')
    read = row["views"][0]
    assert (read["view"], read["status"], read["values"]) == ("cards", "present", '{"nb":3}')
    assert read["created_timestamp"] is None  # another writer did not say


def test_a_rejected_row_comes_to_the_lake_with_what_it_lacks_and_without_a_score(
    lake: Lake, client: redis.Redis
) -> None:
    one = replace(served("r"), scores=[0.25, None], rejected={1: "cards:nb"})
    for row in encode_rows(one, [(0, UNIFORM), (1, UNIFORM)], "m" * 64, "p", 1):
        client.xadd(stream_key(PROJECT), {"row": row})
    drain(lake, client, PROJECT)

    rows = lake.table(SERVED_LOG).scan().to_arrow().sort_by("row").to_pylist()
    assert [(row["score"], row["rejected"], row["vector"]) for row in rows] == [
        (0.25, None, [0.1 + 0.2, None]),
        (None, "cards:nb", [0.1 + 0.2, None]),
    ]


def test_a_row_that_was_logged_before_rejections_were_is_drained_as_one_that_was_answered(
    lake: Lake, client: redis.Redis
) -> None:
    (row,) = encode_rows(served("old", rows=1), [(0, UNIFORM)], "m" * 64, "p", 1)
    old = orjson.loads(row)
    del old["rejected"]
    client.xadd(stream_key(PROJECT), {"row": orjson.dumps(old)})

    assert drain(lake, client, PROJECT).rows == 1
    (found,) = lake.table(SERVED_LOG).scan().to_arrow().to_pylist()
    assert (found["request_id"], found["score"], found["rejected"]) == ("old", 0.25, None)


def test_a_drain_of_nothing_leaves_an_empty_table(lake: Lake, client: redis.Redis) -> None:
    assert drain(lake, client, PROJECT).rows == 0
    assert lake.table(SERVED_LOG).snapshots() == []


def test_a_drain_that_died_between_append_and_trim_loses_and_doubles_nothing(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    dies_before_it_trims(lake, client)
    assert client.xlen(stream_key(PROJECT)) == 2
    add(client, "b")

    assert drain(lake, client, PROJECT).rows == 2
    assert ids(lake) == ["a", "a", "b", "b"]
    assert client.xlen(stream_key(PROJECT)) == 0


def test_a_drain_that_died_between_two_batches_goes_on_after_the_first(
    lake: Lake, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "BATCH_ROWS", 3)
    add(client, "a", rows=7)
    append, done = draining._append, []

    def once(*arguments: Any) -> None:
        if done:
            raise redis.ConnectionError("gone")
        done.append(append(*arguments))

    with patch.object(draining, "_append", once), pytest.raises(redis.ConnectionError):
        drain(lake, client, PROJECT)
    assert client.xlen(stream_key(PROJECT)) == 7

    assert drain(lake, client, PROJECT).rows == 4
    assert sorted(lake.table(SERVED_LOG).scan().to_arrow()["counter"].to_pylist()) == list(range(1, 8))
    assert len(lake.table(SERVED_LOG).snapshots()) == 3


def test_of_two_drains_at_once_one_is_told_to_try_again(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    drain(lake, client, PROJECT)
    add(client, "b")
    append = draining._append

    def late(*arguments: Any) -> None:
        with patch.object(draining, "_append", append):
            drain(lake, client, PROJECT)  # the other one, in between
        append(*arguments)

    with patch.object(draining, "_append", late), pytest.raises(Transient, match="another writer committed first"):
        drain(lake, client, PROJECT)

    assert ids(lake) == ["a", "a", "b", "b"]


def test_newer_snapshots_that_do_not_say_do_not_hide_the_last_id(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    done = drain(lake, client, PROJECT)
    lake.append(SERVED_LOG, lake.table(SERVED_LOG).schema().as_arrow().empty_table())  # as maintenance would

    name = stream_name(client, stream_key(PROJECT))
    assert name is not None
    assert last_id(lake.table(SERVED_LOG), name) == done.last_id


@pytest.mark.parametrize("died", [False, True])
def test_of_two_redis_s_each_row_comes_once_whichever_is_drained_when(
    lake: Lake, client: redis.Redis, other: redis.Redis, died: bool
) -> None:
    add(client, "a")
    drain(lake, client, PROJECT)
    add(client, "b")
    if died:
        dies_before_it_trims(lake, client)
    add(other, "c", behind=True)
    assert drain(lake, other, PROJECT).rows == 2
    if died:
        add(other, "d", behind=True, counter=3)
        dies_before_it_trims(lake, other)
    assert drain(lake, client, PROJECT).rows == (0 if died else 2)
    assert drain(lake, other, PROJECT).rows == 0

    assert ids(lake) == sorted("aabbccdd" if died else "aabbcc")
    assert (client.xlen(stream_key(PROJECT)), other.xlen(stream_key(PROJECT))) == (0, 0)


def test_of_each_stream_the_last_id_outlives_the_other_snapshots(
    settings: Settings, lake: Lake, client: redis.Redis, other: redis.Redis
) -> None:
    for request in ("a", "b"):
        add(client, request)
        dies_before_it_trims(lake, client)
    add(other, "c")
    drain(lake, other, PROJECT)
    lake.append(SERVED_LOG, lake.table(SERVED_LOG).schema().as_arrow().empty_table())
    forgetful = settings.model_copy(update=dict.fromkeys(["snapshots_keep", "parity_max_age"], timedelta(0)))
    use_case = replace(load_use_case("feature_repo"), project=PROJECT)

    (kept,) = maintain(forgetful, use_case, lake, Ledger.open(settings, PROJECT))

    assert kept.expired.snapshots == 1, "the first of the first stream"
    assert drain(lake, client, PROJECT).rows == 0
    assert ids(lake) == sorted("aabbcc")


def test_after_a_flush_rows_of_an_earlier_clock_come_too(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    drain(lake, client, PROJECT)
    client.flushall()
    add(client, "b", behind=True)

    assert drain(lake, client, PROJECT).rows == 2
    assert ids(lake) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("behind", [False, True])
def test_a_stream_that_is_replaced_while_it_is_drained_is_another_one(
    lake: Lake, client: redis.Redis, behind: bool
) -> None:
    add(client, "a")
    drain(lake, client, PROJECT)
    read, flushes = redis.Redis.xrange, []

    def flushed(*arguments: Any, **options: Any) -> Any:
        if not flushes:
            flushes.append(client.flushall())
            add(client, "b", behind=behind)
        return read(*arguments, **options)

    with patch.object(redis.Redis, "xrange", flushed), pytest.raises(Transient, match="flushed, or replaced"):
        drain(lake, client, PROJECT)
    assert client.xlen(stream_key(PROJECT)) == 2
    assert drain(lake, client, PROJECT).rows == 2
    assert ids(lake) == ["a", "a", "b", "b"]


def test_a_stream_has_one_name_for_as_long_as_it_is_there(client: redis.Redis) -> None:
    key = stream_key(PROJECT)
    assert stream_name(client, key) is None
    assert not client.exists(key)
    add(client, "a")
    client.xgroup_create(key, "somebody else's", "0")
    name = stream_name(client, key)
    assert name is not None
    assert re.fullmatch("lockstep.stream.[0-9a-f]{16}", name)
    assert name.encode() in [group["name"] for group in client.xinfo_groups(key)]
    client.xtrim(key, maxlen=0)
    assert stream_name(client, key) == name
    client.delete(key)
    add(client, "a")
    assert stream_name(client, key) not in {None, name}


def test_a_full_store_can_be_drained(lake: Lake, client: redis.Redis) -> None:
    add(client, "a")
    drain(lake, client, PROJECT)
    add(client, "b")
    client.config_set("maxmemory", 1)
    try:
        assert drain(lake, client, PROJECT).rows == 2
    finally:
        client.config_set("maxmemory", 0)
    assert client.xlen(stream_key(PROJECT)) == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *(({name: None}, f"it has no {name}") for name in SCHEMA.names if name not in {"score", "rejected"}),
        ({"views": [{"view": "v", "status": None, "values": "{}"}]}, "it has no views.status"),
    ],
)
def test_a_row_that_leaves_out_what_each_row_says_is_none(change: dict[str, Any], why: str) -> None:
    (encoded,) = encode_rows(served("a", 1), [(0, UNIFORM)], "m" * 64, "p", 1)
    told = orjson.loads(encoded)
    assert read_row(b"1-1", {b"row": encoded}) == told
    unread = [{**view, "event_timestamp": None, "created_timestamp": None} for view in told["views"]]
    for may_be in ({"score": None}, {"rejected": None}, {"views": unread}):
        assert read_row(b"1-1", {b"row": orjson.dumps(told | may_be)}) == told | may_be
    with pytest.raises(SchemaDrift, match=f"stream entry 1-1 is no row of served_log: {why}\n"):
        read_row(b"1-1", {b"row": orjson.dumps(told | change)})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"row": orjson.dumps({"request_id": "x"})}, "it differs in contract"),
        ({"other": "x"}, "it has no field `row`"),
        ({"row": "x"}, "it is no JSON"),
        ({"row": "[]"}, "it is no object"),
    ],
)
def test_an_entry_that_is_no_row_is_named_and_nothing_is_lost(
    lake: Lake, client: redis.Redis, fields: Any, why: str
) -> None:
    entry = client.xadd(stream_key(PROJECT), fields).decode()
    add(client, "a")
    with pytest.raises(SchemaDrift, match=f"stream entry {entry} is no row of served_log: {why}") as refused:
        drain(lake, client, PROJECT)
    assert f"{entry})" in (refused.value.hint or "")
    assert client.xlen(stream_key(PROJECT)) == 3
    client.xdel(stream_key(PROJECT), entry)
    assert drain(lake, client, PROJECT).rows == 2
