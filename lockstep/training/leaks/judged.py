"""What is too good to be true on the held-out rows: the model's scores, or one feature alone."""

from collections.abc import Sequence
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from lockstep.training.leaks.alarm import Alarm
from lockstep.views.use_case import Ceilings

_CHANCE = 1e-3
# Of twelve honest worlds of a hundred entities one had two positives held out, and a model with an area of 0.996 under its ROC
# curve. Near 0.95 the area's standard error is 0.03 with 30 positives (Hanley and McNeil 1982,
# https://doi.org/10.1148/radiology.143.1.7063747).
FEWEST_POSITIVES = 30


def not_judged(labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return in a sentence for each alarm here why nothing is looked for in so few positives; none, if there are enough.

    Args:
        labels: 0 or 1, one a held-out row.
    """
    if (positives := int(labels.sum())) >= FEWEST_POSITIVES:
        return ()
    why = f"with {positives} positives among the rows held out, of at least {FEWEST_POSITIVES}, chance cannot be told from a leak"
    return (f"too_good is not judged: {why}", f"one_feature is not judged: {why}")


def too_good(ceilings: Ceilings, labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[Alarm]:
    """Return an alarm for each metric of the scores that is above its ceiling; none, if positives are too few to be judged.

    Args:
        ceilings: of the recipe.
        labels: 0 or 1, one a held-out row; both occur.
        scores: the model's, as many.
    """
    if labels.sum() < FEWEST_POSITIVES:
        return []
    metrics = {
        "average_precision": (float(average_precision_score(labels, scores)), ceilings.average_precision),
        "auc": (float(roc_auc_score(labels, scores)), ceilings.auc),
    }
    return [
        Alarm(
            "too_good",
            name,
            f"{value:.4f} over {len(labels)} held-out rows, {int(labels.sum())} of them positive; no honest model is above "
            f"{ceiling}",
        )
        for name, (value, ceiling) in metrics.items()
        if value > ceiling
    ]


def one_feature(
    ceilings: Ceilings, labels: NDArray[np.int64], vectors: NDArray[np.float64], names: Sequence[str]
) -> list[Alarm]:
    """Return an alarm for each feature that ranks the held-out rows by their label, up or down, better than the ceiling.

    What is missing (NaN) ranks below all others or above them, whichever tells more: a value may be missing because of the label.
    With few positives some feature does so by chance; then there is no alarm, and none if they are too few to be judged.

    Args:
        ceilings: of the recipe.
        labels: 0 or 1, one a row; both occur.
        vectors: rows by features.
        names: of the features.
    """
    if labels.sum() < FEWEST_POSITIVES:
        return []
    alarms: list[Alarm] = []
    for name, values in zip(names, vectors.T, strict=True):
        missing = np.isnan(values)
        told = {
            f"{way}, what is missing {place}": auc_of(labels, np.where(missing, instead, sign * values))
            for way, sign in (("up", 1), ("down", -1))
            for place, instead in (("first", -np.inf), ("last", np.inf))
        }
        way = max(told, key=lambda key: told[key])
        positives, negatives = int(labels.sum()), int(len(labels) - labels.sum())
        if told[way] > ceilings.one_feature_auc and (
            _at_random(told[way], positives, negatives, tries=len(told) * len(names)) < _CHANCE
        ):
            alarms.append(
                Alarm(
                    "one_feature",
                    name,
                    f"ranked {way}, it alone has an AUC of {told[way]:.4f} over {len(labels)} held-out rows, {positives} of them "
                    f"positive; no honest feature is above {ceilings.one_feature_auc}",
                )
            )
    return alarms


def auc_of(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve as Mann and Whitney's U over the number of pairs, ties one half; infinities rank too.

    https://en.wikipedia.org/wiki/Mann-Whitney_U_test
    """
    positive = labels == 1
    positives = int(positive.sum())
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def _at_random(auc: float, positives: int, negatives: int, tries: int) -> float:
    """Return at most how probable it is that one of some features that know nothing reaches an AUC.

    The share of negatives that rank above a positive is then uniform, and their mean over n positives is at most x with a
    probability of at most (n x)**n / n! (Irwin and Hall: the sum of n uniform numbers); a rank more, for shares come in steps.
    https://en.wikipedia.org/wiki/Irwin-Hall_distribution
    """
    above = positives * (1 - auc + 1 / negatives)
    return tries * float(np.exp(min(0.0, positives * log(above) - lgamma(positives + 1))))
