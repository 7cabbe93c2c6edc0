"""Make a report again from the log, the ledger and the lake, and say what it has different: a report is believed in nothing."""

from dataclasses import replace
from datetime import UTC, datetime
from math import isclose
from typing import Any, cast

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract, View
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity.report import ParityReport
from lockstep.parity.sample import Window, find_served
from lockstep.parity.verdict import MOST_LOST, twice_named
from lockstep.parity.verify import Question, measure, own_seed
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.training.registry import Registered
from lockstep.views import UseCase

# What depends on nothing but the log, the ledger and the lake: not when it was made, nor what made it.
_COUNTS = (
    *("project", "model", "newest", "upper_bound", "reasons"),
    *("sample", "ledger", "mismatches", "excused", "stratum_mismatches", "rejected", "foreign", "lost", "present"),
    *("intervals", "verdict", "features", "strata", "causes", "hours"),
)
_ROUNDING = 1e-9
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


def unrepeatable(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, model: Registered, report: ParityReport
) -> list[str]:
    """Return what a report says otherwise than sampling, comparing and judging the same rows again does now.

    The same snapshots are read, so that what came later changes nothing; but for the ledger, which has to say the same up to the
    window's end, and the log: as it is by now, it may have no more rows of the window, or since, than may be lost, and nothing
    that would fail the window.

    Args:
        settings: the engine; the limit is that of the report.
        use_case: the definitions that training would use.
        lake: the tables.
        ledger: tells when what was online.
        model: whose report it is, or whose fallback's.
        report: what is made again.
    """
    contract = next((of for of in model.contract.with_fallback if of.hash == report.model.contract), None)
    if contract is None:
        return []  # of other rows than the model's: that is refused without looking at them
    if told := _asks_nothing(report):
        return [told]
    question = Question(
        shadow=report.shadow,
        since=report.since,
        until=report.until,
        rows=report.sample.uniform,
        fallback=contract is model.contract.fallback,
        read=report.read,
    )
    if report.sample.seed != own_seed(model.digest, contract, shadow=report.shadow):
        return ["its sample was drawn by a seed of somebody's choice"]
    limits = {"parity_limit": report.limit, "parity_confidence": report.confidence}
    try:
        if told := [old for view in contract.views if (old := _reads_too_little(lake, ledger, view, report))]:
            return told
        again = measure(settings.model_copy(update=limits), use_case, lake, ledger, model, question)
    except BadInput as gone:
        return [f"it cannot be made again: {gone.args[0]}"]
    ours, theirs = _said(again), _said(report)
    told = [
        f"made again, its {name} is {_short(ours[name])}, not {_short(theirs[name])}"
        for name in ours
        if not _same(ours[name], theirs[name])
    ]
    return told + _came_later(settings, lake, model, contract, report)


def _said(report: ParityReport) -> dict[str, Any]:
    """Return what a report says that another one of the same rows has to say too; of the differences, which they are."""
    told = report.model_dump(mode="json", include={*_COUNTS, "scores"})
    differences = [[d.row, d.kind, d.view, d.feature or "", d.cause] for d in report.differences]
    return {**{name: told[name] for name in _COUNTS}, "differences": sorted(differences), "scores": told["scores"]}


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values of a report are equal, fractions but for the rounding of another machine."""
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=0, abs_tol=_ROUNDING)
    if isinstance(one, dict) and isinstance(other, dict):
        ours, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return ours.keys() == theirs.keys() and all(_same(ours[name], theirs[name]) for name in ours)
    return one == other


def _asks_nothing(report: ParityReport) -> str:
    """Return why the report's question is none; "" if it can be asked again."""
    if report.until <= report.since:
        return "its window ends before it begins"
    if not (0 < report.limit < 1 and 0 < report.confidence < 1):
        return f"its limit is {report.limit} and its confidence {report.confidence}, which are no shares"
    return ""


def _reads_too_little(lake: Lake, ledger: Ledger, view: View, report: ParityReport) -> str:
    """Return why the snapshot that stands for training is none; "" if it has all that a request of the window could see."""
    if view.table not in report.read:
        return f"it does not say which snapshot of {view.table} was read"
    sequences = {snapshot.id: snapshot.sequence for snapshot in lake.snapshots(view.table)}
    computed = [
        sequences.get(row.snapshot_id or 0, 0)
        for row in ledger.computes(view.name)
        if row.planned_at + view.visible_lag_us * MICROSECOND < report.until
    ]
    if sequences.get(report.read[view.table], 0) < max(computed, default=0):
        return f"it reads {view.table} as it was before the end of its window"
    return ""


def _came_later(
    settings: Settings, lake: Lake, model: Registered, contract: FeatureContract, report: ParityReport
) -> list[str]:
    """Return what the log, as it is by now, holds against the report."""
    window = Window(model.digest, contract, report.shadow, report.since, report.until)
    known = [of.hash for of in model.contract.with_fallback]
    found, served = find_served(settings, lake, window, known=known), report.sample.served
    now = len(found.rows)
    rules = {
        f"{SERVED_LOG} has {now} rows of its window by now, it was made of {served}": now - served > MOST_LOST * now,
        f"by now, {found.foreign} log rows of its window name a contract that is not the model's": found.foreign > 0,
        f"by now, {found.lost:.2%} of its window's log is lost, at most {MOST_LOST:.0%} may be": found.lost
        > MOST_LOST,
        f"by now, {twice_named(found.twice)}": found.twice > 0,
    }
    since = len(find_served(settings, lake, replace(window, since=report.until, until=_FOR_EVER), known=known).rows)
    rules[f"verify again: {since} rows were served since its window"] = since > MOST_LOST * served
    return [reason for reason, holds in rules.items() if holds]


def _short(value: object, most: int = 80) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"
