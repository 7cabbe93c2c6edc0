"""What a fault does to predictions: the metrics of the evaluation, on the rows that both services answered."""

from dataclasses import dataclass

import numpy as np

from lockstep.skew.replay import Service
from lockstep.skew.subject import Subject
from lockstep.training.evaluation.evaluate import metrics


@dataclass(frozen=True)
class Quality:
    """Average precision, AUC, and the mean share of positives among each day's top entities."""

    average_precision: float
    auc: float
    entity_precision: float


@dataclass(frozen=True)
class Harm:
    """What became of the rows.

    Attributes:
        rows: how many were asked.
        answered: the share that got a score.
        fell_back: the share that the fallback model answered.
        changed: the share whose vector is another one, or none.
        moved: the share of the answered whose score is another one.
        flipped: the share of the answered on which the decision is another one.
        clean: what the clean scores of the answered rows are worth; None where nothing was answered.
        faulty: what the others are worth.
    """

    rows: int
    answered: float
    fell_back: float
    changed: float
    moved: float
    flipped: float
    clean: Quality | None
    faulty: Quality | None

    @property
    def lost(self) -> float | None:
        """How much average precision is lost."""
        if self.clean is None or self.faulty is None:
            return None
        return self.clean.average_precision - self.faulty.average_precision


def harm_of(subject: Subject, clean: Service, service: Service) -> Harm:
    """Compare a service's scores with those of the clean one."""
    recipe, rows = subject.use_case.model, len(clean.scores)
    both = np.flatnonzero(~np.isnan(clean.scores) & ~np.isnan(service.scores))
    before, after = clean.scores[both], service.scores[both]
    threshold, answered = recipe.thresholds.decision, max(len(both), 1)
    judged = 0 < int(subject.labels[both].sum()) < len(both)
    return Harm(
        rows=rows,
        answered=float(np.mean(~np.isnan(service.scores))),
        fell_back=float(np.mean(service.fell_back)),
        changed=float(np.mean(service.changed)),
        moved=float((before != after).sum()) / answered,
        flipped=float(((before >= threshold) != (after >= threshold)).sum()) / answered,
        clean=_quality(subject, clean, both) if judged else None,
        faulty=_quality(subject, service, both) if judged else None,
    )


def _quality(subject: Subject, service: Service, rows: np.ndarray) -> Quality:
    found = metrics(subject.scored(service.scores, rows), subject.use_case.model.protocol.top)
    return Quality(found.average_precision, found.auc, found.entity_precision)
