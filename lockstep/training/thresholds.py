"""The model half of the gate: what a model must reach on the days held out, by MLflow's own validation.

https://mlflow.org/docs/latest/ml/evaluation/model-eval/ (validate_evaluation_results)
"""

from collections.abc import Mapping

import mlflow
from mlflow.models import EvaluationResult, MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException

from lockstep.training.evaluation.document import Evaluation
from lockstep.training.registry import quiet
from lockstep.views.use_case import Thresholds


def missed(thresholds: Thresholds, evaluation: Evaluation) -> list[str]:
    """Return what the model does not reach, in a sentence each."""
    found = evaluation.performance.metrics
    reached = {"average_precision": found.average_precision, "auc": found.auc}
    return unreached({"average_precision": thresholds.average_precision, "auc": thresholds.auc}, reached)


def unreached(least: Mapping[str, float], reached: Mapping[str, float]) -> list[str]:
    """Return which metrics are below the least that is asked for; one that was not measured, or is NaN, is."""
    said: list[str] = []
    result = EvaluationResult(metrics=dict(reached), artifacts={})
    for name, value in least.items():
        try:
            with quiet():
                mlflow.validate_evaluation_results(
                    {name: MetricThreshold(threshold=value, greater_is_better=True)}, result
                )
        except ModelValidationFailedException:
            measured = f"is {reached[name]:.3f}" if name in reached else "was not measured"
            said.append(f"{name} on the held-out days {measured}, {value:.3f} is asked for")
    return said
