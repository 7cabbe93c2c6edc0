"""The steps of the `train` workflow at the size of the demo: CPU seconds each, against the limit of all together.

There is no peer: what is compared is the fit alone, which any training has to do.
"""

import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks._table import cpu_seconds, show
from benchmarks._world import lived_in
from feature_repo.definitions import use_case
from lockstep.threads import one_thread
from lockstep.training.fit import given
from lockstep.training.judge import judge
from lockstep.training.protocol import TRAIN
from lockstep.training.register import register
from lockstep.training.train import train
from lockstep.training.training_set import build_training_set, read_training_set

CARDS, DAYS, LIMIT_CPU_S = 2_700, 90, 90.0
HEADINGS = {"step": "step", "cpu_s": "CPU s: ours", "fit_cpu_s": "the fit alone", "limit_cpu_s": "limit"}


def measured(home: Path, cards: int) -> list[dict[str, Any]]:
    """Make the world, compute its views, and take the four steps in this process."""
    settings, lake, end = lived_in(home, cards, DAYS)
    made: dict[str, str] = {}

    def build() -> None:
        made["set"] = build_training_set(settings, use_case, known_at=end).table

    def fit_both() -> None:
        made["model"] = train(settings, use_case, made["set"]).model

    def evaluate() -> None:
        made["evaluation"] = judge(settings, use_case, made["model"]).hash

    def enter() -> None:
        register(settings, use_case, made["model"], made["evaluation"])

    steps = {
        "build_training_set": build,
        "train_model": fit_both,
        "evaluate_model": evaluate,
        "register_model": enter,
    }
    seconds = {name: cpu_seconds(step) for name, step in steps.items()}
    rows, contract = read_training_set(lake, made["set"])
    fitted_on = given(use_case.model, contract, rows, TRAIN)
    with one_thread():
        fit = cpu_seconds(lambda: use_case.model.estimator().fit(fitted_on.vectors, fitted_on.labels))
    every = {**seconds, f"all, {rows.num_rows:,} rows": sum(seconds.values())}
    return [
        {"step": step, "cpu_s": round(cpu, 1), "fit_cpu_s": round(fit, 1), "limit_cpu_s": LIMIT_CPU_S}
        for step, cpu in every.items()
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the cards.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, json_file: Path | None) -> None:
    """Print CPU seconds, a row a step, against the limit of all."""
    with tempfile.TemporaryDirectory() as folder:
        show(measured(Path(folder), CARDS // 10 if quick else CARDS), HEADINGS, json_file)


if __name__ == "__main__":
    main()
