"""The demo's materialization is killed twice, and its store flushed once: rerun, parity finds nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, State
from lockstep.online import store
from lockstep.settings import Settings
from pipelines._commands.progress import Lines
from pipelines._demo import Demo, Scale, run_demo

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys
from pathlib import Path
from pipelines.local import load_template, run_workflow
manifests, logs, name, parameters = sys.argv[1:]
run_workflow(load_template(Path(manifests), name), json.loads(parameters), logs_dir=Path(logs))
"""
VIEW = "terminal_risk"


class UnluckyDemo(Demo):
    """Its hourly workflow is killed while a view is being written, and its store is flushed just before another run."""

    runs = 0
    killed = 0

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Any:
        if name == "compute-and-materialize":
            self.runs += 1
            if self.runs in {2, 5}:
                self._killed(parameters)
            if self.runs == 4:
                super()._workflow("drain-served-log")  # what was served is not what this is about
                with store.connect(self.settings) as redis:
                    redis.flushall()
        return super()._workflow(name, tolerate_refusal=tolerate_refusal, **parameters)

    def _killed(self, parameters: dict[str, str]) -> None:
        """Run the workflow in a process of its own, and kill it once the ledger says that the view is being written."""
        logs = self.settings.home / "runs" / f"{time.time_ns()}-killed"
        arguments = [str(self.manifests), str(logs), "compute-and-materialize", json.dumps(parameters)]
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, *arguments], cwd=ROOT, env=os.environ)
        ledger = Ledger.open(self.settings, "fraud")
        while process.poll() is None:
            rows = ledger.materializations(VIEW)
            if rows and rows[-1].state is not State.COMMITTED:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self.killed += ledger.materializations(VIEW)[-1].state is not State.COMMITTED


@pytest.mark.filterwarnings("ignore")
def test_parity_holds_after_kills_and_a_flush(tmp_path: Path) -> None:
    demos: list[UnluckyDemo] = []

    def unlucky(*given: Any) -> UnluckyDemo:
        demos.append(UnluckyDemo(*given))
        return demos[0]

    report = run_demo(tmp_path, "feature_repo", ROOT / "manifests", Lines(print), Scale(size=800, days=2), unlucky)
    assert demos[0].killed == 2
    ledger = Ledger.open(Settings(home=tmp_path / "demo").resolved(), "fraud")
    intervals = ledger.materializations(VIEW)
    assert {row.state for row in intervals} == {State.COMMITTED}
    assert [row for row in intervals if row.writes_from < row.sequence_from or row.mode is Mode.REPAIR]
    assert (report["parity"]["verdict"], report["parity"]["mismatches"]) == ("pass", 0)
    assert report["promoted"]
    assert report["skew"]["parity"]["differing"] == {"risk_7d": "wrong_row"}
