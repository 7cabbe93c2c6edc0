"""`lockstep materialize`, `repair` and `doctor`, with a real Redis."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from lockstep.clock import parse_time, to_micros
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.local.redis import LocalRedis
from lockstep.online.store import connect
from lockstep.settings import Settings
from lockstep.views import load_use_case
from pipelines.cli import main

T = parse_time("2018-06-01T12:00:00Z")
VIEW = load_use_case("feature_repo").view("customer_spend")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["redis.Redis"]:
    """The store of a home in which one view was computed for two customers."""
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)
    with LocalRedis(tmp_path) as server:
        settings = server.settings(Settings.load())
        monkeypatch.setenv("LOCKSTEP_REDIS_PORT", str(server.port))
        lake = Lake.open(settings, "fraud")
        lake.ensure_table(VIEW.table, VIEW.schema, "event_timestamp")
        times = {"event_timestamp": T, "created_timestamp": T}
        rows = [{"customer_id": number, "nb_tx_1d": number, **times} for number in (1, 2)]
        lake.append(VIEW.table, pa.Table.from_pylist(rows, VIEW.schema), {TICK: str(to_micros(T))})
        with connect(settings) as client:
            yield client


def test_a_view_goes_online_is_found_damaged_and_is_repaired(
    store: "redis.Redis", capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "customer_spend"]) == 3
    said = capsys.readouterr()
    assert said.out == "customer_spend: nothing is online: `lockstep materialize customer_spend`\n"
    assert said.err == "error: the online store is not as it should be: customer_spend\n"

    assert main(["materialize", "customer_spend"]) == 0
    assert capsys.readouterr().out == (
        "customer_spend: interval 1 (interval) is online, 2 keys written, 0 were newer; "
        "watermark 2018-06-01T12:00:00+00:00\n"
    )
    assert main(["materialize", "customer_spend", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"view": "customer_spend", "interval": None}]
    assert main(["doctor", "customer_spend"]) == 0
    assert capsys.readouterr().out == "customer_spend: 2 keys are as in the lake\n"

    store.delete(next(key for key in store.scan_iter() if not key.startswith(b"lockstep:")))
    assert main(["doctor", "customer_spend", "--json"]) == 3
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["keys"], found["differing"]) == (2, 1)
    assert main(["repair", "customer_spend"]) == 0
    assert "interval 2 (repair) is online, 2 keys written" in capsys.readouterr().out
    assert main(["doctor", "customer_spend"]) == 0


def test_an_unknown_view_is_refused_before_anything_is_done(
    store: "redis.Redis", capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["materialize", "customer_spend", "customer_spent"]) == 2
    assert "customer_spend" in capsys.readouterr().err
    assert store.dbsize() == 0


def test_a_store_that_does_not_answer_is_named(
    store: "redis.Redis", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKSTEP_REDIS_PORT", "1")
    assert main(["doctor", "customer_spend"]) == 1
    assert "the online store does not answer" in capsys.readouterr().err
