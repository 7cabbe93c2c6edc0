"""`lockstep backfill`, with a real Redis and a real lake."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.definitions import use_case
from lockstep.clock import parse_time
from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.settings import Settings
from lockstep.views.compute import compute
from pipelines.cli import main

T = parse_time("2018-06-01T12:00:00Z")
VIEW = use_case.view("customer_profile")
RANGE = ["--from", "2018-05-30T00:00:00Z", "--to", "2018-06-01T12:00:00Z"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    """A home in which one customer's profile is in the source, and its clock stands after T."""
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
    monkeypatch.setenv("LOCKSTEP_CLOCK_FILE", str(tmp_path / "clock"))
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)
    with LocalRedis(tmp_path) as server:
        monkeypatch.setenv("LOCKSTEP_REDIS_PORT", str(server.port))
        settings = Settings.load()
        settings.clock.advance_to(T + timedelta(minutes=30))
        lake = Lake.open(settings, "fraud")
        time = pa.timestamp("us", tz="UTC")
        names = {VIEW.entity.join_key: pa.int64(), VIEW.source.event_time: time, VIEW.source.known_at: time}
        schema = pa.schema(names | {f.name: f.type for f in VIEW.schema if f.name in VIEW.features})
        known = dict.fromkeys((VIEW.source.event_time, VIEW.source.known_at), T - timedelta(days=1, hours=20))
        lake.ensure_table(VIEW.source.table, schema)
        lake.append(VIEW.source.table, pa.Table.from_pylist([known | {VIEW.entity.join_key: 7}], schema))
        yield settings


def test_a_range_is_shown_then_computed_and_brought_online(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger.open(home, "fraud")
    day = VIEW.every >= timedelta(days=1)
    last = "2018-06-01T00:00:00+00:00" if day else "2018-06-01T12:00:00+00:00"
    line = f"customer_profile: bootstrap the ticks after 2018-05-30T00:00:00+00:00 up to {last}\n"
    assert main(["backfill", VIEW.name, *RANGE, "--dry-run"]) == 0
    assert capsys.readouterr().out == line
    assert ledger.computes(VIEW.name) == []

    assert main(["backfill", VIEW.name, *RANGE]) == 0
    said = capsys.readouterr().out
    assert said.startswith(line)
    assert f"rows written; computed up to {last}\n" in said
    assert "customer_profile: interval 1 (interval) is online, 1 keys written" in said

    assert main(["backfill", VIEW.name, *RANGE, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert ([part["mode"] for part in again["parts"]], again["rows"]) == (["correct"], 0)
    assert [row.mode for row in ledger.computes(VIEW.name)] == [Mode.BOOTSTRAP, Mode.CORRECT]


def test_an_unknown_view_and_a_time_without_a_zone_are_refused(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backfill", "customer_profil", *RANGE]) == 2
    assert "did you mean 'customer_profile'" in capsys.readouterr().err
    assert main(["backfill", VIEW.name, "--from", "2018-05-30T00:00:00", "--to", "2018-06-01T00:00:00Z"]) == 2
    assert "--from" in capsys.readouterr().err
    assert Ledger.open(home, "fraud").computes(VIEW.name) == []


def test_computed_ticks_are_corrected_and_earlier_ones_bootstrapped(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    compute(home, Lake.open(home, "fraud"), Ledger.open(home, "fraud"), VIEW, T)
    assert main(["backfill", VIEW.name, *RANGE, "--dry-run", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert [part["mode"] for part in parts] == ["correct", "bootstrap"]
    assert parts[0]["after"] == parts[1]["last"]
