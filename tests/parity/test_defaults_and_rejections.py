"""Parity of a model whose contract puts defaults in and rejects rows: from the served log in the lake to the report."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from profile_world import (
    FALLBACK_MODEL,
    MODEL,
    NOON,
    PROFILE,
    TICK,
    USE_CASE,
    Read,
    World,
    created_of,
    open_world,
    score_of,
)
from schemas import problems

from lockstep.clock import parse_time
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.errors import BadInput
from lockstep.parity.kept import load
from lockstep.parity.report import ParityReport
from lockstep.parity.schema import report_schema
from lockstep.parity.verdict import Verdict
from lockstep.parity.verify import Question, verify
from lockstep.training.contract import compile_contract
from lockstep.training.registry import Registered

JUNE = parse_time("2018-06-01T00:00:00Z")
# Nobody is customer 9. Of customer 2 the lake holds a null.
STORED: Mapping[int, Mapping[str, Any]] = {
    1: {"home_x": 2.0, "home_y": 3.0, "segment": "a", "card_issued_day": 10},
    2: {"home_x": 4.0, "home_y": None, "segment": "b", "card_issued_day": 11},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    opened = open_world(tmp_path_factory.mktemp("policy"), JUNE, STORED, USE_CASE)
    opened.bring(1)
    return opened


def judged(world: World, service: str, *reads: Read) -> ParityReport:
    """Serve these rows as a transformer does, log them, and verify their parity."""
    cut = TrainingCut(tables=(), spine_hash=str(len(reads)), known_at=JUNE)
    contract = compile_contract(USE_CASE, service, cut)
    digest = f"{service} {reads}"
    world.log(contract, digest, reads)
    return verified(world, contract, digest)


def verified(world: World, contract: FeatureContract, digest: str, *, fallback: bool = False) -> ParityReport:
    model = Registered(1, Path("model"), digest, contract, {}, {})
    question = Question(True, TICK, NOON + timedelta(seconds=1), rows=10, fallback=fallback)
    return verify(world.settings, USE_CASE, world.lake, world.ledger, model, question)


@pytest.fixture(autouse=True)
def models_that_take_no_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model's folder hold the two models."""
    artifact = SimpleNamespace(estimator=MODEL, fallback=FALLBACK_MODEL)
    monkeypatch.setattr("lockstep.parity.facts.load_artifact", lambda _: artifact)
    monkeypatch.setattr("lockstep.parity.facts.versions", lambda *_: {})


def told(report: ParityReport, kind: str = "training") -> list[tuple[str | None, Any, Any, str]]:
    found = [(d.feature, d.served, d.expected, d.cause) for d in report.differences if d.kind == kind]
    return sorted(found, key=str)


def test_a_default_that_is_put_in_on_both_sides_is_no_difference(world: World) -> None:
    report = judged(world, "defaults", Read(1, "present"), Read(2, "present"), Read(9, "missing"))

    assert (report.sample.uniform, report.differences, report.mismatches, report.excused) == (3, (), 0, 0)
    assert report.scores is not None
    assert (report.scores.rows, report.scores.largest_shift) == (3, pytest.approx(0, abs=1e-12))


def test_a_default_hides_no_value_that_training_has(world: World) -> None:
    report = judged(world, "defaults", Read(1, "missing"), Read(2, "present"))

    assert (report.mismatches, report.causes) == (1, {"missing": 4})
    assert told(report) == [
        ("card_issued_day", -1.0, 10.0, "missing"),
        ("home_x", 0.0, 2.0, "missing"),
        ("home_y", 7.0, 3.0, "missing"),
    ]
    assert report.verdict is Verdict.FAIL
    assert report.scores is not None
    shift = abs(score_of(MODEL, [0, 7, -1]) - score_of(MODEL, [2, 3, 10]))
    assert (report.scores.rows, report.scores.largest_shift) == (2, pytest.approx(shift))
    assert report.scores.mean_shift == pytest.approx(shift / 2)


