"""Every way past the gate that is none."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kept_reports import a_report
from sound_evaluation import NOW, RECIPE, evaluation_of, measured

from feature_repo.definitions import use_case as fraud
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.errors import BadInput, Refused
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity import gate
from lockstep.parity.gate import Decision, decide
from lockstep.parity.kept import store
from lockstep.parity.report import ModelNamed, ParityReport, Sampled
from lockstep.parity.signature import make_keys
from lockstep.parity.verdict import Verdict, upper_bound
from lockstep.settings import Settings
from lockstep.training.evaluation.document import Alarm, Evaluation
from lockstep.training.evaluation.document import ModelNamed as Evaluated
from lockstep.training.evaluations import alarmed, keep_evaluation, load_evaluation
from lockstep.training.registry import Registered
from lockstep.training.rules import rules_of
from lockstep.training.thresholds import unreached
from lockstep.views import Ceilings

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
MODEL = Registered(version=3, model_dir=Path(), digest="d" * 64, contract=CONTRACT, tags={}, metrics={})


def report(**changes: Any) -> ParityReport:
    fields: dict[str, Any] = {
        "project": "test",
        "created": NOW - timedelta(hours=1),
        "model": ModelNamed(name="m", version=3, digest=MODEL.digest, contract=CONTRACT.hash),
        "shadow": True,
        "since": NOW - timedelta(days=1),
        "until": NOW - timedelta(hours=1),
        "newest": NOW - timedelta(hours=2),
        "sample": Sampled(served=960, uniform=400, required=299, stratified=130, compared_values=12_000, seed=7),
        "read": {},
        "ledger": {},
        "limit": 0.01,
        "confidence": 0.95,
        "mismatches": 0,
        "excused": 0,
        "stratum_mismatches": 0,
        "rejected": 0,
        "foreign": 0,
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


def evaluation(**changes: Any) -> Evaluation:
    return evaluation_of(MODEL.digest, CONTRACT.hash, **changes)


SOUND = evaluation()


def decided(settings: Settings, its_report: ParityReport, its_evaluation: Evaluation | None = SOUND) -> Decision:
    return decide(settings, RECIPE, MODEL, its_report, its_evaluation, NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"performance": measured(average_precision=0.49)},
            "average_precision on the held-out days is 0.490, 0.500 is asked for",
        ),
        ({"performance": measured(auc=0.799)}, "auc on the held-out days is 0.799, 0.800 is asked for"),
        (
            {"model": Evaluated(name="m", digest="e" * 64, contract=CONTRACT.hash)},
            "the evaluation is of model eeeeeeeeeeee, not dddddddddddd",
        ),
        (
            {"model": Evaluated(name="m", digest=MODEL.digest, contract="f" * 64)},
            "the evaluation is of model dddddddddddd, not dddddddddddd",
        ),
        (
            {"rules": rules_of(replace(RECIPE, ceilings=Ceilings(auc=1.0)))},
            "it was judged by other rules than today's: ceilings changed",
        ),
        ({"audit": None}, "nobody looked for leaks in its training"),
        (
            {"alarms": (Alarm(name="future_window", subject="next_amount (spine)", evidence="..."),)},
            "its training raised the alarm future_window: next_amount (spine)",
        ),
    ],
)
def test_a_model_whose_evaluation_does_not_speak_for_it_is_refused(
    settings: Settings, changes: dict[str, Any], reason: str
) -> None:
    assert decided(settings, report(), evaluation(**changes)).reasons == (reason,)


def test_a_version_that_names_no_evaluation_is_refused(settings: Settings) -> None:
    assert decided(settings, report(), None).reasons == ("the version names no evaluation",)


def test_a_metric_that_is_no_number_or_was_not_measured_is_not_reached() -> None:
    asked = {"auc": 0.8}
    assert unreached(asked, {"auc": 0.8}) == []
    assert unreached(asked, {"auc": float("nan")}) == ["auc on the held-out days is nan, 0.800 is asked for"]
    assert unreached(asked, {}) == ["auc on the held-out days was not measured, 0.800 is asked for"]


def test_an_evaluation_is_found_by_its_name_and_a_changed_one_is_not_believed(settings: Settings) -> None:
    lake = Lake.open(settings, "test")
    weak = evaluation(performance=measured(auc=0.5))
    name = keep_evaluation(settings, lake, weak)
    assert keep_evaluation(settings, lake, weak) == name
    assert lake.table("evaluations").scan().to_arrow().num_rows == 1, "what is there is not kept again"
    assert load_evaluation(settings, lake, name) == weak
    with pytest.raises(BadInput, match="there is no evaluation 'nope'"):
        load_evaluation(settings, lake, "nope")

    table = lake.table("evaluations").scan().to_arrow()
    table = table.set_column(table.column_names.index("json"), "json", [[evaluation().to_json()]])
    lake.drop("evaluations")
    lake.ensure_table("evaluations", table.schema)
    lake.append("evaluations", table)
    with pytest.raises(BadInput, match="was changed after it was made"):
        load_evaluation(settings, lake, name)


def test_an_evaluation_without_alarms_does_not_outweigh_one_with_them(settings: Settings) -> None:
    lake, rules = Lake.open(settings, "test"), rules_of(RECIPE)
    alarm = Alarm(name="too_good", subject="auc", evidence="...")
    clean, loud = keep_evaluation(settings, lake, SOUND), keep_evaluation(settings, lake, evaluation(alarms=(alarm,)))
    loose = rules_of(replace(RECIPE, ceilings=Ceilings(auc=1.0)))
    other_rules = evaluation(alarms=(alarm.model_copy(update={"subject": "x"}),), rules=loose)
    keep_evaluation(settings, lake, other_rules)

    expected = [f"its evaluation {loud[:12]} raised the alarm too_good: auc"]
    assert alarmed(settings, lake, MODEL.digest, rules, beside=clean) == expected
    assert alarmed(settings, lake, MODEL.digest, rules, beside=loud) == []
    assert alarmed(settings, lake, "e" * 64, rules, beside=clean) == []


def test_its_own_fresh_passing_report_lets_a_model_through(settings) -> None:
    assert decided(settings, report()).reasons == ()


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
            {"sample": Sampled(served=0, uniform=0, required=0, stratified=0, compared_values=0, seed=7)},
            "0 sampled rows, 299 needed",
        ),
        ({"mismatches": 9}, "only known to be below"),
        ({"upper_bound": 0.0001}, "not the one its counts give"),
        ({"excused": 120}, "120 of 400 rows are excused"),
        ({"rejected": 102}, "298 sampled rows, 299 needed"),
        ({"rejected": 201}, "201 of 400 sampled rows are rejected"),
        ({"excused": 50}, "not the one its counts give"),
        ({"excused": 102}, "298 sampled rows, 299 needed"),
        ({"newest": NOW - timedelta(hours=25)}, "newest row was asked for 1 day, 1:00:00 ago"),
        ({"newest": None}, "does not say when its newest row was asked for"),
        ({"newest": NOW + timedelta(minutes=6)}, "newest row was asked for -1 day"),
        ({"present": {"spend": 400}, "intervals": {"spend": 2}}, "does not cover the views"),
        ({"present": {"spend": 12}}, "spend: 12 sampled rows hold a value"),
        ({"intervals": {"spend": 1}}, "spend: rows of 1 committed interval(s)"),
        ({"shadow": False}, "about live rows"),
        ({"lost": 0.02}, "2.00% of the served log was lost"),
        ({"stratum_mismatches": 1}, "1 rows of the strata"),
        ({"foreign": 2}, "2 log rows of this model name a contract that is not its own"),
        ({"lost": float("nan")}, "nan% of the served log was lost"),
        ({"limit": float("nan")}, "the report excludes nan%"),
        ({"confidence": float("nan")}, "the report excludes 1.00% with nan%"),
        ({"upper_bound": float("nan")}, "not the one its counts give"),
        ({"until": NOW + timedelta(minutes=6)}, "the report's window ends 0:06:00 from now"),
    ],
)
def test_a_forged_stale_foreign_or_empty_report_is_refused(settings, changes: dict[str, Any], reason: str) -> None:
    decision = decided(settings, report(**changes))
    assert not decision.passed
    assert any(reason in given for given in decision.reasons), decision.reasons


def test_a_clock_that_is_a_little_ahead_of_the_gates_makes_no_report_one_of_the_future(settings: Settings) -> None:
    ahead = NOW + settings.request_time_limit
    assert decided(settings, report(created=ahead, until=ahead, newest=ahead)).reasons == ()
    late = ahead + timedelta(seconds=1)
    assert len(decided(settings, report(created=late, until=late, newest=late)).reasons) == 3


def test_a_limit_loosened_in_the_report_does_not_loosen_the_gate(settings) -> None:
    few = Sampled(served=60, uniform=59, required=59, stratified=10, compared_values=100, seed=7)
    loose = report(sample=few, limit=0.05, upper_bound=upper_bound(0, 59, 0.95))
    assert not decided(settings, loose).passed


def test_a_report_that_nobody_with_the_key_signed_lets_no_model_through(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "require_model", lambda *_: MODEL)
    lake, ledger = Lake.open(settings, "test"), Ledger.open(settings, "test")
    keys = make_keys(settings)
    store(lake, a_report(), Ed25519PrivateKey.generate())
    with pytest.raises(Refused, match=f"is not by the key that {keys.public} verifies"):
        gate.require_passed(settings, fraud, lake, ledger, "3", a_report().hash)
    keys.public.unlink()
    with pytest.raises(BadInput, match="there is no key to verify parity reports with"):
        gate.require_passed(settings, fraud, lake, ledger, "3", a_report().hash)


FALLBACK = CONTRACT.model_copy(update={"feature_service": "s_fallback"})
WITH_FALLBACK = replace(MODEL, contract=CONTRACT.model_copy(update={"fallback": FALLBACK}))


def named(contract: FeatureContract) -> ModelNamed:
    return ModelNamed(name="m", version=3, digest=MODEL.digest, contract=contract.hash)


def test_a_model_is_promoted_when_the_parity_of_its_fallback_is_proven_too(settings: Settings) -> None:
    main = report(model=named(WITH_FALLBACK.contract))
    sound = evaluation(model=Evaluated(name="m", digest=MODEL.digest, contract=WITH_FALLBACK.contract.hash))

    def reasons(of_fallback: ParityReport | None) -> tuple[str, ...]:
        return decide(settings, RECIPE, WITH_FALLBACK, main, sound, NOW, of_fallback).reasons

    assert reasons(report(model=named(FALLBACK))) == ()
    assert reasons(None) == ("fallback: no report speaks for it",)
    assert reasons(main) == (
        f"fallback: the report is about contract {WITH_FALLBACK.contract.hash[:12]}, not {FALLBACK.hash[:12]}",
    )
    failed = report(model=named(FALLBACK), verdict=Verdict.FAIL, mismatches=9, upper_bound=upper_bound(9, 400, 0.95))
    assert reasons(failed)[0] == "fallback: the report's verdict is fail"
    live = report(model=named(FALLBACK), shadow=False)
    assert reasons(live) == ("fallback: the report is about live rows, not about a shadow replay",)


def test_of_a_model_without_a_fallback_no_second_report_is_asked_for(settings: Settings) -> None:
    assert decided(settings, report()).passed
    assert decide(settings, RECIPE, MODEL, report(), SOUND, NOW, report()).reasons == (
        "a report speaks for a fallback, and the model has none",
    )
