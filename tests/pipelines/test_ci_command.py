"""`lockstep ci`, whole and small: a view of another use case lives its life here, and one that is served wrong is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Mill

import lockstep.views.feast  # noqa: F401 - Feast makes a temporary folder of its own where it is imported first
from lockstep.online.reader import OnlineReader, Reading
from pipelines.cli import main

SMALL = ("--size", "12", "--days", "1", "--quick")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary homes are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_view_lives_its_life_and_nothing_is_left_of_it(
    mill: Mill, scratch: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mill.root)
    (mill.root / ".lockstep").mkdir()
    (mill.root / ".lockstep/lockstep.toml").write_text('ledger_url = "sqlite:////nowhere/production.db"')
    before = {name: value for name, value in os.environ.items() if name.startswith("LOCKSTEP_")}
    assert main(["ci", "reading", *SMALL, "--json"]) == 0
    told = capsys.readouterr()
    [proof] = json.loads(told.out)
    assert (proof["view"], proof["proven"], proof["problems"]) == ("reading", True, [])
    assert proof["plan"][0].startswith("reading is as it was at ")
    # A hundred requests and one of a pump that nobody has, five times and once past the ttl of the stored view behind it.
    assert proof["served"]["rows"] == 101 * 6
    assert proof["served"]["status"] == {"present": 500, "missing": 6, "stale": 100}
    assert proof["served"]["values"] == 101 * 6 * (4 + 4)
    assert (proof["served"]["differing"], proof["served"]["excused"]) == ({}, 0)
    assert (proof["history"]["rows"], proof["history"]["values"], proof["history"]["differing"]) == (1_000, 4_000, {})
    assert proof["filled"]["pump_vibration"] > 24
    assert (proof["in_model"], proof["model"], proof["home"]) == (True, None, "")
    assert list(proof["seconds"]) == ["simulate", "apply-definitions", "backfill", "live", "compare", "total"]
    assert "backfill done in" in told.err
    assert list(scratch.iterdir()) == []
    assert {name: value for name, value in os.environ.items() if name.startswith("LOCKSTEP_")} == before


def test_a_view_that_is_served_wrong_is_refused_and_its_home_kept(
    mill: Mill, scratch: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnlineReader.read

    async def wrong(self: OnlineReader, entities: Any, times_us: Any) -> Reading:
        reading = await right(self, entities, times_us)
        repairs = reading.views["pump_file"].values["repairs"]
        repairs[0] = None if repairs[0] is None else repairs[0] + 1
        return reading

    monkeypatch.setattr(OnlineReader, "read", wrong)
    assert main(["ci", "pump_file", *SMALL]) == 3
    told = capsys.readouterr()
    # What is past its ttl is stored wrong, too, and used by nobody.
    assert (
        "\n  served: pump_file (corruption) differs in 6 rows\n  served: repairs (corruption) differs in 5 rows\n"
        in told.out
    )
    assert "pump_file is NOT proven in lockstep" in told.out
    assert told.err == "error: not proven in lockstep: pump_file\n"
    [kept] = scratch.glob("lockstep-ci-pump_file-*")
    assert f"kept for a look: {kept}" in told.out
    assert (kept / "ledger.db").exists()


def test_only_the_views_that_changed_are_tried(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "--changed"]) == 0
    assert capsys.readouterr().out == "no view changed\n"
    mill.edit("views/site_breakdowns.py", "delay=days(3)", "delay=days(2)")
    assert main(["ci", "--changed", "--json", *SMALL]) == 0
    [proof] = json.loads(capsys.readouterr().out)
    assert (proof["view"], proof["proven"]) == ("site_breakdowns", True)
    assert proof["plan"][1] == "  delay     3 d → 2 d"


def test_an_unknown_view_and_no_view_at_all_are_bad_input(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "readin"]) == 2
    assert "there is no view 'readin'\n\nHint: did you mean 'reading'?" in capsys.readouterr().err
    assert main(["ci"]) == 2
    assert main(["ci", "reading", "--changed"]) == 2


def test_a_use_case_without_a_world_is_told_what_it_takes(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    (mill.root / "mill" / "world.py").unlink()
    assert main(["ci", "reading"]) == 2
    assert "has no world to try a view in" in capsys.readouterr().err
