"""`lockstep skew` without anything to work on."""

from pathlib import Path

import click
import pytest

from pipelines._commands.skew import all_faults, given
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


def test_the_command_is_told_as_it_was_given_without_what_it_has_by_default() -> None:
    words = ["--json", "--seeds", "40", "--write", "a page.md", "--faults", "missing", "--faults", "keys"]
    above = click.Context(click.Group("lockstep"), info_name="lockstep skew")
    told = given(all_faults.make_context("all", words, parent=above))
    assert told == "lockstep skew all --faults missing --faults keys --write 'a page.md' --seeds 40 --json"
