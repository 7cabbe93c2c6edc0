"""`lockstep ci`, whole and small: a view of another use case lives its life here, and one that is served wrong is refused."""

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mill_repository import Mill

import lockstep.views.feast  # noqa: F401 - Feast makes a temporary folder of its own where it is imported first
from feature_repo.definitions import use_case as reference
from lockstep.clock import parse_time, to_micros
from lockstep.materialize.ledger_rows import ComputeRow, Mode
from lockstep.online.reader import OnlineReader, Reading
from lockstep.parity.one_view import Held, alone
from lockstep.parity.recompute import Recomputed
from lockstep.views import hours, minutes
from lockstep.views.execution import Execution
from pipelines._ci.life import Lived, past_of, step_of
from pipelines.cli import main

SMALL = ("--size", "12", "--days", "1", "--quick")
SERVED = Held(6, 48, {}, status={"present": 6}, with_value={"t": (6, 6)})
VALUES = Recomputed(9, {"bootstrap": 24, "live": 2}, 234, 200, {})


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
    assert proof["served"]["rows"] == proof["asked"] == 101 * 6
    assert proof["served"]["status"] == {"present": 500, "missing": 6, "stale": 100}
    assert proof["served"]["values"] == 101 * 6 * (4 + 4)
    assert (proof["served"]["differing"], proof["served"]["excused"]) == ({}, 0)
    assert (proof["history"]["rows"], proof["history"]["values"], proof["history"]["differing"]) == (1_000, 4_000, {})
    [(_, (some, all_of))] = proof["served"]["with_value"].items()
    assert all_of - 1 == some
    assert proof["filled"]["pump_vibration"] > 24
    assert proof["values"]["ticks"] == {"bootstrap": 23, "live": 3}
    assert proof["values"]["values"] == proof["values"]["keys"] * 26 * 4
    assert proof["values"]["alive"] > proof["values"]["keys"] * 13
    assert (proof["values"]["differing"], proof["values"]["late"]) == ({}, [])
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
    assert "\n  served: repairs (corruption) differs in 6 rows\n" in told.out
    assert "pump_file is NOT proven in lockstep" in told.out
    assert told.err == "error: not proven in lockstep: pump_file\n"
    [kept] = scratch.glob("lockstep-ci-pump_file-*")
    assert f"kept for a look: {kept}" in told.out
    assert (kept / "ledger.db").exists()


