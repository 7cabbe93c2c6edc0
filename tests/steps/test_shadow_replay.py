"""What the step hands on of a replay, and of one that is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lockstep.errors import Refused
from lockstep.serving import shadow
from lockstep.serving.shadow import Replayed
from lockstep.training import registry
from steps.shadow_replay import ShadowReplayInput, shadow_replay


def test_the_step_hands_on_how_many_were_scored_and_how_many_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def replay(*given: Any, fallback: bool) -> Replayed:
        asked.append((*given[3:], fallback))
        if len(asked) > 1:
            raise Refused("the service rejected 30 of the 40 rows")
        return Replayed(scored=37, rejected=3)

    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(registry, "require_model", lambda *_: SimpleNamespace(contract="c", digest="d"))
    monkeypatch.setattr(shadow, "replay", replay)

    made = shadow_replay(ShadowReplayInput(rows=40, batch=20))
    assert (made.scored, made.rejected) == (37, 3)
    assert asked == [("c", "d", 40, 20, False)]
    with pytest.raises(Refused, match="30 of the 40"):
        shadow_replay(ShadowReplayInput())
