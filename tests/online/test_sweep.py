"""Deleted views are swept from a real Redis, beside stock Feast's fields and a writer that goes on."""

import json
import threading
import time

import pyarrow as pa
import pytest
import redis

from lockstep.clock import parse_time
from lockstep.contract import Column, stored_view
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.online.epoch import EpochStore, Mark
from lockstep.online.layout import EntityKeys, event_field, field_of, fields_of, project_of_key
from lockstep.online.sweep import sweep
from lockstep.online.writer import read_back, write_rows
from lockstep.settings import Settings
from lockstep.views import Entity, Source, count, days, hours, load_use_case, soft, windowed_view
from pipelines.cli import main

T = parse_time("2018-06-01T12:00:00Z")
CARD = Entity("card", "card", "int64", "o")


def view(name: str):
    return windowed_view(
        name=name,
        entity=CARD,
        source=Source("payments", "at", "seen", "o"),
        measures=[count("nb")],
        windows=[days(1), days(7)],
        every=hours(1),
        ttl=days(3),
        freshness=soft(hours(3)),
        owner="o",
    )


STAYS, GOES = view("stays"), view("goes")
STAY = [stored_view(STAYS)]
FEATURES = ("nb_1d", "nb_7d")
KEYS = EntityKeys("test", [Column(name="card", dtype="int64")])


def rows(of, cards: range, value: int = 1) -> pa.Table:
    times = {"event_timestamp": T, "created_timestamp": T}
    return pa.Table.from_pylist([{"card": n, "nb_1d": value, "nb_7d": value, **times} for n in cards], of.schema)


def put(store: redis.Redis, of, cards: range, project: str = "test") -> None:
    write_rows(store, project, stored_view(of), rows(of, cards))


def key(card: int) -> bytes:
    return KEYS.encode({"card": [card]})[0]


def test_whose_a_key_is_is_read_from_its_end() -> None:
    assert project_of_key(key(7)) == "test"
    several = EntityKeys("a1", [Column(name="x", dtype="string"), Column(name="y", dtype="int32")])
    assert project_of_key(several.encode({"x": ["test"], "y": [3]})[0]) == "a1"
    for other in (b"lockstep:epoch:test", b"", b"\x01\x00\x00\x00", key(7)[:-4], b"mytest"):
        assert project_of_key(other) is None


def test_the_rows_of_a_deleted_view_go_and_all_else_stays_to_the_last_byte(store: redis.Redis) -> None:
    put(store, STAYS, range(100))
    put(store, STAYS, range(50), "tests")
    put(store, GOES, range(50), "tests")
    store.set("lockstep:x:test", "y")
    before = {k: store.dump(k) for k in store.scan_iter()}
    put(store, GOES, range(50, 150))
    mark = Mark(1, 2, 3, 4)
    for name in ("stays", "goes"):
        EpochStore(store, "test").set_writing(name, mark)
    counted = sweep(store, "test", STAY, [("goes", FEATURES)], dry_run=True)
    assert len(store.hgetall(key(50))) == 8

    done = sweep(store, "test", STAY, [("goes", FEATURES)])

    assert (done.hashes, done.fields, done.left) == (100, 400, 0)
    assert counted == done
    assert {k: store.dump(k) for k in store.scan_iter() if k != b"lockstep:epoch:test"} == before
    assert list(EpochStore(store, "test").read().views) == ["stays"]
    again = sweep(store, "test", STAY, [("goes", FEATURES)])
    assert (again.hashes, again.fields) == (0, 0)


def test_an_unknown_views_features_are_told_from_those_of_a_view_that_nobody_declares(store: redis.Redis) -> None:
    put(store, GOES, range(2))
    stock = {event_field("stock"): b"t", field_of("stock", "f"): b"v"}
    store.hset(key(0), mapping=stock)

    done = sweep(store, "test", STAY, [("goes", ())])

    assert (done.hashes, done.fields, done.left) == (2, 2 + 4, 3)
    assert store.hgetall(key(0)).items() >= stock.items()
    assert event_field("goes") not in store.hgetall(key(0))
    assert not store.exists(key(1))


def test_known_features_go_although_a_stock_view_is_beside_them(store: redis.Redis) -> None:
    put(store, GOES, range(1))
    stock = {event_field("stock"): b"t", field_of("stock", "f"): b"v"}
    store.hset(key(0), mapping=stock)
    done = sweep(store, "test", STAY, [("goes", FEATURES)])
    assert (done.fields, done.left) == (4, 1)
    assert store.hgetall(key(0)) == stock
    assert sweep(store, "test", STAY, [("stock", ())]).fields == 2
    assert not store.exists(key(0))


def test_a_declared_view_is_refused_before_anything_goes(store: redis.Redis) -> None:
    put(store, GOES, range(1))
    with pytest.raises(BadInput, match="stays is declared, or a model in use reads it"):
        sweep(store, "test", STAY, [("goes", ()), ("stays", ())])
    assert store.exists(key(0))


def test_a_feature_that_only_a_model_in_use_reads_stays(store: redis.Redis) -> None:
    put(store, GOES, range(1))
    put(store, STAYS, range(1))
    now = stored_view(STAYS).model_copy(update={"columns": stored_view(STAYS).columns[:1]})
    assert sweep(store, "test", [now, *STAY], [("goes", ())], dry_run=True).fields == 4
    assert sweep(store, "test", [now], [("goes", ())], dry_run=True).fields == 5, "nobody reads it: it goes too"


def test_what_is_written_meanwhile_stays(store: redis.Redis, store_settings: Settings) -> None:
    put(store, GOES, range(3_000))
    ended = threading.Event()

    def write() -> None:
        with redis.Redis(port=store_settings.redis_port) as other:
            for start in range(0, 3_000, 50):
                put(other, STAYS, range(start, start + 50))
            ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        sweep(store, "test", STAY, [("goes", FEATURES)])
    writer.join()
    sweep(store, "test", STAY, [("goes", FEATURES)])
    assert read_back(store, "test", stored_view(STAYS), rows(STAYS, range(3_000))) == []
    assert {frozenset(store.hkeys(k)) for k in store.scan_iter()} == {frozenset(fields_of(stored_view(STAYS)))}


def test_it_is_no_faster_than_it_may_be(store: redis.Redis) -> None:
    put(store, GOES, range(500))
    said: list[int] = []
    began = time.monotonic()
    sweep(store, "test", STAY, [("goes", ())], per_second=400, progress=lambda done: said.append(done.keys))
    assert time.monotonic() - began > 0.9
    assert said[-1] == 500
    assert said == sorted(said)


def test_the_command_knows_a_views_features_by_its_table(
    store: redis.Redis,
    store_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)
    for name, value in store_settings.environment().items():
        monkeypatch.setenv(name, value)
    Lake.open(store_settings, "fraud").ensure_table("goes", GOES.schema)
    spend = load_use_case("feature_repo").view("customer_spend")
    put(store, GOES, range(3), "fraud")
    (first, *_) = sorted(store.scan_iter())
    store.hset(first, mapping={event_field("stock"): b"t", field_of("stock", "f"): b"v"})
    assert main(["sweep", "goes", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("3 keys looked at; from 3 hashes 12 fields would go\n1 fields stay")
    assert main(["sweep", "goes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": 3, "hashes": 3, "fields": 12, "left": 1}
    assert store.keys() == [first]
    assert main(["sweep", spend.name]) == 2
    assert "customer_spend is declared" in capsys.readouterr().err
