"""Evaluate a model on the held-out rows: measure it, compare it, and put what others know beside that into one document."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from lockstep.training.evaluation.calibration import calibration
from lockstep.training.evaluation.curves import precision_recall, roc
from lockstep.training.evaluation.document import (
    Alarm,
    Audit,
    Clocks,
    Comparison,
    Estimate,
    Evaluation,
    Fallback,
    Importance,
    Metrics,
    ModelNamed,
    Performance,
    Rules,
    TrainingSetUsed,
)
from lockstep.training.evaluation.entities import entity_precision, guessed_precision, mean_precision, rank_days
from lockstep.training.evaluation.ranking import auc, average_precision
from lockstep.training.evaluation.recall import decision, recall_by_group
from lockstep.training.evaluation.resample import Replicated, interval, resample
from lockstep.training.evaluation.scored import Scored

_MODEL, _CHAMPION = "model", "champion"


@dataclass(frozen=True)
class Judging:
    """How a model is judged.

    Attributes:
        top: how many entities somebody can look at in a day.
        threshold: the score from which on a row counts as positive.
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """

    top: int
    threshold: float
    replicates: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Champion:
    """The model in use, and its scores of the same held-out rows."""

    model: ModelNamed
    scores: NDArray[np.float64]


def metrics(scored: Scored, top: int) -> Metrics:
    """Return the three numbers alone, without intervals."""
    daily = mean_precision(rank_days(scored), top, np.ones(scored.entities, np.int64))
    return Metrics(average_precision=average_precision(scored), auc=auc(scored), entity_precision=daily)


def no_skill(scored: Scored, top: int) -> Metrics:
    """Return what a guess reaches on the same rows."""
    daily = guessed_precision(rank_days(scored), top, np.ones(scored.entities, np.int64))
    return Metrics(average_precision=scored.share, auc=0.5, entity_precision=daily)


def measure(scored: Scored, judging: Judging) -> Performance:
    """Return how good the model is on the rows."""
    return _performance(scored, judging, _resample(scored, judging, None)[_MODEL])


def compare(scored: Scored, judging: Judging, champion: Champion | None) -> Comparison:
    """Return how much better the model is than the champion, or than a guess.

    Raises:
        BadInput: the champion's scores are not of these rows, or no probabilities.
    """
    return _comparison(scored, judging, champion, _resample(scored, judging, champion))


def evaluate(
    scored: Scored,
    judging: Judging,
    *,
    model: ModelNamed,
    rules: Rules,
    training_set: TrainingSetUsed,
    created_at: datetime,
    champion: Champion | None = None,
    incomparable: str | None = None,
    importance: Importance | None = None,
    clocks: Clocks | None = None,
    fallback: Fallback | None = None,
    alarms: Iterable[Alarm] = (),
    audit: Audit | None = None,
) -> Evaluation:
    """Return the document; entities are drawn once for the model's intervals and for those of the comparison.

    Raises:
        BadInput: the champion's scores are not of these rows, or no probabilities.
    """
    replicated = _resample(scored, judging, champion)
    return Evaluation(
        created_at=created_at,
        model=model,
        rules=rules,
        training_set=training_set,
        performance=_performance(scored, judging, replicated[_MODEL]),
        comparison=_comparison(scored, judging, champion, replicated, incomparable),
        importance=importance,
        clocks=clocks,
        fallback=fallback,
        alarms=tuple(alarms),
        audit=audit,
    )


def _resample(scored: Scored, judging: Judging, champion: Champion | None) -> dict[str, Replicated]:
    models = {_MODEL: scored}
    if champion is not None:
        models[_CHAMPION] = scored.with_scores(champion.scores)
    return resample(models, top=judging.top, replicates=judging.replicates, seed=judging.seed)


def _performance(scored: Scored, judging: Judging, replicated: Replicated) -> Performance:
    daily = entity_precision(scored, judging.top)

    def estimate(value: float, replicates: NDArray[np.float64]) -> Estimate:
        return Estimate(value=value, interval=interval(replicates, scored.entities))

    return Performance(
        rows=scored.rows,
        positives=scored.positives,
        entities=scored.entities,
        no_skill=scored.share,
        average_precision=estimate(average_precision(scored), replicated.average_precision),
        auc=estimate(auc(scored), replicated.auc),
        entity_precision=estimate(daily.precision, replicated.entity_precision),
        daily=daily,
        calibration=calibration(scored),
        decision=decision(scored, judging.threshold),
        groups=recall_by_group(scored, threshold=judging.threshold, top=judging.top),
        roc=roc(scored),
        precision_recall=precision_recall(scored),
        seed=judging.seed,
    )


def _comparison(
    scored: Scored,
    judging: Judging,
    champion: Champion | None,
    replicated: Mapping[str, Replicated],
    incomparable: str | None = None,
) -> Comparison:
    model, ours = metrics(scored, judging.top), replicated[_MODEL]
    if champion is None:
        other, theirs = no_skill(scored, judging.top), ours.guess
    else:
        other, theirs = metrics(scored.with_scores(champion.scores), judging.top), replicated[_CHAMPION]

    def difference(name: str) -> Estimate:
        return Estimate(
            value=getattr(model, name) - getattr(other, name),
            interval=interval(getattr(ours, name) - getattr(theirs, name), scored.entities),
        )

    return Comparison(
        champion=champion.model if champion else None,
        metrics=other,
        average_precision=difference("average_precision"),
        auc=difference("auc"),
        entity_precision=difference("entity_precision"),
        incomparable=incomparable,
    )
