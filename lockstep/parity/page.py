"""One self-contained page for people: the verdict first, then what differs, in which features, since when, to what effect.

What is said is decided here; `page.html.jinja` arranges it in the frame of every page (`lockstep.report`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockstep.clock import from_micros
from lockstep.parity import charts
from lockstep.parity.cause import EXCUSED
from lockstep.parity.remedies import remedies
from lockstep.parity.report import DifferenceFound, FeatureRate, ParityReport, Stratum
from lockstep.parity.verdict import Verdict
from lockstep.report.numbers import moment, percent, percent_above, whole
from lockstep.report.page import environment

FINDINGS_TOLD, EXAMPLES_TOLD, HOURS_TOLD = 4, 3, 6
TITLE = "Parity of served predictions"
CAUSE_WORDS = {
    "early": "served before a training set may see it, inside the lag that the view declares",
    "late": "training takes a row that came online after the request, inside the freshness objective",
    "erased": "the entity was erased since",
    "materialization_gap": "what training takes was not online in time, or less was than the store claims",
    "unvouched": "read from a store that lost writes or had slots moved, before the next run had written all of it again",
    "in_flight": "read while the view was being written, and no snapshot of that moment explains it",
    "stale_rewrite": "the row was written again for the same time, and the older one was served",
    "missing": "the lake holds a row inside its ttl, and none was read",
    "ttl": "a row past its ttl was used, or one inside it was not",
    "schema_drift": "the view is not what the model was trained on",
    "type": "the value is right but for a conversion: precision, a unit, null",
    "transform": "what is stored is equal, and what the on-demand function makes of it is not",
    "wrong_row": "the served values are another key's, another view's or another column's",
    "clock_skew": "the clock of the process that served was apart from the pipelines'",
    "version_mix": "another version than this one made the vector, or scored it",
    "corruption": "the values match no row that was ever written",
    "unexplained": "no known cause explains it",
}


@dataclass(frozen=True)
class QualityBar:
    """How good one model is on the days that were served; `note` says what is special about it."""

    label: str
    average_precision: float
    auc: float
    note: str = ""


@dataclass(frozen=True)
class Quality:
    """What features, and their parity, are worth on the days that were served.

    Attributes:
        days: how many.
        rows: rows on those days.
        positives: how many of them are positive.
        positive_name: what positives are called, as in "frauds".
        bars: the models that are held against each other.
        row_name: what rows are called, as in "payments".
    """

    days: int
    rows: int
    positives: int
    positive_name: str
    bars: tuple[QualityBar, ...]
    row_name: str = "rows"


@dataclass(frozen=True)
class Finding:
    """A feature (None: the row as a whole) that differs for one cause.

    Attributes:
        rows: rows of the uniform sample in which it does; None for a row as a whole, which no count in a report is about.
        kept: how many such differences the report keeps.
        evidence: of the first of them; empty if none is kept.
        examples: (row, served, expected) of some.
    """

    view: str
    feature: str | None
    cause: str
    rows: int | None
    kept: int
    evidence: str
    examples: tuple[tuple[str, str, str], ...]

    @property
    def excused(self) -> bool:
        """Whether it makes no mismatch."""
        return self.cause in EXCUSED


@dataclass(frozen=True)
class Agreement:
    """How a feature's rows divide; `equal`, `excused` and `mismatch` add up to `rate.compared`."""

    rate: FeatureRate
    equal: int
    excused: int
    mismatch: int


def render(reports: Sequence[ParityReport], *, title: str = TITLE, quality: Quality | None = None) -> str:
    """Return the page: HTML that is well-formed XML too, loads nothing and runs nothing. Same reports, same bytes.

    Args:
        reports: shown in this order.
        title: what the page is about.
        quality: what the features are worth, if that is to be shown too.
    """
    said = (headline, other_reasons, findings, remedies, agreements, strata_with_mismatches)
    return (
        environment("lockstep.parity")
        .get_template("page/page.html.jinja")
        .render(
            {f.__name__: f for f in said},
            reports=reports,
            title=title,
            quality=quality,
            charts=charts,
            cause_words=CAUSE_WORDS,
            findings_told=FINDINGS_TOLD,
        )
    )


def headline(report: ParityReport) -> tuple[str, str]:
    """Return the verdict as one sentence in two parts: what happens to the version, and why."""
    version, rows = f"Version {report.model.version}", whole(report.sample.uniform)
    match report.verdict:
        case Verdict.PASS:
            wrong = f"{whole(report.mismatches)} mismatch{'' if report.mismatches == 1 else 'es'} in {rows} rows"
            bound = f"at {percent(report.confidence)} confidence fewer than {percent_above(report.upper_bound)} differ"
            return f"{version} passes", f"{wrong}, so {bound}"
        case Verdict.FAIL:
            return f"{version} is refused", _failing(report)
        case Verdict.NOT_ENOUGH_EVIDENCE:
            return f"{version} cannot be judged yet", next(iter(report.reasons), f"{rows} rows are too few")


