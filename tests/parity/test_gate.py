"""Every way past the gate that is none."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep.clock import parse_time
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.parity.gate import decide
from lockstep.parity.report import ModelNamed, ParityReport, Sampled, load, store
from lockstep.parity.verdict import Verdict, upper_bound
from lockstep.training.registry import Registered
from lockstep.views import Thresholds

NOW = parse_time("2018-06-30T00:00:00Z")
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(),
    request_inputs=(),
    features=(),
    views=(),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=NOW),
)
GOOD = {"average_precision": 0.6, "auc": 0.9}
MODEL = Registered(version=3, model_dir=Path(), digest="d" * 64, contract=CONTRACT, tags={}, metrics=GOOD)
ASKED = Thresholds(average_precision=0.5, auc=0.8)


def report(**changes: Any) -> ParityReport:
    fields: dict[str, Any] = {
        "project": "test",
        "created": NOW - timedelta(hours=1),
        "model": ModelNamed(name="m", version=3, digest=MODEL.digest, contract=CONTRACT.hash),
        "shadow": True,
        "since": NOW - timedelta(days=1),
        "until": NOW - timedelta(hours=1),
        "sample": Sampled(served=960, uniform=400, required=299, stratified=130, compared_values=12_000),
        "limit": 0.01,
        "confidence": 0.95,
        "mismatches": 0,
        "excused": 0,
        "stratum_mismatches": 0,
        "lost": 0.0,
        "present": {},
        "intervals": {},
        "upper_bound": upper_bound(0, 400, 0.95),
        "verdict": Verdict.PASS,
        "reasons": (),
        "features": (),
        "strata": (),
        "causes": {},
        "differences": (),
    }
    return ParityReport(**(fields | changes))


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (
            {"average_precision": 0.49, "auc": 0.9},
            "average_precision on the held-out days is 0.490, 0.500 is asked for",
        ),
        ({"average_precision": 0.6, "auc": 0.799}, "auc on the held-out days is 0.799, 0.800 is asked for"),
        ({"average_precision": 0.6, "auc": float("nan")}, "auc on the held-out days is nan, 0.800 is asked for"),
        ({"auc": 0.9}, "average_precision on the held-out days is nan, 0.500 is asked for"),
    ],
)
def test_a_model_that_is_not_good_enough_is_refused(settings, metrics: dict[str, float], reason: str) -> None:
    assert decide(settings, ASKED, replace(MODEL, metrics=metrics), report(), NOW).reasons == (reason,)


def test_its_own_fresh_passing_report_lets_a_model_through(settings) -> None:
    assert decide(settings, ASKED, MODEL, report(), NOW).reasons == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": Verdict.FAIL}, "verdict is fail"),
        ({"verdict": Verdict.NOT_ENOUGH_EVIDENCE}, "verdict is not_enough_evidence"),
        ({"model": ModelNamed(name="m", version=3, digest="e" * 64, contract=CONTRACT.hash)}, "is about model eeee"),
        ({"model": ModelNamed(name="m", version=3, digest=MODEL.digest, contract="f" * 64)}, "is about contract ffff"),
        ({"created": NOW - timedelta(hours=25)}, "at most 1 day"),
        ({"created": NOW + timedelta(hours=1)}, "at most 1 day"),
        (
            {"sample": Sampled(served=0, uniform=0, required=0, stratified=0, compared_values=0)},
            "0 sampled rows, 299 needed",
        ),
        ({"mismatches": 9}, "only known to be below"),
        ({"upper_bound": 0.0001}, "not the one its counts give"),
        ({"excused": 120}, "120 of 400 rows are excused"),
        ({"excused": 102}, "298 sampled rows, 299 needed"),
        ({"until": NOW - timedelta(days=365)}, "window ended 365 days"),
        ({"present": {"spend": 400}, "intervals": {"spend": 2}}, "does not cover the views"),
        ({"present": {"spend": 12}}, "spend: 12 sampled rows hold a value"),
        ({"intervals": {"spend": 1}}, "spend: rows of 1 committed interval(s)"),
        ({"shadow": False}, "about live rows"),
        ({"lost": 0.02}, "2.00% of the served log was lost"),
        ({"stratum_mismatches": 1}, "1 rows of the strata"),
    ],
)
def test_a_forged_stale_foreign_or_empty_report_is_refused(settings, changes: dict[str, Any], reason: str) -> None:
    decision = decide(settings, ASKED, MODEL, report(**changes), NOW)
    assert not decision.passed
    assert any(reason in given for given in decision.reasons), decision.reasons


def test_an_upper_bound_that_is_no_number_is_refused(settings) -> None:
    assert not decide(settings, ASKED, MODEL, report(upper_bound=float("nan")), NOW).passed


def test_a_limit_loosened_in_the_report_does_not_loosen_the_gate(settings) -> None:
    few = Sampled(served=60, uniform=59, required=59, stratified=10, compared_values=100)
    loose = report(sample=few, limit=0.05, upper_bound=upper_bound(0, 59, 0.95))
    assert not decide(settings, ASKED, MODEL, loose, NOW).passed


def test_a_report_is_found_by_its_name_and_a_changed_one_is_not_believed(settings) -> None:
    lake = Lake.open(settings, "test")
    name = store(lake, report())
    assert load(settings, lake, name) == report()
    with pytest.raises(BadInput, match="there is no parity report 'nope'"):
        load(settings, lake, "nope")


def test_a_report_changed_in_the_lake_is_not_believed(settings) -> None:
    lake = Lake.open(settings, "test")
    name = store(lake, report(verdict=Verdict.FAIL, mismatches=9))
    forged = report().to_json()
    table = lake.table("parity_reports").scan().to_arrow()
    table = table.set_column(table.column_names.index("json"), "json", [[forged]])
    lake.drop("parity_reports")
    lake.ensure_table("parity_reports", table.schema)
    lake.append("parity_reports", table)
    with pytest.raises(BadInput, match="was changed after it was made"):
        load(settings, lake, name)
