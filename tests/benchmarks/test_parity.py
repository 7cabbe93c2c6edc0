"""The script runs, finds what is wrong, and writes what it says; how fast is not asserted."""

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.parity import main

CASE = "5% of another card"


def test_a_small_run_finds_the_rows_of_another_card_and_writes_positive_numbers(tmp_path: Path) -> None:
    file = tmp_path / "parity.json"

    done = CliRunner().invoke(main, ["--quick", "--case", CASE, "--json", str(file)], catch_exceptions=False)

    assert done.exit_code == 0, done.output
    (row,) = json.loads(file.read_text())
    assert (row["case"], row["rows"], row["limit_wall_s"], row["limit_peak_mib"]) == (CASE, 2_000, 60, 2_048)
    figures = [f"{engine}_{figure}" for engine in ("ours", "peer") for figure in ("cpu_s", "wall_s", "peak_mib")]
    assert all(row[name] > 0 for name in (*figures, "ratio", "ratio_limit", "ratio_memory"))
    assert 80 < row["mismatches"] < 120
    # The peer sees what is wrong, and cannot tell it from what is excused; it draws its own sample.
    assert row["excused"] > 0
    assert row["mismatches"] < row["peer_differing"]
    assert set(row["causes"]) <= {"wrong_row", "early", "late"}
    heading, line = done.stdout.splitlines()
    assert all(name in heading for name in ("ours", "peer", "limit", "peer/ours", "ours/limit"))
    assert line.startswith(f"{CASE}  2 000")