def _failing(report: ParityReport) -> str:
    """Word it as `judge` does, so that the headline is one of the report's reasons."""
    if report.mismatches and report.upper_bound >= report.limit:
        return f"{report.mismatches} of {report.sample.uniform} sampled rows are mismatches"
    return f"{report.stratum_mismatches} rows of the stratified sample are mismatches"


def other_reasons(report: ParityReport) -> list[str]:
    """Return the reasons that the headline does not give."""
    return [reason for reason in report.reasons if reason != headline(report)[1]]


def findings(report: ParityReport) -> list[Finding]:
    """Return what differs and why: mismatches before what is excused, then by the number of rows.

    A row as a whole is named only where no feature of its view is, for the same cause.
    """
    kept: defaultdict[tuple[str, str | None, str], list[DifferenceFound]] = defaultdict(list)
    for difference in report.differences:
        kept[difference.view, difference.feature, difference.cause].append(difference)
    found = [
        _finding(rate.view, rate.name, cause, rows, kept[rate.view, rate.name, cause])
        for rate in report.features
        for cause, rows in rate.causes.items()
    ]
    named = {(f.view, f.feature, f.cause) for f in found}
    views = {(f.view, f.cause) for f in found}
    found += [
        _finding(view, feature, cause, None, differences)
        for (view, feature, cause), differences in kept.items()
        if differences and (view, feature, cause) not in named and not (feature is None and (view, cause) in views)
    ]
    return sorted(found, key=lambda f: (f.excused, -(f.rows or 0), f.view, f.feature or "", f.cause))


def _finding(view: str, feature: str | None, cause: str, rows: int | None, kept: Sequence[DifferenceFound]) -> Finding:
    told: dict[tuple[str, str], str] = {}
    for difference in kept:
        told.setdefault(_pair(feature, difference.served, difference.expected), difference.row)
    examples = tuple((row, *pair) for pair, row in list(told.items())[:EXAMPLES_TOLD])
    return Finding(view, feature, cause, rows, len(kept), kept[0].evidence if kept else "", examples)


def _pair(feature: str | None, served: Any, expected: Any) -> tuple[str, str]:
    """Write two values so that they are seen to differ; of two stored rows, only the columns in which they do."""
    if isinstance(served, dict) and isinstance(expected, dict):
        names = [name for name in {**served, **expected} if served.get(name) != expected.get(name)]
        return _columns(served, names), _columns(expected, names)
    if feature is None:
        # `compare` gives a row as a whole by its event time.
        served, expected = (from_micros(v) if isinstance(v, int) else v for v in (served, expected))
    short = _value(served, "{:.6g}"), _value(expected, "{:.6g}")
    return short if short[0] != short[1] else (_value(served, "{!r}"), _value(expected, "{!r}"))


def _columns(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {_value(row.get(name), '{!r}')}" for name in names)


def _value(value: Any, number: str) -> str:
    match value:
        case None:
            return "no value"
        case float():
            return number.format(value)
        case datetime():
            return f"row of {moment(value)}"
        case dict():
            return _columns(value, value)
        case _:
            return str(value)


def agreements(report: ParityReport) -> tuple[list[Agreement], dict[str, list[str]]]:
    """Return the features that differ, worst first, and by view the names of those that agree in every row."""
    differing: list[Agreement] = []
    agreeing: defaultdict[str, list[str]] = defaultdict(list)
    for rate in report.features:
        if rate.differing:
            equal, excused = rate.compared - rate.differing, rate.differing - rate.mismatches
            differing.append(Agreement(rate, equal, excused, rate.mismatches))
        else:
            agreeing[rate.view].append(rate.name)
    return sorted(differing, key=lambda a: (-a.mismatch, -a.excused, a.rate.view, a.rate.name)), dict(agreeing)


def strata_with_mismatches(report: ParityReport) -> list[Stratum]:
    """Return the strata with mismatches, all hours of a long window as one: the chart shows them one by one."""
    wrong = [stratum for stratum in report.strata if stratum.mismatches]
    hours = [stratum for stratum in wrong if stratum.name.startswith("hour ")]
    others = [stratum for stratum in wrong if stratum not in hours]
    if len(hours) <= HOURS_TOLD:
        return [*others, *hours]
    every = sum(stratum.name.startswith("hour ") for stratum in report.strata)
    name = f"{len(hours):,} of {every:,} hours"
    return [*others, Stratum(name=name, rows=sum(h.rows for h in hours), mismatches=sum(h.mismatches for h in hours))]
