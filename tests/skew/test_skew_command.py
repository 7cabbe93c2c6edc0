"""`lockstep skew` without anything to work on."""

from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.mark.parametrize("arguments", [["list"], ["run", "missing"], ["all", "--days", "1"]])
def test_without_a_finished_state_it_says_which_command_makes_one(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
    assert main(["skew", *arguments]) == 2
    said = capsys.readouterr().err
    assert "holds no finished state" in said
    assert "lockstep demo" in said
