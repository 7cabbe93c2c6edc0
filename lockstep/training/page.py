"""One self-contained page for people: how good a model is, how sure that is, what it finds, leans on and learned from.

What is said is decided here; `page.html.jinja` arranges it in the frame of every page (`lockstep.report`).
"""

from dataclasses import dataclass

from lockstep.report.numbers import decimal, percent, signed, whole
from lockstep.report.page import environment
from lockstep.training import charts
from lockstep.training.evaluation.document import (
    CONFIDENCE,
    Comparison,
    Estimate,
    Evaluation,
    FeatureImportance,
    Interval,
)
from lockstep.views.use_case import Words

FEATURES_TOLD = 12


@dataclass(frozen=True)
class Headline:
    """What happens, and why; `sign` is the mark that stands beside it: pass, fail, or not_enough_evidence."""

    sign: str
    happens: str
    why: str


@dataclass(frozen=True)
class MetricRow:
    """A metric of the model beside that of the champion or a guess."""

    name: str
    explained: str
    model: Estimate
    other: float
    difference: Estimate


def render(evaluation: Evaluation, *, title: str, words: Words | None = None) -> str:
    """Return the page: HTML that is well-formed XML too, loads nothing and runs nothing. Same evaluation, same bytes.

    Args:
        evaluation: what is shown.
        title: what the page is about.
        words: what the use case calls things.
    """
    said = (headline, rival, metric_rows, interval, important, late)
    return (
        environment("lockstep.training")
        .get_template("page/page.html.jinja")
        .render(
            {f.__name__: f for f in said},
            evaluation=evaluation,
            title=title,
            words=words or Words(),
            charts=charts,
        )
    )


def headline(evaluation: Evaluation) -> Headline:
    """Return the one sentence: whether the model may be believed, and if so whether it is better than what there is."""
    reached = f"average precision {decimal(evaluation.performance.average_precision.value)}"
    compared, than = evaluation.comparison, rival(evaluation.comparison)
    if evaluation.alarms:
        count = len(evaluation.alarms)
        alarms = "an alarm says" if count == 1 else f"{whole(count)} alarms say"
        return Headline("fail", "Not to be trusted", f"{reached}, but {alarms} that it may be too good to be true")
    difference, other = compared.average_precision, decimal(compared.metrics.average_precision)
    if difference.interval is None:
        return Headline("not_enough_evidence", "Cannot be judged", f"{reached}, of too few to say how sure that is")
    sure = f"{percent(CONFIDENCE)} interval of the difference: {interval(difference.interval, sign=True)}"
    against = f"{reached} against {other} ({sure})"
    if difference.interval.low > 0:
        sign = (
            "not_enough_evidence" if compared.incomparable else "pass"
        )  # a guess is beaten, but a champion was not asked
        return Headline(sign, f"Better than {than}", against)
    if difference.interval.high < 0:
        return Headline("fail", f"Worse than {than}", against)
    return Headline("not_enough_evidence", f"Not told apart from {than}", against)


def rival(comparison: Comparison) -> str:
    """Return what the model is held against."""
    if comparison.champion is None:
        return "a guess"
    version = comparison.champion.version
    return "the champion" if version is None else f"version {version}"


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """Return the three metrics, the model's beside the other's."""
    performance, compared = evaluation.performance, evaluation.comparison
    told = (
        ("average_precision", "Average precision", "how pure the highest scores are"),
        ("auc", "AUC", "how often a positive is ranked above a negative"),
        ("entity_precision", f"Precision of the top {whole(performance.daily.top)}", "a day, the mean of the days"),
    )
    return [
        MetricRow(name, explained, getattr(performance, key), getattr(compared.metrics, key), getattr(compared, key))
        for key, name, explained in told
    ]


def interval(found: Interval | None, *, sign: bool = False) -> str:
    """Write an interval: 0.55 to 0.68; of a difference, with signs."""
    if found is None:
        return "unknown"
    write = signed if sign else decimal
    return f"{write(found.low)} to {write(found.high)}"


def important(evaluation: Evaluation) -> tuple[tuple[FeatureImportance, ...], tuple[FeatureImportance, ...]]:
    """Return the features that are drawn, and those that are only named."""
    features = evaluation.importance.features if evaluation.importance else ()
    return features[:FEATURES_TOLD], features[FEATURES_TOLD:]


def late(seconds: float) -> str:
    """Write how late something is, in the largest unit that it has at least one of: 6 h, 45 s."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
