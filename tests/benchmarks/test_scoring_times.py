"""The script runs and writes what it says; how fast is not asserted."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.scoring import main


def test_a_small_run_writes_a_row_of_positive_numbers_for_each_number_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "scoring.json"

    done = CliRunner().invoke(main, ["--quick", "--features", "3", "--json", str(file)], catch_exceptions=False)

    assert done.exit_code == 0
    rows = json.loads(file.read_text())
    assert [row["rows"] for row in rows] == [1, 64]
    sides = ("ours", "peer", "joined")
    times = [f"{side}_{kind}_us" for kind in ("cpu", "wall") for side in sides]
    for row in rows:
        assert list(row) == ["rows", "calls", *times, "ratio", "ratio_joined"]
        assert all(value > 0 for value in row.values()), row
    heading, *lines = done.stdout.splitlines()
    assert all(side in heading for side in ("ours CPU us", "peer wall us", "ratio joined"))
    assert [line.split()[0] for line in lines] == ["1", "64"]
