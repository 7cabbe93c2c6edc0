"""What the demo leaves: the numbers of `report.json`, a table for the terminal, and the page to look at."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.expressions import And, EqualTo, IsNull

from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.monitoring.inventory import inventory
from lockstep.online import store
from lockstep.parity.cause import Cause
from lockstep.parity.page import Quality, QualityBar, render
from lockstep.parity.report import ParityReport
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.training.evaluations import load_evaluation
from lockstep.training.page import render as render_training
from lockstep.training.registry import EVALUATION_TAG, Registered
from lockstep.views import UseCase
from pipelines._demo.candidate import Candidate
from pipelines._demo.world import Requests, Scenario

PAGE = "parity.html"
TRAINING_PAGE = "evaluation.html"
EVENT_PREFIX = b"_ts:"
"""Feast's own: the field that says which event a view's stored values belong to."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to promote a candidate: the reports of it and of its fallback, and whether the gate let it through."""

    candidate: Candidate
    report: ParityReport
    of_fallback: ParityReport | None
    promoted: bool


def make_report(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    candidates: Sequence[Candidate],
    attempts: Sequence[Attempt],
    scenario: Scenario,
    requests: Requests,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return what `report.json` holds; the candidates are: without feature views, with them, with one misread."""
    before, after, skewed = candidates
    clean, refused = attempts
    views = _views(settings, use_case, lake, ledger)
    served = {name: c.quality(requests) for name, c in (("before", before), ("after", after), ("skewed", skewed))}
    drop = served["after"]["average_precision"] - served["skewed"]["average_precision"]
    return {
        "views": views,
        "online_rows": sum(view["online_rows"] for view in views.values()),
        "baseline": before.described(),
        "model": after.described(),
        "quality": {
            "days": len({time // 86_400_000_000 for time in requests.times_us.tolist()}),
            "requests": len(requests.labels),
            "positives": int(requests.labels.sum()),
            **served,
        },
        "served": _served(lake, after.model),
        "parity": _parity(clean.report),
        "fallback_parity": _parity(clean.of_fallback) if clean.of_fallback else None,
        "promoted": clean.promoted,
        "skew": {
            **scenario.SKEW,
            "model": skewed.described(),
            "average_precision_drop": drop,
            "parity": _parity(refused.report),
            "promoted": refused.promoted,
        },
        "page": str(settings.home / PAGE),
        "seconds": seconds,
    }


def write_page(settings: Settings, attempts: Sequence[Attempt], report: dict[str, Any], positives: str) -> None:
    """Write the page: both verdicts, and what the features and their parity are worth."""
    quality = report["quality"]
    labels = {"before": report["baseline"]["version"], "after": report["model"]["version"]}
    labels["skewed"] = report["skew"]["model"]["version"]
    notes = {"before": "without feature views", "after": "with feature views", "skewed": _misread(report["skew"])}
    bars = tuple(
        QualityBar(f"version {labels[name]}", quality[name]["average_precision"], quality[name]["auc"], notes[name])
        for name in notes
    )
    shown = Quality(
        days=quality["days"],
        rows=quality["requests"],
        positives=quality["positives"],
        positive_name=positives,
        bars=bars,
        row_name="requests",
    )
    page = render([attempt.report for attempt in attempts], quality=shown)
    (settings.home / PAGE).write_text(page, encoding="utf-8")


def write_training_page(settings: Settings, use_case: UseCase, lake: Lake, model: Registered) -> None:
    """Write the page about how good the model is, and how sure that is."""
    evaluation = load_evaluation(settings, lake, model.tags[EVALUATION_TAG])
    title = f"Evaluation of version {model.version}"
    page = render_training(evaluation, title=title, words=use_case.model.words)
    (settings.home / TRAINING_PAGE).write_text(page, encoding="utf-8")


def caught(report: dict[str, Any]) -> bool:
    """Tell whether the injected skew was refused, and its column and no other named as the cause's."""
    parity = report["skew"]["parity"]
    return not report["skew"]["promoted"] and parity["differing"] == {report["skew"]["column"]: "wrong_row"}


def summary(report: dict[str, Any]) -> str:
    """Return what a person wants to know of the report, as a table of plain text."""
    quality, skew = report["quality"], report["skew"]
    lines = [f"{'view':<18}{'rows in the lake':>17}{'keys online':>13}  {'watermark':<18}freshness"]
    lines += [
        f"{name:<18}{view['rows']:>17,}{view['online_rows']:>13,}  {view['watermark'][:16]:<18}"
        f"{_hours(view['age_seconds'])} of {_hours(view['objective_seconds'])} {'hard' if view['hard'] else 'soft'}: "
        f"{view['freshness']}"
        for name, view in report["views"].items()
    ]
    title = f"{_days(quality['days'])}, {quality['requests']:,} requests, {quality['positives']} positive"
    lines += ["", f"{title:<58}{'average precision':>18}{'AUC':>8}"]
    for name, version, what in (
        ("before", report["baseline"]["version"], "without feature views"),
        ("after", report["model"]["version"], "with feature views"),
        ("skewed", skew["model"]["version"], f"the same model, {_misread(skew)}"),
    ):
        found = quality[name]
        lines.append(f"{f'version {version}: {what}':<58}{found['average_precision']:>18.3f}{found['auc']:>8.3f}")
    lines += [
        "",
        _outcomes(report["model"]["version"], report["served"]),
        *_told(report["model"]["version"], report["parity"], report["fallback_parity"], promoted=report["promoted"]),
        *_told(skew["model"]["version"], skew["parity"], promoted=skew["promoted"]),
        "",
        f"took {report['seconds']['total']:.0f} s",
    ]
    return "\n".join(lines)


def _days(number: int) -> str:
    return f"{number} day{'s' * (number != 1)}"


def _outcomes(version: int, served: dict[str, Any]) -> str:
    flags = ", ".join(f"{flag} {rows:,}" for flag, rows in served["flags"].items())
    told = (
        f"version {version}  served {served['rows']:,} rows: {served['fresh']:,} fresh, {served['flagged']:,} flagged"
    )
    return told + (f" ({flags})" if flags else "") + f", {served['fallback']:,} by the fallback model"


def _served(lake: Lake, model: Registered) -> dict[str, Any]:
    """Count what a model was served for, by what its answers said; replayed rows, which the demo sends as well, among it."""
    table = lake.table(SERVED_LOG).scan(
        row_filter=And(EqualTo("model", model.digest), IsNull("rejected")), selected_fields=("contract", "flags")
    )
    rows = table.to_arrow().to_pylist()
    by_main = [row for row in rows if row["contract"] == model.contract.hash]
    flagged = sum(bool(row["flags"]) for row in by_main)
    return {
        "rows": len(rows),
        "fresh": len(by_main) - flagged,
        "flagged": flagged,
        "fallback": len(rows) - len(by_main),
        "flags": dict(sorted(Counter(flag for row in rows for flag in row["flags"]).items())),
    }


def _told(
    version: int, parity: dict[str, Any], fallback: dict[str, Any] | None = None, *, promoted: bool
) -> list[str]:
    found = f"{parity['mismatches']} mismatches in {parity['sampled']} rows sampled of all that were served"
    lines = [f"version {version}  parity {parity['verdict']}: {found}"]
    lines.append(f"           {parity['compared_values']:,} values compared, those of the strata included")
    named = ", ".join(f"{feature} ({cause})" for feature, cause in parity["differing"].items())
    lines += [f"           differs: {named}"] if named else []
    if fallback:
        found = f"{fallback['mismatches']} mismatches in {fallback['sampled']} rows of a replay"
        lines.append(f"           its fallback's parity {fallback['verdict']}: {found}")
    lines.append(f"           {'promoted: it is the champion now' if promoted else 'refused by the gate'}")
    return lines


def _misread(skew: dict[str, Any]) -> str:
    return f"{skew['column']} read from {skew['read']}"


def _parity(report: ParityReport) -> dict[str, Any]:
    found = {feature.name: _unexcused(feature.causes) for feature in report.features}
    differing = {name: max(causes, key=causes.__getitem__) for name, causes in found.items() if causes}
    return {
        "report": report.hash,
        "sampled": report.sample.uniform,
        "compared_values": report.sample.compared_values,
        "intervals": min(report.intervals.values(), default=0),
        "mismatches": report.mismatches,
        "excused": report.excused,
        "upper_bound": report.upper_bound,
        "verdict": report.verdict.value,
        "causes": report.causes,
        "differing": differing,
    }


def _unexcused(causes: dict[str, int]) -> dict[str, int]:
    return {cause: rows for cause, rows in causes.items() if not Cause(cause).excused}


def _views(settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Return, per stored view, its rows in the lake, the keys the online store has a row for, and how fresh it is."""
    online = _online_rows(settings)
    return {
        view.name: {
            "rows": view.rows,
            "online_rows": online.get(view.name, 0),
            "watermark": view.watermark.isoformat() if view.watermark else "",
            "age_seconds": int(view.age.total_seconds()) if view.age else 0,
            "objective_seconds": int(view.objective.total_seconds()),
            "hard": view.hard,
            "freshness": view.freshness,
        }
        for view in inventory(settings, use_case, lake, ledger, {})
        if view.objective is not None
    }


def _online_rows(settings: Settings) -> Counter[str]:
    """Count, per view, the keys that the online store really has a row for."""
    found: Counter[str] = Counter()
    with store.connect(settings) as redis:
        for key in redis.scan_iter(count=1_000, _type="hash"):
            fields = [field for field in redis.hkeys(key) if field.startswith(EVENT_PREFIX)]
            found.update(field.removeprefix(EVENT_PREFIX).decode() for field in fields)
    return found


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.0f} h"
