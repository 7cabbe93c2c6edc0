"""The writer's way to the server: two batches under way, each answered once, and no answer left for somebody else."""

import pyarrow as pa
import pytest
import redis
from redis.connection import Connection
from stored_rows import NOON_US, PROJECT, make_rows, make_view

from lockstep.errors import Terminal, Transient
from lockstep.online.layout import RowLayout
from lockstep.online.sender import Batch, Line
from lockstep.online.store import connect
from lockstep.online.writer import COMPARE_AND_SET, write_rows
from lockstep.settings import Settings

VIEW = make_view()


def rows(count: int) -> pa.Table:
    return make_rows(VIEW, *((key, key, NOON_US, NOON_US) for key in range(count)))


@pytest.mark.parametrize(("count", "batches"), [(0, []), (1, [1]), (64, [64]), (65, [65]), (1_001, [500, 500, 1])])
def test_each_batch_is_answered_once_and_in_order(store: redis.Redis, count: int, batches: list[int]) -> None:
    told: list[int] = []
    done = write_rows(store, PROJECT, VIEW, rows(count), progress=told.append, batch_rows=500)
    assert (done.accepted, done.rejected, told, store.dbsize()) == (count, 0, batches, count)


def test_what_a_newer_row_refuses_is_counted_in_its_own_batch(store: redis.Redis) -> None:
    newer = [(key, 1, NOON_US + 1, NOON_US) for key in range(0, 300, 3)]
    write_rows(store, PROJECT, VIEW, make_rows(VIEW, *newer))
    done = write_rows(store, PROJECT, VIEW, rows(300), batch_rows=70)
    assert (done.accepted, done.rejected) == (200, 100)


def test_what_is_sent_is_what_redis_py_would_send(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    send = Connection.send_packed_command

    def noted(self: Connection, command: list[bytes], check_health: bool = True) -> None:
        sent.append(b"".join(command))
        send(self, command, check_health)

    monkeypatch.setattr(Connection, "send_packed_command", noted)
    write_rows(store, PROJECT, VIEW, rows(3))
    encoded = RowLayout(PROJECT, VIEW).encode(rows(3))
    fields = [
        part
        for row in zip(*encoded.columns, strict=True)
        for named in zip(encoded.fields, row, strict=True)
        for part in named
    ]
    sha = store.script_load(COMPARE_AND_SET)
    packed = Connection().pack_command("EVALSHA", sha, 3, *encoded.keys, *fields)
    assert b"".join(packed) in sent


def test_a_script_that_is_forgotten_with_two_batches_under_way_is_loaded_again(store: redis.Redis) -> None:
    forget = iter([True, False, False, False])
    done = write_rows(
        store,
        PROJECT,
        VIEW,
        rows(40),
        batch_rows=10,
        progress=lambda _: store.script_flush() if next(forget) else None,
    )
    assert (done.accepted, done.rejected, store.dbsize()) == (40, 0, 40)


def test_an_answer_that_nobody_waited_for_is_not_the_next_commands(
    store: redis.Redis, store_settings: Settings
) -> None:
    sha = store.script_load("return 'of the batch'")
    message = b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n" % sha.encode()
    with connect(store_settings) as client:
        assert isinstance(client, redis.Redis)
        with Line(client, "return 'of the batch'") as line:
            store.execute_command("CLIENT", "PAUSE", 300)  # so that it comes after the connection was lent again
            line.send(Batch(1, message, [1], 0))
        assert client.echo("mine") == b"mine"


def test_a_refusal_in_the_middle_leaves_no_answer_behind(store: redis.Redis) -> None:
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(Terminal, match="the store is full") as refused:
            write_rows(store, PROJECT, VIEW, rows(1_000), batch_rows=100)
    finally:
        store.config_set("maxmemory", 0)
    assert PROJECT not in str(refused.value)
    assert [store.echo(f"{n}") for n in range(5)] == [b"%d" % n for n in range(5)]
    assert write_rows(store, PROJECT, VIEW, rows(1_000), batch_rows=100).accepted == 1_000


def test_a_connection_that_is_cut_is_transient_and_the_next_run_has_another(store: redis.Redis) -> None:
    def cut(_: int) -> None:
        store.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises(Transient, match="does not answer"):
        write_rows(store, PROJECT, VIEW, rows(100), batch_rows=10, progress=cut)
    assert write_rows(store, PROJECT, VIEW, rows(100)).accepted == 100


def test_rows_that_cannot_be_encoded_end_the_run_and_give_the_connection_back(store: redis.Redis) -> None:
    from lockstep.online import sender

    def batches():
        yield Batch(0, b"", 0, 0)
        raise ValueError("the second cannot be made")

    with pytest.raises(ValueError, match="cannot be made"):
        list(sender.send(store, COMPARE_AND_SET, batches()))
    assert store.ping()
    assert len(store.connection_pool._available_connections) == len(store.client_list())
