"""`lockstep views` says who owns a view, what it promises, who uses it and how far it has come, also before anything ran."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines._commands.views import duration
from pipelines.cli import main


@pytest.fixture(autouse=True)
def empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)


def test_all_views_are_listed_with_owner_objective_ttl_and_services(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["terminal_risk"].split()[1:6] == ["windowed", "risk-operations", "6", "h", "hard"]
    assert lines["terminal_risk"].endswith("never      fraud_v1, fraud_v2")
    assert lines["customer_profile"].endswith("none")
    assert "payment_only" in lines["payment"]


def test_one_view_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "customer_spend", "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["owner"], view["objective"], view["hard"], view["rows"], view["watermark"]) == (
        "payments-analytics",
        3 * 3600.0,
        False,
        0,
        None,
    )
    assert view["services"] == ["fraud_v1", "fraud_v2", "fraud_v2_fallback"]
    assert view["features"]["amount_cents_squared_30d"] == "int64"
    assert main(["views", "customer_spend"]) == 0
    assert "3 h soft" in capsys.readouterr().out


def test_the_longest_name_of_a_feature_stands_apart_from_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "customer_spend"]) == 0
    shown = capsys.readouterr().out.split("\nfeatures\n")
    facts, features = shown[0].splitlines()[2:], shown[1].splitlines()
    longest = max(features, key=lambda line: len(line.split()[0]))
    assert longest == "  amount_cents_squared_30d  int64"
    assert {line.index(line.split()[1]) for line in (*facts, *features)} == {len(longest) - len("int64")}


def test_looking_at_a_home_that_is_not_there_makes_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["views", "--json"]) == 0
    told = capsys.readouterr()
    assert {view["freshness"] for view in json.loads(told.out)} == {"never", ""}
    assert told.err.startswith(f"nothing has run in {tmp_path / 'home'} yet")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_there_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").mkdir()
    assert main(["views"]) == 0
    assert capsys.readouterr().err == ""


def test_a_view_that_is_not_there_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "terminal_risks"]) == 2
    assert "there is no view 'terminal_risks'\n\nHint: did you mean 'terminal_risk'" in capsys.readouterr().err


def test_a_duration_is_told_as_a_person_would() -> None:
    assert [duration(timedelta(**d)) for d in ({"minutes": 5}, {"hours": 26}, {"days": 7})] == ["5 min", "26 h", "7 d"]
