"""The script runs and writes what it says; how fast is for a calm machine to tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_writes_a_row_of_positive_numbers_for_each_case(tmp_path: Path) -> None:
    file = tmp_path / "run_nodes.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    command = [sys.executable, "-m", "benchmarks.run_nodes", "--quick", "--json", str(file)]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text())
    assert [row.pop("case") for row in rows] == [
        "one after the other, in this process",
        "one after the other, two workers",
        "at the same time, two workers",
    ]
    for row in rows:
        assert list(row) == ["ours", "peer", "limit", "ratio"]
        assert min(row.values()) > 0
        assert row["limit"] == 0.3
