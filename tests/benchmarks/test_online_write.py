"""The script runs and writes what it says; how fast is not asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_writes_a_row_of_positive_numbers_for_each_case(tmp_path: Path) -> None:
    file = tmp_path / "online_write.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    command = [sys.executable, "-m", "benchmarks.online_write", "--quick", "--rows", "500", "--json", str(file)]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text())
    assert [row.pop("case") for row in rows] == ["first write", "rewrite"]
    sides = ("ours", "peer", "limit")
    rates, server = [f"{side}_rows_per_cpu_s" for side in sides], [f"{side}_server_cpu_s" for side in sides]
    for row in rows:
        assert list(row) == ["rows", "repeats", *rates, "ratio", "ratio_limit", *server]
        assert row["rows"] == 500
        assert all(value > 0 for value in row.values()), row
    heading, *lines = done.stdout.splitlines()
    assert all(side in heading for side in (*sides, "ours/peer", "ours/limit"))
    assert [line.split("  ")[0] for line in lines] == ["first write", "rewrite"]
