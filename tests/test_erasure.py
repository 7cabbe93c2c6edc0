"""One entity is erased, everywhere, with real Iceberg tables and a real Redis; whatever happens on the way."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from pydantic import SecretStr
from pyiceberg.manifest import ManifestContent, ManifestFile

from lockstep.clock import to_micros
from lockstep.erasure import Erasure, read_key
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, Transient
from lockstep.lake import Lake
from lockstep.lake.erase import KeyInTable, Wanted
from lockstep.lake.snapshots import COMPUTE_ID, ERASURE
from lockstep.local.redis import LocalRedis
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.materialize.receipts import Erasures, ErasureState
from lockstep.online.store import connect
from lockstep.serving.drain import drain
from lockstep.serving.log_rows import SERVED_LOG, stream_key
from lockstep.settings import Settings
from pipelines.cli import main
from tests.erasure_world import CONTRACT, CUSTOMERS, GONE, SPEND, USE_CASE, T, eraser, fill, materializer, serve, tick
from tests.lake.compaction import compact

KEY = read_key(USE_CASE, "customer", str(GONE))
OTHERS = [read_key(USE_CASE, "customer", str(n)) for n in CUSTOMERS if n != GONE]
TABLES = ("transactions", "customer_spend", "terminal_risk", "training_abc", SERVED_LOG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as local:
        yield local


@pytest.fixture
def online(server: LocalRedis, settings: Settings) -> Settings:
    return server.settings(settings)


@pytest.fixture
def store(online: Settings) -> Iterator[redis.Redis]:
    with connect(online) as client:
        client.flushall()
        yield client


@pytest.fixture
def lake(online: Settings, store: redis.Redis) -> Lake:
    return fill(online, store)


def customers(rows: pa.Table) -> list[int]:
    if "entity_keys" in rows.column_names:
        return [json.loads(keys)["customer_id"] for keys in rows["entity_keys"].to_pylist()]
    return rows["customer_id"].to_pylist() if "customer_id" in rows.column_names else []


def contents(lake: Lake) -> dict[str, list[str]]:
    """The rows of each table's newest snapshot, but for those of the customer who goes."""
    found: dict[str, list[str]] = {}
    for name in TABLES:
        rows = lake.table(name).scan().to_arrow()
        gone = customers(rows)
        found[name] = sorted(str(r) for n, r in enumerate(rows.to_pylist()) if not gone or gone[n] != GONE)
    return found


def on_disk(settings: Settings, lake: Lake) -> list[str]:
    """The files of the warehouse that tell the key: data files by their rows, manifests by their bounds."""
    telling: list[str] = []
    files = [path for path in (settings.home / "warehouse").rglob("*") if path.is_file()]
    for path in files:
        if path.suffix == ".parquet":
            if GONE in customers(pq.read_table(path, partitioning=None)):
                telling.append(path.name)
        elif path.suffix == ".avro" and not path.name.startswith("snap-"):
            io = lake.table("transactions").io
            manifest = ManifestFile.from_args(
                manifest_path=f"file://{path}", partition_spec_id=0, content=ManifestContent.DATA, sequence_number=0
            )
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=False):
                bounds = [
                    *(entry.data_file.lower_bounds or {}).values(),
                    *(entry.data_file.upper_bounds or {}).values(),
                ]
                if any(
                    value == GONE.to_bytes(8, "little") or str(GONE)[:1].encode() in value[14:] for value in bounds
                ):
                    telling.append(path.name)
        elif str(GONE).encode() in path.read_bytes():
            telling.append(path.name)
    return telling


def erased(lake: Lake, store: redis.Redis) -> bool:
    holds = [
        (name, snapshot.id)
        for name in TABLES
        for snapshot in lake.snapshots(name)
        if GONE in customers(lake.table(name).scan(snapshot_id=snapshot.id).to_arrow())
    ]
    return not holds and not store.exists(KEY.online) and store.xlen(stream_key("fraud")) == 0


