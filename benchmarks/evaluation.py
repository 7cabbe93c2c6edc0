"""The bootstrap of an evaluation: rows sorted once and weighted again, against scikit-learn called on every replicate.

Both weight the same entities, and every average precision and AUC of ours is the peer's to twelve digits. The limit is one gather
of the weights by row. An evaluation's own time, with all that is in it, is the last column.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks._table import cpu_seconds, show
from lockstep.training.evaluation.evaluate import Judging, measure
from lockstep.training.evaluation.ranking import RowRanking
from lockstep.training.evaluation.resample import draw
from lockstep.training.evaluation.scored import DAY_US, Scored

HEADINGS = {
    "case": "case",
    "ours_cpu_s": "ours",
    "peer_cpu_s": "peer",
    "limit_cpu_s": "limit",
    "ratio": "ratio",
    "evaluation_cpu_s": "evaluation",
}


def held_out(rows: int, entities: int) -> Scored:
    """Return a week in which 3 entities of 100 have positives, 0.6 % of all rows."""
    chance = np.random.default_rng(0)
    entity = chance.integers(entities, size=rows)
    labels = ((entity % 100 < 3) & (chance.random(rows) < 0.2)).astype(np.int64)
    return Scored(
        times_us=chance.integers(7 * DAY_US, size=rows),
        labels=labels,
        scores=1 / (1 + np.exp(-chance.normal(-5 + 3.5 * labels, 1.2))),
        entity=entity,
        group=labels * chance.integers(1, 4, size=rows),
    )


def case(rows: int, entities: int, replicates: int) -> dict[str, Any]:
    """Return the CPU seconds of all replicates, ours and the peer's."""
    week = held_out(rows, entities)
    weights = list(draw(week.entities, replicates, seed=0))
    ours: list[tuple[float, ...]] = []
    peer: list[tuple[float, ...]] = []

    def by_ours() -> None:
        ranking = RowRanking(week)
        ours.extend(ranking.measure(drawn)[:2] for drawn in weights)

    def by_peer() -> None:
        for drawn in weights:
            each = drawn[week.codes]
            peer.append(
                (
                    float(average_precision_score(week.labels, week.scores, sample_weight=each)),
                    float(roc_auc_score(week.labels, week.scores, sample_weight=each)),
                )
            )

    taken = {"ours_cpu_s": cpu_seconds(by_ours), "peer_cpu_s": cpu_seconds(by_peer)}
    if not np.allclose(ours, peer, rtol=0, atol=1e-12):
        raise click.ClickException(f"{rows} rows: our metrics are not the peer's")
    taken["limit_cpu_s"] = cpu_seconds(lambda: [drawn[week.codes] for drawn in weights])
    judging = Judging(top=100, threshold=0.3, replicates=replicates)
    taken["evaluation_cpu_s"] = cpu_seconds(lambda: measure(week, judging))
    return {
        "case": f"{rows} rows, {entities} entities",
        "replicates": replicates,
        **{name: round(seconds, 3) for name, seconds in taken.items()},
        "ratio": round(taken["peer_cpu_s"] / taken["ours_cpu_s"], 1),
    }


@click.command()
@click.option("--quick", is_flag=True, help="A small case only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print CPU seconds of 200 replicates, a row a case."""
    cases = [(6_000, 500)] + [(60_000, 5_000)] * (not quick)
    show([case(rows, entities, 200) for rows, entities in cases], HEADINGS, json_file)


if __name__ == "__main__":
    main()
