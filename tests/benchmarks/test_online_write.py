"""The script runs and writes what it says; how fast is not asserted."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.online_write import main


def test_a_small_run_writes_a_row_of_positive_numbers_for_each_case(tmp_path: Path) -> None:
    file = tmp_path / "online_write.json"

    done = CliRunner().invoke(
        main, ["--quick", "--rows", "500", "--repeats", "1", "--json", str(file)], catch_exceptions=False
    )

    assert done.exit_code == 0
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
