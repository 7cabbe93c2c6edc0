"""The whole loop over a store that somebody changes behind its back."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

from demo_process import MANIFESTS, OTHERS_WARNINGS

from lockstep.lake import Lake
from lockstep.online import store
from lockstep.online.layout import field_of
from lockstep.parity.report import ParityReport
from lockstep.settings import Settings
from pipelines._commands.progress import Lines
from pipelines._demo import Demo, Scale, run_demo

pytestmark = OTHERS_WARNINGS


class TamperedDemo(Demo):
    """Somebody changes stored values behind the writer's back, and the model is served with them from then on."""

    tampered_at = 3

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Any:
        done = super()._workflow(name, tolerate_refusal=tolerate_refusal, **parameters)
        if name == "compute-and-materialize":
            self.tampered_at -= 1
            if self.tampered_at < 0:
                with store.connect(self.settings) as redis:
                    for key in redis.scan_iter(_type="hash"):
                        if redis.hexists(key, "_ts:terminal_risk"):
                            redis.hset(key, field_of("terminal_risk", "nb_tx_7d"), b"\x20\x63")  # an int64 of 99
        return done


def test_a_tampered_store_is_found_named_and_refused(tmp_path: Path) -> None:
    small = Scale(size=300, history=timedelta(days=80), days=1)
    said: list[str] = []
    report = run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(said.append), small, TamperedDemo)
    assert report["promoted"] is False
    assert report["parity"]["verdict"] == "fail"
    assert report["parity"]["mismatches"] > 0
    lake = Lake.open(Settings(home=tmp_path / "demo").resolved(), "fraud")
    texts = lake.table("parity_reports").scan().to_arrow()["json"].to_pylist()
    found = next(r for r in map(ParityReport.model_validate_json, texts) if r.hash == report["parity"]["report"])
    # Every row of the column: that is no damage to single rows, and no rule knows it.
    assert {cause for cause in found.causes if cause not in {"early", "late"}} == {"unexplained"}
    assert {d.view for d in found.differences if d.cause == "unexplained"} == {"terminal_risk"}
    assert {f.name: f.differing > 0 for f in found.features if f.view == "terminal_risk"} == {
        "nb_tx_1d": False,
        "risk_1d": False,
        "nb_tx_7d": True,
        "risk_7d": False,
        "nb_tx_30d": False,
        "risk_30d": False,
    }
    refusals = [log.read_text() for log in tmp_path.glob("demo/runs/*-promote/*gate*.log")]
    assert len(refusals) == 2
    assert all("is not promoted: the report's verdict is fail" in text for text in refusals)
