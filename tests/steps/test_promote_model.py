"""The step that moves the alias decides for itself: it may be the only one that somebody starts."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.errors import BadInput, Refused
from lockstep.parity import gate
from lockstep.training import registry
from steps.promote_model import PromoteModelInput, promote_model


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What became of the alias: nothing, as long as it is empty."""
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    found: list[Any] = []
    monkeypatch.setattr(registry, "set_alias", lambda *given, **_: found.append(given[2:4]))
    return found


def promote(**given: Any) -> int:
    return promote_model(PromoteModelInput(**{"version": 7, "report": "made-up", **given})).champion


def passing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    monkeypatch.setattr(gate, "require_passed", lambda *given: asked.append(given[4:]))
    return asked


def test_without_a_version_and_a_report_nothing_is_promoted(moved: list[Any]) -> None:
    with pytest.raises(BadInput, match="no version 7"):
        promote(approval="none")
    assert moved == []


def test_the_gate_is_asked_in_the_very_step(moved: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = passing(monkeypatch)
    assert promote(approval="none") == 7
    assert (asked, moved) == ([("7", "made-up", "")], [("champion", 7)])

    def refuse(*_: Any) -> None:
        raise Refused("version 7 is not promoted: the report is 2 days old")

    monkeypatch.setattr(gate, "require_passed", refuse)
    with pytest.raises(Refused, match="the report is 2 days old"):
        promote(approval="none")
    assert len(moved) == 1


@pytest.mark.parametrize("given", [{}, {"approval": "required"}, {"approval": "required", "decision": "no"}])
def test_what_is_not_said_is_no(moved: list[Any], monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    passing(monkeypatch)
    with pytest.raises(Refused, match=r"nobody approved it \(the answer is 'no'\)"):
        promote(**given)
    assert moved == []


def test_a_project_may_ask_for_approval_whatever_a_run_was_asked_for(
    moved: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    passing(monkeypatch)
    monkeypatch.setenv("LOCKSTEP_PROMOTION_APPROVAL", "required")
    with pytest.raises(Refused, match="approval=required"):
        promote(approval="none")
    assert promote(approval="none", decision="yes") == 7
