"""Verifying parity: 51 features of five stored views and one on demand, of rows all served well, and of rows some served wrong.

*Ours* is `lockstep.parity.verify.measure`: the served log; what the lake held of every row, in the snapshots it was read from;
Feast's retrieval of what training would contain; the model's scores; and of each difference the cause. The *peer* is what one
would write without it: feature tables and log read by PyIceberg, pandas' `merge_asof` a view, the vectors compared by value. It
answers one question of three (training skew) and names no cause: a row that was online a minute before its lag said, which is
excused, looks to it like one that is wrong. The *limit* is what was asked of 100,000 rows on two cores: 60 s and 2 GiB.

Each run is a process of its own; wall and CPU seconds are without the imports that it begins with, but ours with those that
`measure` puts off (Feast, scikit-learn). In the second case one row in twenty was answered with another card's rows.
"""

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks._parity.case import Case, cases
from benchmarks._process import in_process, medians
from benchmarks._table import show

ENGINES = ("ours", "peer")
LIMIT_WALL_S, LIMIT_PEAK_MIB = 60, 2_048
HEADINGS = {
    "case": "verifying",
    "rows": "rows",
    "ours_cpu_s": "CPU s: ours",
    "peer_cpu_s": "peer",
    "ratio": "peer/ours",
    "ours_wall_s": "wall s: ours",
    "peer_wall_s": "peer",
    "limit_wall_s": "limit",
    "ratio_limit": "ours/limit",
    "ours_peak_mib": "peak MiB: ours",
    "peer_peak_mib": "peer",
    "limit_peak_mib": "limit",
    "ratio_memory": "ours/limit",
    "mismatches": "mismatches: ours",
    "excused": "excused",
    "peer_differing": "peer: differing",
}


def run_case(name: str, case: Case, repeats: int, *, quick: bool) -> dict[str, Any]:
    """Measure both engines on one case, each time in a new process, in turns; each figure is a median."""
    measured: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="lockstep-") as home:
        given = ["--case", name, "--home", home, *(["--quick"] if quick else [])]
        in_process("benchmarks.parity", ["world", *given])
        for _ in range(repeats):
            for engine in ENGINES:
                measured[engine].append(in_process("benchmarks.parity", [engine, *given]))
    figures = medians(measured)
    ours, peer = (measured[engine][-1] for engine in ENGINES)
    return {
        "case": name,
        "rows": case.rows,
        "compared_values": ours["compared_values"],
        **figures,
        "limit_wall_s": LIMIT_WALL_S,
        "limit_peak_mib": LIMIT_PEAK_MIB,
        "ratio": round(figures["peer_cpu_s"] / figures["ours_cpu_s"], 2),
        "ratio_limit": round(figures["ours_wall_s"] / LIMIT_WALL_S, 2),
        "ratio_memory": round(figures["ours_peak_mib"] / LIMIT_PEAK_MIB, 2),
        **{key: ours[key] for key in ("mismatches", "excused", "causes")},
        "peer_differing": peer["differing"],
    }


@click.command()
@click.option("--quick", is_flag=True, help="2,000 rows.")
@click.option("--case", "names", multiple=True, help="Only this case; may be repeated.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Each figure is their median.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
@click.option("--engine", type=click.Choice(("world", *ENGINES)), hidden=True)
@click.option("--home", type=click.Path(path_type=Path), hidden=True)
def main(
    *, quick: bool, names: tuple[str, ...], repeats: int, json_file: Path | None, engine: str | None, home: Path | None
) -> None:
    """Print CPU seconds, wall seconds and peak memory, a row a case: ours, peer, limit and ratios."""
    known = cases(quick=quick)
    if unknown := set(names) - set(known):
        raise click.UsageError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if engine is not None and home is not None:
        # Each imports no more than it needs: Feast alone takes seconds.
        run = importlib.import_module(f"benchmarks._parity.{engine}").run
        click.echo(json.dumps(run(known[names[0]], home)))
        return
    rows = [run_case(name, case, repeats, quick=quick) for name, case in known.items() if not names or name in names]
    show(rows, HEADINGS, json_file)


if __name__ == "__main__":
    main()
