"""The ROC and the precision-recall curve, with as few points as their shapes need."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from lockstep.training.evaluation.document import Curve
from lockstep.training.evaluation.scored import Scored

POINTS = 200
_DIGITS = 5


def roc(scored: Scored) -> Curve:
    """Return (false positive rate, true positive rate) from (0, 0) to (1, 1)."""
    false_rate, true_rate, _ = roc_curve(scored.labels, scored.scores)
    return _rounded(thin(false_rate, true_rate, POINTS))


def precision_recall(scored: Scored) -> Curve:
    """Return (recall, precision), recall ascending; the first point is (0, 1), by convention."""
    precision, recall, _ = precision_recall_curve(scored.labels, scored.scores, drop_intermediate=True)
    return _rounded(thin(recall[::-1], precision[::-1], POINTS))


def thin(x: NDArray[np.float64], y: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Return at most `most` of a line's points, [n, 2]: the ends, then each time the one farthest from what is drawn so far.

    That is the order of Ramer-Douglas-Peucker (Douglas & Peucker, *Cartographica* 10, 1973), which stops at a distance; to stop
    at a number of points bounds the document instead.
    """
    points = np.column_stack([x, y])
    kept = [0, len(points) - 1]
    farthest = {(0, len(points) - 1): _farthest(points, 0, len(points) - 1)}
    while len(kept) < min(most, len(points)):
        (first, last), (distance, middle) = max(farthest.items(), key=lambda piece: piece[1][0])
        if not distance:
            break
        del farthest[first, last]
        for piece in ((first, middle), (middle, last)):
            farthest[piece] = _farthest(points, *piece)
        kept.append(middle)
    return points[sorted(set(kept))]


def _farthest(points: NDArray[np.float64], first: int, last: int) -> tuple[float, int]:
    """Return the greatest distance of a point between the two from the line that joins them, and its place."""
    inside = points[first + 1 : last]
    if not len(inside):
        return 0.0, first
    origin, along = points[first], points[last] - points[first]
    length = float(along @ along)
    share = np.clip((inside - origin) @ along / length, 0, 1) if length else np.zeros(len(inside))
    distances = np.hypot(*(inside - origin - share[:, None] * along).T)
    place = int(distances.argmax())
    return float(distances[place]), first + 1 + place


def _rounded(points: NDArray[np.float64]) -> Curve:
    return tuple((round(float(x), _DIGITS), round(float(y), _DIGITS)) for x, y in points)
