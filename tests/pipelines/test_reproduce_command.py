"""`lockstep reproduce`: what it prints of published results and ours, and what it exits with."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.definitions import use_case
from feature_repo.published_results import PUBLICATION, events_of
from feature_repo.simulator import simulate_published
from lockstep.errors import BadInput
from lockstep.training.evaluation.document import Metrics
from lockstep.training.protocol import TEST
from lockstep.training.reproduction import (
    Figure,
    Prepared,
    Publication,
    PublishedEvents,
    PublishedModel,
    Size,
    measure,
    prepare,
)
from pipelines._commands import reproduce
from pipelines.cli import main

USE_CASES = Path(__file__).parents[1] / "use_cases"


@dataclass(frozen=True)
class Results:
    """Published results of a small world."""

    PUBLICATION: Publication
    events: PublishedEvents

    def make_events(self) -> PublishedEvents:
        return self.events


@pytest.fixture(scope="module")
def events() -> PublishedEvents:
    return events_of(simulate_published(customers=60, terminals=40, days=137, radius=40.0))


@pytest.fixture(scope="module")
def prepared(events: PublishedEvents) -> Prepared:
    return prepare(use_case, "feature_repo", publication(), events)


@pytest.fixture(scope="module")
def tree(prepared: Prepared) -> PublishedModel:
    """A depth of two, with figures that it does reach in the small world."""
    model = replace(PUBLICATION.models[1], metrics={TEST: PUBLICATION.models[1].metrics[TEST]})
    reached = {figure.metric: figure.ours for figure in measure(prepared, model)}
    return replace(model, metrics={TEST: Metrics(**reached)})


def publication(*models: PublishedModel, sizes: dict[str, Size] | None = None) -> Publication:
    """A publication of the small world, where nearly every card is soon known to be compromised: they stay in."""
    protocol = replace(PUBLICATION.protocol, top=5, leave_known_out=False)
    return replace(PUBLICATION, where="On paper", protocol=protocol, sizes=sizes or {}, models=models)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, events: PublishedEvents, prepared: Prepared) -> Callable[..., int]:
    """Runs the command on published results of the small world."""
    monkeypatch.delenv("LOCKSTEP_USE_CASE", raising=False)

    def run(*models: PublishedModel, arguments: tuple[str, ...] = (), sizes: dict[str, Size] | None = None) -> int:
        results = Results(publication(*models, sizes=sizes or prepared.sizes), events)
        monkeypatch.setattr(reproduce, "load_results", lambda package: results)
        return main(["reproduce", *arguments])

    return run


def test_figures_that_come_out_as_published_stand_beside_them(
    run: Callable[..., int], tree: PublishedModel, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tree) == 0
    told = capsys.readouterr().out
    published = tree.metrics[TEST]
    rows = [line.split() for line in told.splitlines() if line.startswith("Decision tree, depth 2  ")]
    assert [(row[5], row[6], row[8:]) for row in rows] == [
        (name, f"{value:.3f}", ["+0.0000", "0.005", "yes"])
        for name, value in (
            ("AP", published.average_precision),
            ("AUC", published.auc),
            ("P@5", published.entity_precision),
        )
    ]
    size = prepared.sizes[TEST]
    assert f"{size.rows:,} to test on ({size.positives:,} positive), as published" in told
    assert told.endswith("3 of 3 figures within their tolerance\n")


def test_a_figure_too_far_from_the_published_one_is_refused_by_name(
    run: Callable[..., int], tree: PublishedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    off = tree.metrics[TEST].model_copy(update={"auc": tree.metrics[TEST].auc - 0.006})
    assert run(replace(tree, metrics={TEST: off})) == 3
    told = capsys.readouterr()
    assert [line.split()[-1] for line in told.out.splitlines() if "  AUC  " in line] == ["NO"]
    assert "1 of 3 figures are too far from the published ones: Decision tree, depth 2, test, auc: " in told.err


def test_other_rows_than_published_are_refused_before_anything_is_fitted(
    run: Callable[..., int], prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> Any:
        raise AssertionError("it was fitted")

    size = prepared.sizes[TEST]
    sizes = prepared.sizes | {TEST: replace(size, rows=size.rows + 1)}
    model = replace(PUBLICATION.models[0], estimators=(never,))
    assert run(model, sizes=sizes) == 3
    told = capsys.readouterr().err
    assert f"{size.rows:,} to test on ({size.positives:,} positive); published are" in told
    assert f"{size.rows + 1:,} to test on ({size.positives:,} positive)" in told


def test_a_model_whose_module_is_not_installed_is_not_run_and_says_what_brings_it(
    run: Callable[..., int], tree: PublishedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = replace(tree, name="Forest", module="no_such_forest", distribution="no-such-forest-cpu")
    assert run(tree, absent) == 0
    told = capsys.readouterr().out
    why = "there is no module no_such_forest here; `uv pip install no-such-forest-cpu` brings it"
    assert f"\nForest  not run: {why}\n" in told
    assert run(absent, arguments=("--json",)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["figures"], document["not_run"]) == ([], {"Forest": why})


def test_json_has_every_figure_and_progress_goes_to_the_other_stream(
    run: Callable[..., int], tree: PublishedModel, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tree, arguments=("--json",)) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["rows"][TEST] == {
        "rows": prepared.sizes[TEST].rows,
        "positives": prepared.sizes[TEST].positives,
    }
    assert document["figures"][1] == {
        "model": "Decision tree, depth 2",
        "split": "test",
        "metric": "auc",
        "published": tree.metrics[TEST].auc,
        "ours": tree.metrics[TEST].auc,
        "tolerance": 0.005,
        "difference": 0.0,
        "within": True,
    }
    assert "Decision tree, depth 2 done in " in told.err


def test_a_model_of_several_estimators_is_judged_by_their_mean(prepared: Prepared) -> None:
    class Fixed:
        """Scores every row by one feature, up or down: the one ranking is the other's reverse."""

        def __init__(self, sign: int) -> None:
            self.sign = sign

        def fit(self, *_: Any) -> "Fixed":
            return self

        def predict_proba(self, vectors: Any) -> Any:
            score = 0.5 + self.sign * vectors[:, :1] / 100_000
            return np.hstack([1 - score, score])

    both = PublishedModel("both", (lambda: Fixed(1), lambda: Fixed(-1)), PUBLICATION.models[0].metrics, 0.005)
    aucs = [figure.ours for figure in measure(prepared, both) if figure.metric == "auc"]
    assert aucs == pytest.approx([0.5, 0.5])


def test_a_difference_of_just_the_tolerance_is_tolerated() -> None:
    figure = Figure("any", TEST, "auc", published=0.5, ours=0.625, tolerance=0.125)
    assert (figure.within, replace(figure, ours=0.626).within, replace(figure, ours=0.374).within) == (
        True,
        False,
        False,
    )


def test_a_use_case_without_published_results_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(USE_CASES))
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "pump_care")
    assert main(["reproduce"]) == 2
    told = capsys.readouterr().err
    assert "the use case 'pump_care' has no published results: No module named 'pump_care.published_results'" in told
    assert "feature_repo/published_results.py is an example" in told


def test_published_results_that_lack_something_name_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "resultless_case").mkdir()
    (tmp_path / "resultless_case/__init__.py").write_text("")
    (tmp_path / "resultless_case/published_results.py").write_text("PUBLICATION = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match=r"resultless_case/published_results\.py lacks make_events"):
        reproduce.load_results("resultless_case")
