"""What a step's pod pays before it works: its module, and what its function imports when it runs.

The peer is importing Feast alone, which each step would pay if one of its imports were at the top of a module. CPU seconds of a
fresh process, with its bytecode compiled.
"""

import ast
import pkgutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

import steps
from benchmarks._table import show

LIMIT_S = 4.0
# One level below what a step's own text shows: what opens the stores it asks for, and retrieval, which imports Feast.
WIRED = {
    ".use_case": "import feature_repo.definitions",
    ".lake": "import lockstep.lake",
    ".ledger": "import lockstep.materialize.ledger",
    ".store": "import lockstep.online.store",
    ".materializer(": "import lockstep.materialize.interval",
}
RETRIEVES = {"build_training_set", "verify_parity"}
HEADINGS = {
    "case": "step",
    "ours": "CPU s",
    "peer": "Feast alone",
    "limit": "limit",
    "ratio": "limit/ours",
    "feast": "Feast",
}
MEASURE = "import resource, sys\n{}\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
MEASURE += "print(used.ru_utime + used.ru_stime, 'feast' in sys.modules)"


def imports_of(step: str) -> str:
    """Return the import statements that a step's pod comes to run: its module's, and those within its function."""
    (folder,) = steps.__path__
    text = (Path(folder) / f"{step}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    late = [ast.unparse(n) for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]
    opened = [statement for asked, statement in WIRED.items() if asked in text]
    deeper = ["import lockstep.offline.history"] if step in RETRIEVES else []
    return "\n".join([f"import steps.{step}", *late, *opened, *deeper])


def measured(statements: str, repeats: int) -> tuple[float, bool]:
    """Return the median of the CPU seconds, and whether Feast was imported."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE.format(statements)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(repeats)]
    return statistics.median(float(seconds) for seconds, _ in runs), runs[0][1] == "True"


@click.command()
@click.option("--quick", is_flag=True, help="Once each.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print a row a step."""
    repeats = 1 if quick else 3
    peer, _ = measured("import feast", repeats)
    rows: list[dict[str, Any]] = []
    for step in sorted(m.name for m in pkgutil.iter_modules(steps.__path__) if not m.name.startswith("_")):
        seconds, feast = measured(imports_of(step), repeats)
        rows.append(
            {
                "case": step,
                "ours": round(seconds, 2),
                "peer": round(peer, 2),
                "limit": LIMIT_S,
                "ratio": round(LIMIT_S / seconds, 2),
                "feast": "yes" if feast else "no",
            }
        )
    show(rows, HEADINGS, json_file)


if __name__ == "__main__":
    main()