def test_an_entity_goes_from_everywhere_and_nobody_else_does(online: Settings, lake: Lake, store: redis.Redis) -> None:
    before = contents(lake)
    hashes = {key.online: store.dump(key.online) for key in OTHERS}
    assert store.exists(KEY.online)
    assert len(on_disk(online, lake)) > 5

    receipt = eraser(online, store).erase(KEY)

    assert erased(lake, store)
    assert on_disk(online, lake) == []
    assert {name: rows for name, rows in contents(lake).items() if name != SERVED_LOG} == {
        name: rows for name, rows in before.items() if name != SERVED_LOG
    }
    assert len(contents(lake)[SERVED_LOG]) == 4, "two of the stream's rows were drained"
    assert {key.online: store.dump(key.online) for key in OTHERS} == hashes
    assert receipt.state is ErasureState.DONE
    assert {name: t.rows for name, t in receipt.outcome.tables.items()} == {
        "transactions": 3,
        "customer_spend": 2,
        "training_abc": 1,
        SERVED_LOG: 2,
    }
    assert receipt.outcome.tables["customer_spend"].refs == {"training-abc": "training set training_abc"}
    assert receipt.outcome.tables["customer_spend"].snapshots == 3
    assert (receipt.outcome.online_keys, receipt.outcome.stream_entries) == (1, 0)
    assert Erasures.open(online, "fraud").receipts() == [receipt]


def test_the_receipt_does_not_tell_the_key(online: Settings, lake: Lake, store: redis.Redis) -> None:
    eraser(online, store).erase(KEY)
    ledger = (online.home / "ledger.db").read_bytes()
    assert KEY.sha256.encode() in ledger
    assert str(GONE).encode() not in ledger
    assert KEY.online not in ledger


