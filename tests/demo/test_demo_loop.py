"""The whole loop, for real: a clean model is promoted, a misread one is not; and all of it can be run again."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from demo_process import MANIFESTS, OTHERS_WARNINGS, ROOT, start_demo
from schemas import problems

from lockstep.lake import Lake
from lockstep.local.redis import LocalRedis
from lockstep.parity.schema import report_schema
from lockstep.settings import Settings
from lockstep.training.registry import CHAMPION, PREVIOUS, find_model
from pipelines._run.leaves import Terms
from pipelines.cli import main
from pipelines.local import Run, load_library, load_template, run_workflow

GOLDEN = ROOT / "tests" / "golden" / "demo_report.json"

pytestmark = OTHERS_WARNINGS


BY_NAME = {"causes", "differing", "flags"}
"""What was found, by its name: which names there are is not the format's."""


def shape(value: Any, name: str = "") -> Any:
    """The names in a document, and what kind of value each has."""
    if isinstance(value, dict) and name not in BY_NAME:
        return {k: shape(v, k) for k, v in value.items()}
    return type(value).__name__


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo that ran whole, in another zone and with another hash seed, and what it printed."""
    home = tmp_path_factory.mktemp("demo")
    process = start_demo(home, "--size", "800", "--days", "2", TZ="America/New_York", PYTHONHASHSEED="7")
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return home / "demo", said


def test_the_demo_promotes_the_clean_model_and_refuses_the_skewed_one_whatever_the_machines_zone_and_hash_seed(
    demo: tuple[Path, str],
) -> None:
    folder, said = demo
    report = json.loads((folder / "report.json").read_text())
    assert shape(report) == json.loads(GOLDEN.read_text()), "scripts read report.json: see docs/design.md, formats"
    views, quality, parity, skew = report["views"], report["quality"], report["parity"], report["skew"]
    assert list(views) == [
        "customer_profile",
        "customer_spend",
        "terminal_static",
        "terminal_activity",
        "terminal_risk",
    ]
    watermarks = {name: view["watermark"] for name, view in views.items()}
    midnight = "2018-07-02T00:00:00+00:00"
    assert watermarks == dict.fromkeys(views, midnight)
    assert {view["freshness"] for view in views.values()} == {"fresh"}
    assert report["online_rows"] == sum(view["online_rows"] for view in views.values()) > 4 * 800

    assert report["promoted"] is True
    assert (parity["verdict"], parity["mismatches"], parity["causes"].get("wrong_row", 0)) == ("pass", 0, 0)
    assert parity["sampled"] >= 320
    assert parity["upper_bound"] < 0.01
    assert report["fallback_parity"]["verdict"] == "pass"
    assert report["fallback_parity"]["report"] != parity["report"]
    assert "its fallback's parity pass: 0 mismatches in 400 rows of a replay" in said

    assert skew["promoted"] is False
    assert skew["parity"]["verdict"] == "fail"
    assert skew["parity"]["mismatches"] > 0
    assert skew["parity"]["differing"] == {"risk_7d": "wrong_row"}
    # Offline nothing tells the two apart, and served they are not the same.
    assert skew["model"]["average_precision"] == report["model"]["average_precision"]
    assert skew["model"]["digest"] != report["model"]["digest"]
    assert quality["after"] != quality["skewed"]
    assert quality["after"]["auc"] > quality["before"]["auc"]
    assert quality["after"]["average_precision"] > quality["before"]["average_precision"]
    assert skew["average_precision_drop"] > 0

    served = report["served"]
    # Its runs keep a soft objective of three hours but for their lags; the fallback answers where a replay has it answer.
    assert served["fresh"] > served["flagged"] > 0
    assert (set(served["flags"]), served["fallback"]) == ({"customer_spend:late"}, 400)
    assert f"version 2  served {served['rows']:,} rows: {served['fresh']:,} fresh" in said

    assert "average precision" in (folder / "evaluation.html").read_text()
    page = (folder / "parity.html").read_text()
    verdicts = [page.index("Version 2 passes"), page.index("Version 3 is refused")]
    assert verdicts == sorted(verdicts)
    assert "risk_7d" in page
    assert "wrong_row" in page
    assert not re.search(r"\b(live|promote): \d+ of \d+.*\x1b", said), "no bars where nobody looks"
    assert "live: 24 of 48" in said


@pytest.fixture(scope="module")
def settings(demo: tuple[Path, str]) -> Iterator[Settings]:
    """The demo's home, with an empty online store: as after a loss of it."""
    folder, _ = demo
    with pytest.MonkeyPatch.context() as patch, LocalRedis(folder) as store:
        for name in [name for name in os.environ if name.startswith("LOCKSTEP_")]:
            patch.delenv(name)
        resolved = store.settings(Settings(home=folder, clock_file=folder / "clock").resolved())
        for name, value in resolved.environment().items():
            patch.setenv(name, value)
        yield resolved


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Callable[..., Run]:
    def start(name: str, *, approvals: dict[str, str] | None = None, **parameters: str) -> Run:
        manifest = load_template(MANIFESTS, name)
        library, terms = load_library(MANIFESTS, manifest), Terms(approvals=approvals or {})
        return run_workflow(manifest, parameters, logs_dir=tmp_path / name, library=library, terms=terms)

    return start


