"""The gate: no model is promoted without a report that is its own, fresh, whole, and passed."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from lockstep.errors import Refused
from lockstep.lake import Lake
from lockstep.parity.report import ParityReport, load
from lockstep.parity.verdict import MOST_EXCUSED, MOST_LOST, Verdict, lacks, upper_bound
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


def require_passed(settings: Settings, use_case: UseCase, lake: Lake, which: str, report: str) -> Registered:
    """Return the model that an alias or a version names, if the gate lets it through now.

    Args:
        settings: the gate's limits, the clock.
        use_case: names the model, and its thresholds.
        lake: has the reports.
        which: an alias or a version.
        report: the name of the report that speaks for it.

    Raises:
        BadInput: there is no such model or report.
        Refused: it is not let through; every reason is named.
    """
    recipe = use_case.model
    model = require_model(settings, recipe.name, which)
    named = model.tags.get(EVALUATION_TAG, "")
    evaluation = load_evaluation(settings, lake, named) if named else None
    decision = decide(settings, recipe, model, load(settings, lake, report), evaluation, settings.clock.now())
    reasons = (*decision.reasons, *alarmed(settings, lake, model.digest, rules_of(recipe), beside=named))
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
) -> Decision:
    """Bind a report and an evaluation to a model: everything the report claims is checked again, against the gate's own limits.

    Args:
        settings: the gate's limits; those written in the report are not trusted.
        recipe: what the use case asks of a model on the held-out days, and by which rules it has it judged.
        model: what is to be promoted, its digest just computed from its files.
        report: what speaks for its parity.
        evaluation: what speaks for its worth; None if the version names none.
        now: when.
    """
    views = {view.name for view in model.contract.views}
    bound = upper_bound(report.mismatches, report.sample.uniform, settings.parity_confidence)
    rules = {
        f"the report's verdict is {report.verdict.value}": report.verdict is not Verdict.PASS,
        f"the report is about model {report.model.digest[:12]}, not {model.digest[:12]}": report.model.digest
        != model.digest,
        f"the report is about contract {report.model.contract[:12]}, not {model.contract.hash[:12]}": report.model.contract
        != model.contract.hash,
        f"the report is {report.age(now)} old, at most {settings.parity_max_age} may be": not (
            timedelta(0) <= report.age(now) <= settings.parity_max_age
        ),
        f"the report's window ended {now - report.until} ago, at most {settings.parity_max_age} may have passed": not (
            timedelta(0) <= now - report.until <= settings.parity_max_age
        ),
        f"the report does not cover the views {', '.join(sorted(views))}": not (
            set(report.present) == set(report.intervals) == views
        ),
        f"{report.excused} of {report.sample.uniform} rows are excused, at most {MOST_EXCUSED:.0%} may be": report.excused
        > MOST_EXCUSED * report.sample.uniform,
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
        report.present,
        report.intervals,
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
    )
    broken = [reason for reason, holds in rules.items() if holds]
    return Decision((*broken, *lacking, *_worth(recipe, model, evaluation)))


def _worth(recipe: ModelRecipe, model: Registered, evaluation: Evaluation | None) -> list[str]:
    """Return what speaks against the model by its evaluation on the days held out."""
    if evaluation is None:
        return ["the version names no evaluation"]
    against = unsound(recipe, evaluation, model.digest, model.contract.hash)
    return [*against, *missed(recipe.thresholds, evaluation)]
