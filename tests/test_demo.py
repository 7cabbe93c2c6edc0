"""The whole loop, for real: a clean run is promoted, and a store that was tampered with is not."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.online import store
from lockstep.online.layout import field_of
from lockstep.parity.report import ParityReport
from lockstep.settings import Settings
from pipelines._demo import Demo, Scale, run_demo

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
GOLDEN = Path(__file__).parent / "golden" / "demo_report.json"

pytestmark = pytest.mark.filterwarnings(
    # Feast, MLflow and KServe are imported here in one process; their own deprecations are not ours to fix.
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def shape(value: Any) -> Any:
    """The names in a document, and what kind of value each has."""
    return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value).__name__


def test_the_demo_ends_in_a_gated_promotion_whatever_the_machines_zone_and_hash_seed(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    environment |= {"TZ": "America/New_York", "PYTHONHASHSEED": "7", "LOCKSTEP_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines", "demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert shape(report) == json.loads(GOLDEN.read_text()), "scripts read report.json: see docs/design.md, formats"
    assert report["promoted"] is True
    assert report["skew"] is None
    parity = report["parity"]
    assert parity["sampled"] >= 320
    assert (parity["mismatches"], parity["verdict"]) == (0, "pass")
    assert parity["upper_bound"] < 0.01
    assert report["model"]["auc"] > 0.7
    assert {view["watermark"] for view in report["views"].values()} == {"2018-07-01T00:00:00+00:00"}
    assert report["online_rows"] == sum(view["online_rows"] for view in report["views"].values()) > 2_500


def test_a_second_demo_in_one_home_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "demo.lock"), pytest.raises(BadInput, match="another demo is running"):
        run_demo(tmp_path, "feature_repo", MANIFESTS, print)


class TamperedDemo(Demo):
    """Somebody changes stored values behind the writer's back, and the model is served with them for a while."""

    def _live(self, lake: Any, simulator: Any, world: Any, since: datetime) -> datetime:
        super()._live(lake, simulator, world, since)
        with store.connect(self.settings) as redis:
            for key in redis.scan_iter(_type="hash"):
                if redis.hexists(key, "_ts:terminal_risk"):
                    redis.hset(key, field_of("terminal_risk", "nb_tx_7d"), b"\x20\x63")  # an int64 of 99
        self._replay()
        return self.settings.clock.now()


def test_a_tampered_store_is_found_named_and_refused(tmp_path: Path) -> None:
    small = Scale(customers=300, radius=20.0, history=timedelta(days=80), ticks=8, rows=50)
    said: list[str] = []
    report = run_demo(
        tmp_path, "feature_repo", MANIFESTS, said.append, lambda *given: TamperedDemo(*given, scale=small)
    )
    assert report["promoted"] is False
    assert report["parity"]["verdict"] == "fail"
    assert report["parity"]["mismatches"] > 0
    lake = Lake.open(Settings(home=tmp_path / "demo").resolved(), "fraud")
    (text,) = lake.table("parity_reports").scan().to_arrow()["json"].to_pylist()
    found = ParityReport.model_validate_json(text)
    assert set(found.causes) == {"corruption"}
    assert {d.view for d in found.differences} == {"terminal_risk"}
    assert {f.name: f.differing > 0 for f in found.features if f.view == "terminal_risk"} == {
        "nb_tx_1d": False,
        "risk_1d": False,
        "nb_tx_7d": True,
        "risk_7d": False,
        "nb_tx_30d": False,
        "risk_30d": False,
    }
    refusals = [log.read_text() for log in tmp_path.glob("demo/runs/*-promote/*gate*.log")]
    assert len(refusals) == 1
    assert "is not promoted: the report's verdict is fail" in refusals[0]
