"""The null test: an estimator whose labels mean nothing may not rank.

Fitted on labels in random order an estimator still ranks somehow, by chance even well or badly by a strong feature. (A logistic
regression on ten features had areas under the ROC curve from 0.23 to 0.88.) But the same labels inverted make it rank the other
way round. To rank well both times, or badly, it must know the labels of the held-out rows from elsewhere. Judged by shuffled
labels it would not be found out, for it knows the true ones.

After Ojala and Garriga, Permutation tests for studying classifier performance (https://jmlr.org/papers/v11/ojala10a.html).
"""

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from lockstep.training.leaks.alarm import Alarm
from lockstep.training.leaks.judged import auc_of

FitAndScore = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From labels for the rows that are fitted on to the fitted estimator's scores of the held-out rows."""
_ERRORS = 4


def shuffled_labels(
    fit: FitAndScore, labels: NDArray[np.int64], held_out: NDArray[np.int64], seed: int
) -> list[Alarm]:
    """Return an alarm if an estimator ranks the held-out rows although it was fitted on labels in random order.

    Args:
        fit: makes, fits and asks the estimator, twice.
        labels: of the rows that are fitted on, 0 or 1.
        held_out: of the held-out rows; both labels occur.
        seed: of the order.
    """
    shuffled = np.random.default_rng(seed).permutation(labels)
    ranked = [auc_of(held_out, fit(given)) for given in (shuffled, 1 - shuffled)]
    error = standard_error(int(held_out.sum()), int(len(held_out) - held_out.sum()))
    if min(ranked) <= 0.5 + _ERRORS * error and max(ranked) >= 0.5 - _ERRORS * error:
        return []
    evidence = (
        f"fitted on labels in random order it has an AUC of {ranked[0]:.4f} over {len(held_out)} held-out rows, with these "
        f"inverted one of {ranked[1]:.4f}: both are on one side of one half, beyond {_ERRORS} standard errors of {error:.4f}"
    )
    return [Alarm("shuffled_labels", "estimator", evidence)]


def standard_error(positives: int, negatives: int) -> float:
    """Return the standard error of the area under the ROC curve of scores that know nothing of the labels.

    sqrt((p + n + 1) / (12 p n)): Mann and Whitney's U over the number of pairs.
    https://en.wikipedia.org/wiki/Mann-Whitney_U_test
    """
    return sqrt((positives + negatives + 1) / (12 * positives * negatives))