@pytest.fixture
def window(demo: tuple[Path, str]) -> dict[str, str]:
    """The time in which the demo's candidates were dark."""
    return {"since": "2018-06-30T00:00:00Z", "until": "2018-07-02T00:00:00Z"}


def champion(settings: Settings) -> tuple[int | None, int | None]:
    found = [find_model(settings, "fraud", alias) for alias in (CHAMPION, PREVIOUS)]
    return found[0].version if found[0] else None, found[1].version if found[1] else None


def test_a_promotion_that_is_run_again_is_decided_again_and_changes_nothing(settings, run, window) -> None:
    before = champion(settings)
    assert before == (2, None)
    again = run("promote", model="2", **window)
    assert (again.succeeded, again.outputs["champion"], again.outputs["verdict"]) == (True, "2", "pass")
    assert re.fullmatch(rf"runs:/\w+/parity/{again.outputs['report']}\.html", again.outputs["address"])
    assert champion(settings) == before


def test_a_promotion_that_somebody_has_to_approve_waits_for_the_yes(settings, run, window) -> None:
    nobody = run("promote", model="2", approval="required", **window)
    assert (nobody.exit_code, nobody.failed and nobody.failed.name) == (3, "approve")
    no = run("promote", model="2", approval="required", approvals={"approve": "no"}, **window)
    assert (no.exit_code, no.failed and no.failed.name) == (3, "promote")
    assert "nobody approved it" in str(no.failed and no.failed.message)
    yes = run("promote", model="2", approval="required", approvals={"approve": "yes"}, **window)
    assert (yes.succeeded, champion(settings)) == (True, (2, None))


def test_a_refused_model_is_refused_before_anybody_is_asked(run, window) -> None:
    ended = run("promote", model="3", approval="required", **window)
    assert (ended.exit_code, ended.failed and ended.failed.name) == (3, "gate")


def test_parity_that_must_pass_ends_the_run_as_refused_and_keeps_its_report(run, window) -> None:
    good = run("verify-parity", model="champion", shadow="true", strict="true", **window)
    assert (good.succeeded, good.outputs["verdict"]) == (True, "pass")
    bad = run("verify-parity", model="3", shadow="true", strict="true", **window)
    assert bad.exit_code == 3
    assert "parity of 3 is fail, not pass (report " in str(bad.failed and bad.failed.message)
    # What is only judged is a result.
    assert run("verify-parity", model="3", shadow="true", **window).outputs["verdict"] == "fail"


