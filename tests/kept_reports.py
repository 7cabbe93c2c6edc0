"""A report to keep: of a model that served 960 rows, of which one in 400 was found missing."""

from typing import Any

from lockstep.clock import parse_time
from lockstep.parity.report import (
    DifferenceFound,
    FeatureRate,
    HourCompared,
    ModelNamed,
    ParityReport,
    Sampled,
    ScoreShift,
    Stratum,
)
from lockstep.parity.verdict import Verdict

AT = parse_time("2018-06-30T00:00:00Z")


def a_report(**changes: Any) -> ParityReport:
    """One that uses every field, but for what is given."""
    fields: dict[str, Any] = {
        "project": "fraud",
        "created": AT,
        "model": ModelNamed(name="fraud", version=3, digest="d" * 64, contract="c" * 64),
        "shadow": True,
        "since": parse_time("2018-06-29T00:00:00Z"),
        "until": AT,
        "newest": parse_time("2018-06-29T23:59:58Z"),
        "sample": Sampled(served=960, uniform=400, required=299, stratified=130, compared_values=12_000, seed=7),
        "read": {"served_log": 11, "terminal_risk": 12},
        "ledger": {"terminal_risk": "e" * 64},
        "limit": 0.01,
        "confidence": 0.95,
        "mismatches": 1,
        "excused": 2,
        "stratum_mismatches": 0,
        "rejected": 0,
        "foreign": 0,
        "lost": 0.0,
        "present": {"terminal_risk": 399},
        "intervals": {"terminal_risk": 25},
        "upper_bound": 0.0118,
        "verdict": Verdict.FAIL,
        "reasons": ("1 of 400 sampled rows are mismatches",),
        "features": (
            FeatureRate(name="risk_7d", view="terminal_risk", compared=400, differing=1, causes={"missing": 1}),
            FeatureRate(name="risk_1d", view="terminal_risk", compared=400, differing=0, causes={}),
        ),
        "strata": (Stratum(name="hour 2018-06-29T04Z", rows=5, mismatches=0),),
        "causes": {"missing": 1},
        "differences": (
            DifferenceFound(
                row="r/0",
                kind="training",
                view="terminal_risk",
                feature="risk_7d",
                served=None,
                expected=0.25,
                cause="missing",
                evidence="the logged snapshot has a row of (event, created) = (1, 2)",
            ),
        ),
        "hours": (HourCompared(hour=parse_time("2018-06-29T04:00:00Z"), rows=17, mismatches=1, excused=2),),
        "scores": ScoreShift.between([0.25, 0.75, 1.0], [0.25, 0.125, 1.0], threshold=0.5),
    }
    return ParityReport(**(fields | changes))