def test_a_score_that_the_model_does_not_give_is_a_mismatch_of_the_prediction(world: World) -> None:
    report = judged(world, "defaults", Read(1, "present", score=0.5), Read(2, "present"))

    assert told(report, "prediction") == [(None, 0.5, pytest.approx(score_of(MODEL, [2, 3, 10])), "unexplained")]
    assert (report.mismatches, report.causes) == (1, {"unexplained": 1})


def test_a_value_is_served_where_training_has_the_default_and_that_is_a_mismatch(world: World) -> None:
    report = judged(world, "defaults", Read(2, "present", values={**STORED[2], "home_y": 6.0}))

    assert told(report) == [("home_y", 6.0, 7.0, "corruption")]
    assert report.mismatches == 1


def test_a_served_row_that_training_would_reject_is_a_difference_with_a_cause_and_the_report_is_written(
    world: World,
) -> None:
    invented = {"home_x": 0.0, "home_y": 7.0, "segment": None, "card_issued_day": 12}

    report = judged(world, "rejects", Read(1, "present"), Read(9, "present", values=invented))

    assert told(report) == [("card_issued_day", 12.0, None, "corruption")]
    assert (report.sample.uniform, report.mismatches) == (2, 1)
    assert report.verdict is Verdict.FAIL
    assert load(world.settings, world.lake, report.hash) == report
    assert list(problems(orjson.loads(report.to_json()), report_schema(), report_schema())) == []
    assert report.scores is not None
    assert (report.scores.rows, sum(report.scores.served), sum(report.scores.expected)) == (1, 1, 1)
    assert report.scores.mean_shift == pytest.approx(0, abs=1e-12)


def test_a_row_that_training_would_reject_because_it_was_served_early_is_excused_as_any_early_row(
    world: World,
) -> None:
    # Written, but the lag until training may see it has not passed.
    early = created_of(1) + PROFILE.visible_lag / 2

    report = judged(world, "rejects", Read(1, "present", at=early))

    assert told(report) == [
        ("card_issued_day", 10.0, None, "early"),
        ("home_x", 2.0, 0.0, "early"),
        ("home_y", 3.0, 7.0, "early"),
    ]
    assert (report.mismatches, report.excused, report.scores) == (0, 1, None)


def test_the_rows_of_the_fallback_model_are_judged_by_its_own_contract_and_scores(world: World) -> None:
    cut = TrainingCut(tables=(), spine_hash="both", known_at=JUNE)
    fallback = compile_contract(USE_CASE, "defaults", cut)
    main = compile_contract(USE_CASE, "rejects", cut).model_copy(update={"fallback": fallback})
    world.log(main, "both", [Read(1, "present"), Read(1, "present")])
    world.log(fallback, "both", [Read(2, "present"), Read(9, "missing"), Read(1, "missing")], 3, FALLBACK_MODEL)

    of_main, of_fallback = verified(world, main, "both"), verified(world, main, "both", fallback=True)

    assert (of_main.model.contract, of_main.sample.served, of_main.mismatches) == (main.hash, 2, 0)
    assert (of_fallback.model.contract, of_fallback.sample.served, of_fallback.mismatches) == (fallback.hash, 3, 1)
    shift = abs(score_of(FALLBACK_MODEL, [0, 7, -1]) - score_of(FALLBACK_MODEL, [2, 3, 10]))
    assert of_main.scores is not None
    assert of_fallback.scores is not None
    assert of_main.scores.mean_shift == pytest.approx(0, abs=1e-12)
    assert of_fallback.scores.mean_shift == pytest.approx(shift / 3)


def test_of_a_model_without_a_fallback_the_rows_of_one_cannot_be_judged(world: World) -> None:
    contract = compile_contract(USE_CASE, "defaults", TrainingCut(tables=(), spine_hash="alone", known_at=JUNE))

    with pytest.raises(BadInput, match="version 1 has no fallback model"):
        verified(world, contract, "alone", fallback=True)