def test_a_snapshot_from_before_the_entity_keeps_its_tag_and_its_files(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    eraser(online, store).erase(KEY)
    refs = lake.table("customer_spend").metadata.refs
    assert sorted(refs) == ["main", "training-before"]
    rows = lake.table("customer_spend").scan(snapshot_id=refs["training-before"].snapshot_id).to_arrow()
    assert customers(rows) == [1]


def test_files_without_the_entity_stay_and_each_row_is_still_known_to_be_of_its_snapshot(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    before = {life.path for life in lake.past("customer_spend").lives}
    eraser(online, store).erase(KEY)
    after = lake.past("customer_spend").lives
    assert [(life.born, life.died) for life in after] == [(1, None), (2, None), (4, None)]
    assert [life.born for life in after if life.path in before] == [1, 4]


def test_what_writers_said_in_expired_snapshots_is_still_known(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    eraser(online, store).erase(KEY)
    spend, log = lake.current("customer_spend"), lake.current(SERVED_LOG)
    assert spend.tick == to_micros(T + timedelta(hours=3))
    assert spend.properties[COMPUTE_ID] == "103"
    assert spend.properties[ERASURE].startswith("1/")
    assert spend.properties["total-records"] == "4"
    assert lake.snapshots("training_abc")[0].properties[CONTRACT] == "the contract"
    serve(store, 7, 1)
    assert drain(lake, store, "fraud").rows == 1
    assert lake.current(SERVED_LOG).sequence == log.sequence + 1


def test_a_view_goes_online_after_it_as_before(online: Settings, lake: Lake, store: redis.Redis) -> None:
    eraser(online, store).erase(KEY)
    spend = materializer(online, lake, store)
    spend.run()
    tick(lake, 4, 1)
    assert spend.run().rows_accepted >= 1
    assert not store.exists(KEY.online)
    assert [store.exists(key.online) for key in OTHERS] == [1, 1]


def test_erasing_again_finds_nothing_and_changes_nothing(online: Settings, lake: Lake, store: redis.Redis) -> None:
    eraser(online, store).erase(KEY)
    snapshots = {name: lake.snapshots(name) for name in TABLES}
    again = eraser(online, store).erase(KEY)
    assert again.id == 2
    assert (again.outcome.tables, again.outcome.online_keys) == ({}, 0)
    assert {name: lake.snapshots(name) for name in TABLES} == snapshots


def test_looking_changes_nothing_and_tells_what_goes(online: Settings, lake: Lake, store: redis.Redis) -> None:
    files = sorted((online.home / "warehouse").rglob("*"))
    seen = eraser(online, store).preview(KEY)
    assert sorted((online.home / "warehouse").rglob("*")) == files
    assert (seen.online_keys, seen.stream_entries) == (1, 1)
    assert Erasures.open(online, "fraud").receipts() == []
    done = eraser(online, store).erase(KEY).outcome
    same = ("transactions", "customer_spend", "training_abc")
    assert {name: seen.tables[name] for name in same} == {name: done.tables[name] for name in same}


STAGES = [
    "erasure 1",
    "3 rows of the served log drained",
    "transactions: about to go",
    "transactions: committed",
    "customer_spend: committed",
    "customer_spend: 2",
    "1 hashes",
]


@pytest.mark.parametrize("stage", STAGES)
def test_an_erasure_killed_on_the_way_is_finished_by_the_next_run(
    stage: str, online: Settings, lake: Lake, store: redis.Redis
) -> None:
    before = contents(lake)
    arguments = [str(online.home), str(online.redis_port), stage]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.erasure_world", *arguments], check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr.decode()
    (planned,) = Erasures.open(online, "fraud").receipts()
    assert planned.state is ErasureState.PLANNED

    receipt = eraser(online, store).erase(KEY)

    assert erased(lake, store)
    assert on_disk(online, lake) == []
    assert (receipt.id, receipt.state) == (planned.id, ErasureState.DONE)
    assert {name: t.rows for name, t in receipt.outcome.tables.items()} == {
        "transactions": 3,
        "customer_spend": 2,
        "training_abc": 1,
        SERVED_LOG: 2,
    }
    assert receipt.outcome.tables["customer_spend"].refs == {"training-abc": "training set training_abc"}
    assert contents(lake)["customer_spend"] == before["customer_spend"]
    assert len(Erasures.open(online, "fraud").receipts()) == 1


def test_without_a_store_nothing_goes_and_the_receipt_stays_planned(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    gone = online.model_copy(update={"redis_port": 1})
    snapshots = {name: lake.snapshots(name) for name in TABLES}
    with connect(gone) as nobody, pytest.raises(Transient, match="does not answer"):
        eraser(gone, nobody).erase(KEY)
    assert {name: lake.snapshots(name) for name in TABLES} == snapshots
    assert [r.state for r in Erasures.open(online, "fraud").receipts()] == [ErasureState.PLANNED]
    assert eraser(online, store).erase(KEY).id == 1


def during(online: Settings, store: redis.Redis, at: str, happens) -> Erasure:
    """Return an erasure during which something happens once."""
    left = [happens]
    return eraser(online, store, lambda said: left.pop()() if said.startswith(at) and left else None)


def test_a_writer_that_comes_first_is_not_lost_and_what_it_wrote_of_the_entity_goes_too(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    late = during(online, store, "customer_spend: about", lambda: tick(lake, 4, 1, GONE))
    with pytest.raises(Transient, match="another writer committed first"):
        late.erase(KEY)
    receipt = eraser(online, store).erase(KEY)
    assert erased(lake, store)
    assert receipt.outcome.tables["customer_spend"].rows == 3
    assert len(contents(lake)["customer_spend"]) == 5


def test_a_row_that_comes_behind_it_is_found_in_the_next_round(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    receipt = during(online, store, "customer_spend: 2", lambda: tick(lake, 4, GONE)).erase(KEY)
    assert erased(lake, store)
    assert receipt.outcome.tables["customer_spend"].rows == 3


def test_of_two_at_once_each_goes_and_the_files_of_both(online: Settings, lake: Lake, store: redis.Redis) -> None:
    other = OTHERS[1]
    receipt = during(online, store, "customer_spend: committed", lambda: eraser(online, store).erase(other)).erase(KEY)
    assert erased(lake, store)
    assert on_disk(online, lake) == []
    assert set(customers(lake.table("customer_spend").scan().to_arrow())) == {1}
    assert receipt.outcome.tables["customer_spend"].rows == 2
    assert not store.exists(other.online)


def test_nothing_begins_while_an_interval_is_being_written(online: Settings, lake: Lake, store: redis.Redis) -> None:
    tick(lake, 4, GONE)
    spend = materializer(online, lake, store)
    spend.plan()
    with pytest.raises(
        Transient, match=r"interval 3 of customer_spend is being brought online(.|\n)*lockstep materialize"
    ):
        eraser(online, store).erase(KEY)
    assert Erasures.open(online, "fraud").receipts() == []
    spend.run()
    eraser(online, store).erase(KEY)
    assert erased(lake, store)


def test_an_interval_that_is_planned_meanwhile_cannot_bring_it_back_unseen(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    tick(lake, 4, GONE)
    spend = materializer(online, lake, store)
    with pytest.raises(Transient, match="as it was with the entity"):
        during(online, store, "customer_spend: about", spend.plan).erase(KEY)
    assert [r.state for r in Erasures.open(online, "fraud").receipts()] == [ErasureState.PLANNED]


def test_ticks_that_are_planned_meanwhile_are_computed_from_what_is_left(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    ledger = Ledger.open(online, "fraud")
    old = {"transactions": lake.current("transactions").id}
    plan = lambda: ledger.plan_compute(SPEND.name, Mode.LIVE, T, T + timedelta(hours=1), old, T)  # noqa: E731
    with pytest.raises(Transient, match="from transactions as it was with the entity"):
        during(online, store, "transactions: about", plan).erase(KEY)
    (row,) = ledger.computes(SPEND.name)
    assert row.sources == {"transactions": lake.current("transactions").id} != old
    ledger.commit_compute(row, 1, 0, T)
    assert eraser(online, store).erase(KEY).id == 1
    assert erased(lake, store)


def test_a_row_of_the_log_that_waits_behind_the_drain_goes_from_the_stream(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    receipt = during(online, store, "3 rows", lambda: serve(store, 7, 1, GONE)).erase(KEY)
    assert receipt.outcome.stream_entries == 1
    assert drain(lake, store, "fraud").rows == 1
    assert erased(lake, store)


def test_where_the_log_has_a_redis_of_its_own_it_goes_from_there(
    online: Settings, lake: Lake, store: redis.Redis, tmp_path: Path
) -> None:
    store.delete(stream_key("fraud"))
    with LocalRedis(tmp_path) as other, redis.Redis(port=other.port) as log:
        url = SecretStr(f"redis://127.0.0.1:{other.port}/0")
        there = online.model_copy(update={"served_log_url": url})
        serve(log, 4, *CUSTOMERS)
        assert eraser(there, store).preview(KEY).stream_entries == 1

        receipt = during(there, store, "3 rows", lambda: serve(log, 7, 1, GONE)).erase(KEY)

        assert (receipt.outcome.stream_entries, receipt.outcome.tables[SERVED_LOG].rows) == (1, 2)
        assert drain(lake, log, "fraud").rows == 1
        assert log.xlen(stream_key("fraud")) == 0
    assert erased(lake, store)


def test_of_each_stream_it_stays_known_up_to_where_it_was_drained(
    online: Settings, lake: Lake, store: redis.Redis, tmp_path: Path
) -> None:
    gone = redis.ConnectionError("gone")
    with patch.object(redis.Redis, "xtrim", side_effect=gone), pytest.raises(Transient):
        drain(lake, store, "fraud")  # three rows are in the lake, and in the stream still
    with LocalRedis(tmp_path) as other, redis.Redis(port=other.port) as log:
        url = SecretStr(f"redis://127.0.0.1:{other.port}/0")
        serve(log, 7, *CUSTOMERS)
        eraser(online.model_copy(update={"served_log_url": url}), store).erase(KEY)
    rows = len(contents(lake)[SERVED_LOG])

    assert drain(lake, store, "fraud").rows == 0
    assert len(contents(lake)[SERVED_LOG]) == rows == 6


def test_a_compaction_does_not_hide_it(online: Settings, lake: Lake, store: redis.Redis) -> None:
    compact(lake.table("customer_spend"))
    tick(lake, 4, 1)
    before = contents(lake)
    eraser(online, store).erase(KEY)
    assert erased(lake, store)
    assert on_disk(online, lake) == []
    assert contents(lake)["customer_spend"] == before["customer_spend"]


def test_files_that_only_snapshots_left_behind_are_removed(online: Settings, lake: Lake, store: redis.Redis) -> None:
    compact(lake.table("customer_spend"))
    table = lake.table("customer_spend")
    kept = {r.snapshot_id for r in table.metadata.refs.values()}
    table.maintenance.expire_snapshots().by_ids(
        [s.snapshot_id for s in table.snapshots() if s.snapshot_id not in kept]
    ).commit()
    eraser(online, store).erase(KEY)
    assert erased(lake, store)
    spend = [name for name in on_disk(online, lake) if name.endswith(".parquet")]
    assert spend == []


@pytest.mark.parametrize(
    ("dtype", "value"), [(pa.int32(), 7), (pa.int64(), -7), (pa.string(), "seven-and-much-more-than-16")]
)
def test_keys_of_each_type_are_found(settings: Settings, dtype: pa.DataType, value: int | str) -> None:
    lake = Lake.open(settings, "types")
    other = value + 1 if isinstance(value, int) else f"{value}!"
    rows = pa.table({"id": pa.array([value, other, None, value], dtype)})
    lake.ensure_table("t", rows.schema)
    lake.append("t", rows)
    inside = KeyInTable(lake.table("t"), Wanted("id", value))
    held = inside.held()
    assert held.rows == 2
    inside.erase(held, "mark")
    assert lake.table("t").scan().to_arrow()["id"].to_pylist() == [other, None]
    assert KeyInTable(lake.table("t"), Wanted("id", value)).held() is None


def test_a_table_with_the_key_in_another_type_is_refused_before_anything_goes(
    online: Settings, lake: Lake, store: redis.Redis
) -> None:
    lake.ensure_table("zz_notes", pa.schema([("customer_id", pa.string())]))
    with pytest.raises(SchemaDrift, match=r"zz_notes has customer_id as .*string"):
        eraser(online, store).erase(KEY)
    assert Erasures.open(online, "fraud").receipts() == []


def test_a_table_that_once_had_the_column_is_refused(online: Settings, lake: Lake, store: redis.Redis) -> None:
    with lake.table("training_abc").update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("customer_id")
    with pytest.raises(NotYetSupported, match="training_abc had a column customer_id"):
        eraser(online, store).preview(KEY)


@pytest.mark.parametrize(
    ("entity", "key", "said"),
    [
        ("custmer", "1", "did you mean 'customer'"),
        ("customer", "one", "customer_id is an int64"),
        ("customer", str(1 << 63), "does not fit int64"),
    ],
)
def test_what_is_no_entity_is_refused(entity: str, key: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read_key(USE_CASE, entity, key)


def test_the_command_says_what_would_go_then_what_went(
    online: Settings,
    lake: Lake,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)
    for name, value in online.environment().items():
        monkeypatch.setenv(name, value)
    asked = ["erase", "--entity", "customer", "--key", str(GONE)]
    assert main([*asked, "--dry-run"]) == 0
    would = capsys.readouterr().out
    assert "customer_spend: 2 rows, 3 snapshots" in would
    assert "  with training-abc (training set training_abc)" in would
    assert "online: 1 hashes, 1 waiting rows of the served log would go" in would
    assert main(asked) == 0
    assert f"receipt 1: the customer of SHA-256 {KEY.sha256}, done" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["id"], document["state"], document["outcome"]["tables"]) == (2, "done", {})
    assert erased(lake, store)
