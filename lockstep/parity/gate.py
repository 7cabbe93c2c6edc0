"""The gate: no model is promoted without a report that is its own, fresh, whole, and passed."""

import math
from dataclasses import dataclass
from datetime import datetime

from lockstep.contract import FeatureContract
from lockstep.errors import Refused
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity.kept import load
from lockstep.parity.repeat import unrepeatable
from lockstep.parity.report import ParityReport
from lockstep.parity.verdict import MOST_EXCUSED, MOST_LOST, Verdict, evidence, lacks, upper_bound
from lockstep.settings import Settings
from lockstep.training.evaluation.document import Evaluation
from lockstep.training.evaluations import alarmed, load_evaluation
from lockstep.training.registry import EVALUATION_TAG, Registered, require_model
from lockstep.training.rules import rules_of, unsound
from lockstep.training.thresholds import missed
from lockstep.views import ModelRecipe, UseCase


@dataclass(frozen=True)
class Decision:
    """Whether the model may be promoted, and why not."""

    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """No reason speaks against it."""
        return not self.reasons


def require_passed(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    which: str,
    report: str,
    fallback_report: str = "",
) -> Registered:
    """Return the model that an alias or a version names, if the gate lets it through now.

    Nothing that a report says is believed: the same rows are sampled, compared and judged again.

    Args:
        settings: the gate's limits, the clock.
        use_case: names the model, and its thresholds.
        lake: has the reports, the served log and the views' tables.
        ledger: tells when what was online.
        which: an alias or a version.
        report: the name of the report that speaks for it.
        fallback_report: the name of the one that speaks for its fallback.

    Raises:
        BadInput: there is no such model or report.
        Refused: it is not let through, every reason being named; or a report is not as it was signed.
    """
    recipe = use_case.model
    model = require_model(settings, recipe.name, which)
    named = model.tags.get(EVALUATION_TAG, "")
    evaluation = load_evaluation(settings, lake, named) if named else None
    of_model = load(settings, lake, report)
    of_fallback = load(settings, lake, fallback_report) if fallback_report else None
    now = settings.clock.now()
    decision = decide(settings, recipe, model, of_model, evaluation, now, of_fallback)
    reasons = [*decision.reasons, *alarmed(settings, lake, model.digest, rules_of(recipe), beside=named)]
    for whose, made in (("", of_model), ("fallback: ", of_fallback)):
        if made is not None:
            again = unrepeatable(settings, use_case, lake, ledger, model, made)
            reasons += [f"{whose}{reason}" for reason in again]
    if reasons:
        raise Refused(f"version {model.version} is not promoted: {'; '.join(reasons)}")
    return model


def decide(
    settings: Settings,
    recipe: ModelRecipe,
    model: Registered,
    report: ParityReport,
    evaluation: Evaluation | None,
    now: datetime,
    of_fallback: ParityReport | None = None,
) -> Decision:
    """Bind reports and an evaluation to a model: everything they claim is checked again, against the gate's own limits.

    Args:
        settings: the gate's limits; those written in a report are not trusted.
        recipe: what the use case asks of a model on the held-out days, and by which rules it has it judged.
        model: what is to be promoted, its digest just computed from its files.
        report: what speaks for its parity.
        evaluation: what speaks for its worth; None if the version names none.
        now: when.
        of_fallback: what speaks for the parity of its fallback, if it has one.
    """
    reasons = unproven(settings, model.digest, model.contract, report, now)
    if (fallback := model.contract.fallback) is not None:
        lacking = ["no report speaks for it"]
        if of_fallback is not None:
            lacking = unproven(settings, model.digest, fallback, of_fallback, now)
        reasons += [f"fallback: {reason}" for reason in lacking]
    elif of_fallback is not None:
        reasons.append("a report speaks for a fallback, and the model has none")
    return Decision((*reasons, *_worth(recipe, model, evaluation)))


def unproven(
    settings: Settings, digest: str, contract: FeatureContract, report: ParityReport, now: datetime
) -> list[str]:
    """Return why a report does not prove the parity of a contract's rows.

    Args:
        settings: the gate's limits.
        digest: of the model that they were scored by.
        contract: the model's, or its fallback's.
        report: what speaks for it.
        now: when.
    """
    views = {view.name for view in contract.views}
    rows = evidence(report.sample.uniform, report.excused, report.rejected)
    bound = upper_bound(report.mismatches, rows, settings.parity_confidence)
    rules = {
        f"the report's verdict is {report.verdict.value}": report.verdict is not Verdict.PASS,
        f"the report is about model {report.model.digest[:12]}, not {digest[:12]}": report.model.digest != digest,
        f"the report is about contract {report.model.contract[:12]}, not {contract.hash[:12]}": report.model.contract
        != contract.hash,
        f"the report is {report.age(now)} old, at most {settings.parity_max_age} may be": not (
            -settings.request_time_limit <= report.age(now) <= settings.parity_max_age
        ),
        f"the report's window ends {report.until - now} from now": report.until - now > settings.request_time_limit,
        f"the report does not cover the views {', '.join(sorted(views))}": not (
            set(report.present) == set(report.intervals) == views
        ),
        f"{report.excused} of {report.sample.uniform} rows are excused, at most {MOST_EXCUSED:.0%} may be": report.excused
        > MOST_EXCUSED * report.sample.uniform,
        f"the report excludes {report.limit:.2%} with {report.confidence:.0%}, asked are {settings.parity_limit:.2%} and "
        f"{settings.parity_confidence:.0%}": not (
            report.limit <= settings.parity_limit and report.confidence >= settings.parity_confidence
        ),
        f"{report.foreign} log rows of this model name a contract that is not its own": report.foreign > 0,
        f"the mismatch rate is only known to be below {bound:.2%}, not {settings.parity_limit:.2%}": not (
            bound < settings.parity_limit
        ),
        "the report's upper bound is not the one its counts give": not math.isclose(bound, report.upper_bound)
        and report.confidence == settings.parity_confidence,
        "the report is about live rows, not about a shadow replay": not report.shadow,
        f"{report.lost:.2%} of the served log was lost, at most {MOST_LOST:.0%} may be": not (
            report.lost <= MOST_LOST
        ),
        f"{report.stratum_mismatches} rows of the strata are mismatches": report.stratum_mismatches > 0,
    }
    lacking = lacks(
        report.sample.uniform,
        report.excused,
        report.rejected,
        report.present,
        report.intervals,
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
    )
    return [*(reason for reason, holds in rules.items() if holds), *_too_old(settings, report, now), *lacking]


def _too_old(settings: Settings, report: ParityReport, now: datetime) -> list[str]:
    """Return whether the newest row is of another time than now: a window may end long after its last row."""
    if report.newest is None:
        return ["the report does not say when its newest row was asked for"]
    age = now - report.newest
    if -settings.request_time_limit <= age <= settings.parity_max_age:
        return []
    return [f"the report's newest row was asked for {age} ago, at most {settings.parity_max_age} may have passed"]


def _worth(recipe: ModelRecipe, model: Registered, evaluation: Evaluation | None) -> list[str]:
    """Return what speaks against the model by its evaluation on the days held out."""
    if evaluation is None:
        return ["the version names no evaluation"]
    against = unsound(recipe, evaluation, model.digest, model.contract.hash)
    return [*against, *missed(recipe.thresholds, evaluation)]
