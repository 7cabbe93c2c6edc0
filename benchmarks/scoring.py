"""Scores of a gradient boosting model as the predictor computes them, against scikit-learn's own `predict_proba`.

Both score the same rows with 200 trees of 15 leaves, on one thread, and must agree to the last bit. What scikit-learn asks tree
by tree costs 200 calls, whatever the rows; joined, one call, which is most of what a single row takes. The copies of the rows
that this needs grow with rows and features until they weigh more. The columns *joined* are without our limit, `MOST_VALUES`, and
show where: between 128 and 256 rows of 20 features, between 64 and 128 of 100 (`--features 100`). Above the limit ours is the
peer.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from benchmarks._table import cpu_seconds, show
from lockstep.serving.scoring import JoinedTrees, Scorer, scorer_of

HEADINGS = {
    "rows": "rows",
    "ours_cpu_us": "ours CPU us",
    "peer_cpu_us": "peer CPU us",
    "joined_cpu_us": "joined CPU us",
    "ours_wall_us": "ours wall us",
    "peer_wall_us": "peer wall us",
    "ratio": "ratio",
    "ratio_joined": "ratio joined",
}


def model(trees: int, features: int) -> HistGradientBoostingClassifier:
    """Return a model of a signal in much noise."""
    random = np.random.default_rng(0)
    rows = given(20_000, features, random)
    labels = np.nan_to_num(rows[:, :3]).sum(axis=1) + random.normal(size=len(rows)) > 2
    return HistGradientBoostingClassifier(max_iter=trees, max_leaf_nodes=15, random_state=0).fit(rows, labels)


def given(rows: int, features: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return rows of which a tenth of the values is null."""
    values = random.normal(size=(rows, features))
    values[random.random(values.shape) < 0.1] = np.nan
    return values


def microseconds(score: Scorer, rows: NDArray[np.float64], calls: int, rounds: int) -> tuple[float, float]:
    """Return the CPU and the wall time of one call, each the median of several rounds of so many calls."""
    walls: list[float] = []

    def call() -> None:
        started = time.perf_counter()
        for _ in range(calls):
            score(rows)
        walls.append(time.perf_counter() - started)

    spent = [cpu_seconds(call) for _ in range(rounds)]
    return median(spent) / calls * 1e6, median(walls) / calls * 1e6


def case(estimator: Any, rows: NDArray[np.float64], seconds: float, rounds: int) -> dict[str, Any]:
    """Return what a call takes with these rows, ours, the peer's, and ours without its limit."""

    def peer(asked: NDArray[np.float64]) -> NDArray[np.float64]:
        return estimator.predict_proba(asked)[:, 1]

    ways = {"ours": scorer_of(estimator), "peer": peer, "joined": JoinedTrees(estimator)}
    if any(score(rows).tobytes() != peer(rows).tobytes() for score in ways.values()):
        raise click.ClickException(f"{len(rows)} rows: our scores are not the peer's")
    started = time.perf_counter()
    peer(rows)
    calls = max(3, int(seconds / (time.perf_counter() - started)))
    taken = {name: microseconds(score, rows, calls, rounds) for name, score in ways.items()}
    found = {f"{name}_{kind}_us": round(of[n]) for n, kind in enumerate(("cpu", "wall")) for name, of in taken.items()}
    ratios = {"ratio": "ours", "ratio_joined": "joined"}
    return {
        "rows": len(rows),
        "calls": calls,
        **found,
        **{name: round(taken["peer"][0] / taken[way][0], 2) for name, way in ratios.items()},
    }


@click.command()
@click.option("--quick", is_flag=True, help="A small model and short rounds.")
@click.option("--features", type=click.IntRange(min=3), default=20, show_default=True, help="How long a row is.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, features: int, json_file: Path | None) -> None:
    """Print the microseconds of one call, a row for each number of rows."""
    sizes = (1, 64) if quick else (1, 8, 64, 128, 256, 1000)
    with threadpool_limits(1, user_api="openmp"):
        estimator = model(20 if quick else 200, features)
        random = np.random.default_rng(1)
        effort = (0.01, 1) if quick else (0.2, 5)
        cases = [case(estimator, given(rows, features, random), *effort) for rows in sizes]
    show(cases, HEADINGS, json_file)


if __name__ == "__main__":
    main()