def test_parity_is_verified_from_the_console_too(settings, window, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["parity", "verify", "--shadow", "--since", window["since"], "--until", window["until"]]
    assert main([*asked, "--model", "3"]) == 3
    said = capsys.readouterr().out
    assert re.match(r"Version 3 is refused: \d+ of 400 sampled rows are mismatches\n", said)
    assert re.search(r"risk_7d of terminal_risk: wrong_row, \d+ rows", said)
    assert "\n      lockstep doctor terminal_risk\n" in said
    places = dict(re.findall(r"^(page|in MLflow|report) +(.*)", said, re.MULTILINE))
    name = places["report"].removesuffix(", signed")
    assert places["page"] == str(settings.home / "parity" / f"{name}.html")
    artifact = Path(*Path(places["in MLflow"].removeprefix("runs:/")).parts[:1], "artifacts", "parity", f"{name}.html")
    assert (settings.home / "mlartifacts" / artifact).read_text() == Path(places["page"]).read_text()

    assert main([*asked, "--rows", "50", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["model"]["version"]) == ("pass", 2)
    assert report["sample"]["uniform"] == report["sample"]["required"] == 299
    assert list(problems(report, report_schema(), report_schema())) == []

    assert main(["parity", "verify", "--until", window["since"]]) == 3
    assert "cannot be judged yet" in capsys.readouterr().out


def test_the_window_of_parity_is_a_day_before_its_end_if_no_beginning_is_given(run, window) -> None:
    ended = run("verify-parity", model="2", shadow="true", until=window["until"])
    assert (ended.succeeded, ended.outputs["verdict"]) == (True, "pass")


def test_a_drain_without_news_moves_nothing(run) -> None:
    assert run("drain-served-log").outputs == {"rows": "0"}


def test_a_lost_store_is_what_the_monitor_does_not_see_and_the_next_run_mends(settings, run) -> None:
    ended = run("monitor")
    assert (ended.outputs["late"], ended.outputs["unfinished"]) == ("0", "0")
    settings.clock.advance_to(settings.clock.now() + timedelta(days=10))
    late = run("monitor").outputs
    assert json.loads(late["names"]) == [
        "customer_profile",
        "customer_spend",
        "terminal_static",
        "terminal_activity",
        "terminal_risk",
    ]
    assert float(late["oldest_seconds"]) > 10 * 86_400


def test_what_maintenance_lets_go_is_missed_by_nobody(settings, run, window, monkeypatch) -> None:
    lake = Lake.open(settings, "fraud")
    tables = ["transactions", "customer_spend", "terminal_risk", "served_log"]
    before = {name: len(lake.snapshots(name)) for name in tables}
    with monkeypatch.context() as patch:
        for name in ("SNAPSHOTS_KEEP", "PARITY_MAX_AGE", "CORRECTIONS_KEEP"):
            patch.setenv(f"LOCKSTEP_{name}", "PT0S")
        would = run("maintain-lake", dry_run="true")
        assert {name: len(lake.snapshots(name)) for name in tables} == before
        done = run("maintain-lake")
        assert int(done.outputs["snapshots"]) == int(would.outputs["snapshots"]) > 50
        assert int(done.outputs["files"]) > 50
        assert run("maintain-lake").outputs == {"snapshots": "0", "files": "0"}
    after = {name: len(lake.snapshots(name)) for name in tables}
    assert all(after[name] < before[name] for name in tables)
    model = find_model(settings, "fraud", "2")
    assert model is not None
    for cut in model.contract.cut.tables:
        assert lake.snapshot(cut.table, cut.snapshot_id).id == cut.snapshot_id
    assert run("verify-parity", model="2", shadow="true", **window).outputs["verdict"] == "pass"
    end = settings.clock.now().isoformat()
    computed = run("compute-and-materialize", window_end=end)
    assert computed.succeeded, computed.failed
