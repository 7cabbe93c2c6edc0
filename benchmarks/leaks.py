"""Looking for leaks in a training set of the reference use case: all alarms together, and a spine that windows its own inputs.

There is no peer. The limit is what a step that runs once a training may cost: 15 CPU seconds for 100,000 rows. An alarm is an
error here, for nothing leaks.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks._table import cpu_seconds, show
from benchmarks._world import lived_in
from feature_repo.definitions import use_case
from lockstep.clock import MICROSECOND, to_micros
from lockstep.lake import Lake
from lockstep.serving.features import feature_matrix
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.leaks.alarm import Alarm
from lockstep.training.leaks.find import Suspect, find_leaks
from lockstep.training.leaks.spine import SpineProbe
from lockstep.training.leaks.spine_tables import open_tables
from lockstep.training.protocol import SPLIT, TRAIN
from lockstep.training.span import Span
from lockstep.training.training_set import build_training_set, read_training_set

DAYS, LIMIT_CPU_S = 80, 15.0
HEADINGS = {
    "case": "case",
    "rows": "rows",
    "cpu_s": "CPU s: ours",
    "limit_cpu_s": "limit",
    "fit_cpu_s": "the fit itself",
}
IN_TIME = "CASE WHEN labelled_at <= tx_datetime + INTERVAL 7 DAYS THEN tx_fraud END"
"""Late labels are none that a window which ends seven days ago knows."""
WINDOWS = {
    "customer_sum": ("sum(amount_cents)", "customer_id", "7 DAYS", "1 MICROSECOND"),
    "customer_mean": ("avg(amount_cents)", "customer_id", "30 DAYS", "1 MICROSECOND"),
    "terminal_busy": ("count(*)", "terminal_id", "1 DAY", "1 MICROSECOND"),
    "terminal_rate": (f"avg({IN_TIME})", "terminal_id", "37 DAYS", "7 DAYS"),
}


def windowed_spine() -> str:
    """Return a spine's SQL that works four inputs out of what was known."""
    inputs = ", ".join(
        f"{what} OVER (PARTITION BY {key} ORDER BY tx_datetime "
        f"RANGE BETWEEN INTERVAL {since} PRECEDING AND INTERVAL {until} PRECEDING) AS {name}"
        for name, (what, key, since, until) in WINDOWS.items()
    )
    return f"""
        SELECT customer_id, terminal_id, tx_datetime AS event_timestamp, amount_cents, tx_fraud, {", ".join(WINDOWS)}
        FROM (SELECT *, {inputs} FROM transactions JOIN labels USING (transaction_id, tx_datetime))
        WHERE tx_datetime >= $start AND tx_datetime < $end AND labelled_at <= $known_at
    """


def probed(settings: Settings, lake: Lake, suspect: Suspect) -> list[Alarm]:
    """Look for leaks in that spine."""
    recipe = replace(use_case.model, spine=windowed_spine())
    known_at = suspect.contract.cut.known_at
    span = Span.of(recipe, known_at)
    parameters = {"start": span.start, "end": span.end, "known_at": known_at}
    held_out = to_micros(span.test_start), to_micros(span.end)
    keys = [key.name for key in suspect.contract.join_keys]
    case = replace(use_case, model=recipe)
    with open_tables(settings, lake, case, keys, suspect.snapshots, parameters) as tables:
        probe = SpineProbe(
            tables=tables,
            rows=tables.run(),
            inputs=["amount_cents", *WINDOWS],
            gap_us=recipe.gap // MICROSECOND,
            cut_us=sum(held_out) // 2,
            sampled_us=held_out,
            seed=0,
        )
        return probe.alarms()


def measured(home: Path, size: int) -> list[dict[str, Any]]:
    """Make a world of so many cards and a training set of it, fit the model, and look for leaks twice."""
    settings, lake, end = lived_in(home, size, DAYS)
    made = build_training_set(settings, use_case, known_at=end)
    rows, contract = read_training_set(lake, made.table)
    vectors, train = feature_matrix(contract, rows), rows[SPLIT].to_numpy() == TRAIN
    labels, estimator = rows[use_case.model.label].to_numpy(), use_case.model.estimator()
    with one_thread():
        fit = cpu_seconds(lambda: estimator.fit(vectors[train], labels[train]))
    suspect = Suspect(contract, rows, vectors, estimator)
    alarms: list[Alarm] = []
    all_of_them = cpu_seconds(lambda: alarms.extend(find_leaks(settings, use_case, lake, suspect).alarms))
    spine = cpu_seconds(lambda: alarms.extend(probed(settings, lake, suspect)))
    if alarms:
        raise click.ClickException(f"nothing leaks here: {'; '.join(map(str, alarms))}")
    return [
        {
            "case": case,
            "rows": rows.num_rows,
            "cpu_s": round(seconds, 1),
            "limit_cpu_s": LIMIT_CPU_S,
            "fit_cpu_s": round(fit, 1),
        }
        for case, seconds in (("all alarms", all_of_them), ("a spine with four windows", spine))
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A twentieth of the cards.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print CPU seconds, a row a search, against the limit."""
    with tempfile.TemporaryDirectory() as folder:
        show(measured(Path(folder), 95 if quick else 1_900), HEADINGS, json_file)


if __name__ == "__main__":
    main()