def test_a_view_whose_live_runs_append_nothing_is_refused(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that is read later is read from the view's table: nothing but the raw source tells that it is wrong."""
    right = Execution._as_appended

    def nothing(self: Execution, row: ComputeRow, found: Any) -> Any:
        return right(self, row, found).slice(0, 0 if row.mode is Mode.LIVE else None)

    monkeypatch.setattr(Execution, "_as_appended", nothing)
    assert main(["ci", "pump_vibration", *SMALL]) == 3
    told = capsys.readouterr().out
    assert "values against the lake and training: none differ" in told
    assert "(live) is not what the raw source says, in " in told
    assert "(bootstrap) is not" not in told


def test_only_the_views_that_changed_are_tried_and_a_plan_that_refuses_one_is_enough_to_refuse_it(
    mill: Mill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ci", "--changed"]) == 0
    assert capsys.readouterr().out == "no view changed\n"
    status = {"present": 500, "missing": 6, "stale": 100}
    equal = Held(606, 4_848, {}, status=status, with_value={"t": (100, 101)})
    held = (VALUES, equal, Held(1_000, 4_000, {}))
    moments = ("after the back-fill", "after run 1")
    lived = Lived({}, {"t": 9}, *held, moments, in_model=False, asked=606, left_out=("since (timestamp)",))
    monkeypatch.setattr("pipelines._ci.life.Life.live", lambda _: lived)
    mill.edit("views/site_breakdowns.py", "delay=days(3)", "delay=days(2)")
    mill.edit("on_demand/reading.py", "_KPA_PER_BAR = 100", "_KPA_PER_BAR = 100.0")
    assert main(["ci", "--changed", *SMALL]) == 3
    told = capsys.readouterr()
    assert "plan          site_breakdowns  (stored view, site-operations): backfill\n" in told.out
    assert "served        606 of 606 rows: after the back-fill, after run 1\n" in told.out
    assert "\n              100 of 101 keys of t had a value at some moment\n" in told.out
    assert "\n              not compared: since (timestamp)\n" in told.out
    assert "\nsite_breakdowns is in lockstep, " in told.out
    assert "\nreading is NOT proven in lockstep, " in told.out
    assert "\n  plan: the change is refused\n" in told.out
    assert told.err == "error: not proven in lockstep: reading\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"served": replace(SERVED, with_value={"t": (0, 6)})},
            "served: 0 of 6 keys of t had a value at some moment, so too little is proven",
        ),
        ({"served": replace(SERVED, with_value={"t": (60, 606)})}, "served: 60 of 606 keys of t had a value"),
        ({"served": replace(SERVED, rows=5)}, "served: 5 of the 6 rows that were asked for came back"),
        ({"served": replace(SERVED, values=0)}, "served: nothing was compared"),
        ({"served": replace(SERVED, excused=2)}, "served: 2 rows differ for a reason"),
        ({"history": Held(9, 18, {"repairs": 3})}, "history: repairs differs in 3 rows"),
        (
            {"values": replace(VALUES, differing={"t:repairs (live)": 3})},
            "values: t:repairs (live) is not what the raw source says, in 3 cases",
        ),
        ({"values": replace(VALUES, late=("t is not computed at all",))}, "values: t is not computed at all"),
        ({"values": replace(VALUES, alive=0)}, "values: no key had a value at any tick"),
    ],
    ids=[
        "nothing read",
        "too little",
        "lost",
        "nothing compared",
        "excused",
        "history",
        "values",
        "late",
        "nobody alive",
    ],
)
def test_a_life_that_proves_nothing_or_differs_anywhere_is_a_problem(changes: dict[str, Any], problem: str) -> None:
    lived = Lived({}, {"t": 9}, VALUES, SERVED, Held(9, 18, {}), (), in_model=False, asked=6)
    assert lived.problems == ()
    [found] = replace(lived, **changes).problems
    assert found.startswith(problem)


def test_an_unknown_view_and_no_view_at_all_are_bad_input(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "readin"]) == 2
    assert "there is no view 'readin'\n\nHint: did you mean 'reading'?" in capsys.readouterr().err
    assert main(["ci"]) == 2
    assert main(["ci", "reading", "--changed"]) == 2


def test_a_use_case_without_a_world_is_told_what_it_takes(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    (mill.root / "mill" / "world.py").unlink()
    assert main(["ci", "reading"]) == 2
    assert "has no world to try a view in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("every", "lag", "expected"),
    [(hours(1), minutes(5), hours(1)), (minutes(10), minutes(5), minutes(20)), (hours(1), hours(2), hours(3))],
)
def test_runs_are_far_enough_apart_for_what_one_brought_to_be_readable(
    every: timedelta, lag: timedelta, expected: timedelta
) -> None:
    view = replace(reference.view("customer_spend"), every=every, visible_lag=lag)
    assert step_of([view], [view]) == expected


def test_the_past_is_asked_for_at_the_edges_of_what_was_readable() -> None:
    start = parse_time("2018-06-01T00:00:00Z")
    it = alone(reference, "customer_spend", start)
    asked = past_of(it, [{"customer_id": 1}], start, start + timedelta(days=5))
    edges = [(time - to_micros(start)) % (3_600 * 10**6) for _, time in asked]
    assert (len(asked), edges.count(600 * 10**6), edges.count(600 * 10**6 - 1)) == (1_000, 333, 333)
