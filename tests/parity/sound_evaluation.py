"""An evaluation that speaks for a model, so that only its parity can speak against it."""

from dataclasses import replace
from typing import Any

import numpy as np

from feature_repo.definitions import use_case as fraud
from lockstep.clock import parse_time
from lockstep.training.evaluation.document import (
    Audit,
    Comparison,
    Estimate,
    Evaluation,
    Performance,
    Stretch,
    TrainingSetUsed,
)
from lockstep.training.evaluation.document import ModelNamed as Evaluated
from lockstep.training.evaluation.evaluate import Judging, measure
from lockstep.training.evaluation.scored import Scored
from lockstep.training.rules import rules_of
from lockstep.views import Thresholds

NOW = parse_time("2018-06-30T00:00:00Z")
RECIPE = replace(fraud.model, thresholds=Thresholds(average_precision=0.5, auc=0.8))


def measured(average_precision: float = 0.6, auc: float = 0.9) -> Performance:
    """What was measured of some model, but for these two numbers."""
    rows = np.arange(40)
    held_out = Scored(times_us=rows, labels=rows % 2, scores=rows / 40, entity=rows)
    found = measure(held_out, Judging(top=5, threshold=0.5, replicates=2))
    numbers = {"average_precision": average_precision, "auc": auc}
    return found.model_copy(update={name: Estimate(value=v, interval=None) for name, v in numbers.items()})


def evaluation_of(digest: str, contract: str, **changes: Any) -> Evaluation:
    stretch = Stretch(start=NOW, end=NOW, rows=40, positives=20)
    performance = changes.get("performance", measured())
    fields: dict[str, Any] = {
        "created_at": NOW,
        "model": Evaluated(name="m", digest=digest, contract=contract),
        "rules": rules_of(RECIPE),
        "audit": Audit(rows={}, unexplained={}),
        "training_set": TrainingSetUsed(
            table="t", known_at=NOW, train=stretch, test=stretch, left_out={}, snapshots={}
        ),
        "performance": performance,
        "comparison": Comparison(
            champion=None,
            metrics=performance.metrics,
            average_precision=performance.average_precision,
            auc=performance.auc,
            entity_precision=performance.entity_precision,
        ),
        "importance": None,
        "clocks": None,
        "fallback": None,
        "alarms": (),
    }
    return Evaluation(**(fields | changes))
