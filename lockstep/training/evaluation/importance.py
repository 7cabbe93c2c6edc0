"""Which features the model leans on: what it loses when one of them is shuffled."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance

from lockstep.errors import BadInput
from lockstep.training.evaluation.document import FeatureImportance, Importance

ROWS, REPEATS = 5_000, 3


def importance(
    estimator: Any,
    matrix: NDArray[np.float64],
    labels: NDArray[np.int64],
    features: Sequence[tuple[str, str]],
    *,
    rows: int = ROWS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Importance:
    """Return the average precision lost when a column is shuffled, the greatest loss first.

    Of two features that tell the same, each is worth little alone: the model still has the other.

    Args:
        estimator: a fitted scikit-learn classifier.
        matrix: the held-out rows' features, [rows, features].
        labels: 0 or 1, [rows].
        features: (view, feature) of each column.
        rows: at most about so many are scored: every positive, and negatives drawn without replacement, each of which then counts
            for several, so that the average precision stays that of all rows.
        repeats: how often each column is shuffled.
        seed: of the draws.

    Raises:
        BadInput: the matrix has other columns than the features, or other rows than the labels; no label is 0, or none is 1.
    """
    if matrix.shape != (len(labels), len(features)):
        raise BadInput(f"a matrix of {matrix.shape} holds no {len(features)} features of {len(labels)} rows")
    if labels.min() == labels.max():
        raise BadInput(f"every label is {labels[0]}, so no feature can matter", hint="hold out more days")
    chosen, weights = _sample(labels, rows, seed)
    found = permutation_importance(
        estimator,
        matrix[chosen],
        labels[chosen],
        scoring="average_precision",
        n_repeats=repeats,
        random_state=seed,
        sample_weight=weights,
    )
    losses = sorted(
        (
            FeatureImportance(view=view, feature=feature, loss=float(mean), deviation=float(deviation))
            for (view, feature), mean, deviation in zip(
                features, found["importances_mean"], found["importances_std"], strict=True
            )
        ),
        key=lambda one: (-one.loss, one.view, one.feature),
    )
    return Importance(rows=len(chosen), repeats=repeats, seed=seed, features=tuple(losses))


def _sample(labels: NDArray[np.int64], rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows that are scored, in their order, and how many rows each stands for."""
    negatives = np.flatnonzero(labels == 0)
    positives = int(labels.sum())
    kept = min(len(negatives), max(rows - positives, positives))  # where positives alone are too many, as many again
    drawn = np.random.default_rng(seed).choice(negatives, kept, replace=False)
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == 1), drawn]))
    return chosen, np.where(labels[chosen] == 1, 1.0, len(negatives) / kept)
