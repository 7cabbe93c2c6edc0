"""The checker of the exit test: what it accepts, what it says of a wrong answer, and that the answer cannot be read."""

from pathlib import Path

import pytest

from lockstep.parity.cause import Cause
from pipelines._exit_test.sealed import Answer, Part, Sealed
from pipelines.cli import main

GAP = Answer("materialization_gap", "pump_load")
CLOCK = Answer("clock_skew", hours=-7)


def test_the_right_answer_is_accepted_whatever_is_said_beside_it() -> None:
    assert Sealed.of(GAP).wrong(GAP) == []
    assert Sealed.of(GAP).wrong(Answer("materialization_gap", "pump_load", hours=4)) == []
    assert Sealed.of(CLOCK).wrong(Answer("clock_skew", "pump_load", -7)) == []


@pytest.mark.parametrize(
    ("right", "said", "wrong"),
    [
        (GAP, Answer("schema_drift", "pump_load"), [Part.CAUSE]),
        (GAP, Answer("schema_drift", "pump_file"), [Part.CAUSE]),
        (GAP, Answer("materialization_gap", "pump_file"), [Part.VIEW]),
        (GAP, Answer("materialization_gap"), [Part.VIEW]),
        (CLOCK, Answer("clock_skew"), [Part.HOURS]),
        (CLOCK, Answer("clock_skew", hours=7), [Part.HOURS]),
        (CLOCK, Answer("schema_drift", hours=-7), [Part.CAUSE]),
    ],
)
def test_a_wrong_answer_is_told_in_which_part(right: Answer, said: Answer, wrong: list[Part]) -> None:
    assert Sealed.of(right).wrong(said) == wrong


def test_the_hours_of_a_clock_may_be_off_by_one() -> None:
    sealed = Sealed.of(CLOCK)
    accepted = [hours for hours in range(-12, 13) if not sealed.wrong(Answer("clock_skew", hours=hours))]
    assert accepted == [-8, -7, -6]


def test_the_answer_is_not_to_be_read_in_the_file(tmp_path: Path) -> None:
    Sealed.of(GAP).write(tmp_path)
    text = (tmp_path / "sealed.json").read_text()
    assert not any(word in text for word in (*Cause, "pump_load"))
    assert Sealed.read(tmp_path).wrong(GAP) == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
    folder = tmp_path / "exit-test" / "first"
    folder.mkdir(parents=True)
    Sealed.of(GAP).write(folder)
    return folder


def test_the_command_ends_with_0_3_and_2_and_says_where_to_look_but_not_what_is_right(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["exit-test", "check", "first"]
    assert main([*check, "--cause", GAP.cause, "--view", GAP.view]) == 0
    assert capsys.readouterr().out == "first: that is it\n"
    assert main([*check, "--cause", GAP.cause, "--view", "pump_file"]) == 3
    said = capsys.readouterr().err
    assert "first: not right yet: view" in said
    assert "lockstep views" in said
    assert GAP.view not in said
    assert main([*check, "--cause", "schema_drift", "--view", GAP.view]) == 3
    assert "not right yet: cause\n" in capsys.readouterr().err
    assert main([*check, "--cause", "drift"]) == 2
    assert "'drift' is none of early, late" in capsys.readouterr().err
    assert main(["exit-test", "check", "second", "--cause", GAP.cause]) == 2
    assert "`lockstep exit-test begin` prepares it" in capsys.readouterr().err
