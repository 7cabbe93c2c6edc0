"""Scores of a fitted classifier: its own `predict_proba`, and for gradient boosting the same numbers in far less time.

scikit-learn evaluates a histogram gradient boosting model tree by tree, one call each, which for a single row of 200 trees
takes a millisecond, nearly all of it the calls. Here the trees are one: each row is given once for every tree, with the tree's
number as one more feature, by which new nodes at the top lead to that tree. So scikit-learn's own compiled code walks them all in
one call, and the leaves are added up in the order in which it adds them: the sums are equal to the last bit, which is tried out
before it is used.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scorer = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Rows by features to the probability of class 1, one a row; null is NaN."""

# So many values, rows times trees times features, are copied at most (8 MB); with more, the calls weigh less than the copies: of
# 200 trees that is so from 238 rows of 20 features on, and from 49 of 100 (`python -m benchmarks.scoring`).
MOST_VALUES = 1_000_000
_TRIED_ROWS = 257


def scorer_of(estimator: Any) -> Scorer:
    """Return the fastest way to score with a fitted two-class classifier."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - 2 s

    def plain(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return estimator.predict_proba(rows)[:, 1]

    if type(estimator) is not HistGradientBoostingClassifier or np.any(estimator.is_categorical_):
        return plain
    try:
        few = JoinedTrees(estimator)
        if few.most_rows == 0:
            return plain
        equal = _agree(few, plain, estimator.n_features_in_)
    except (
        AttributeError,
        ImportError,
        LookupError,
        TypeError,
        ValueError,
    ):  # these are scikit-learn's insides, which it may change
        logging.getLogger(__name__).warning("gradient boosting is scored tree by tree", exc_info=True)
        return plain
    if not equal:
        logging.getLogger(__name__).warning("gradient boosting is scored tree by tree: joined, its scores differ")
        return plain
    return lambda rows: few(rows) if len(rows) <= few.most_rows else plain(rows)


class JoinedTrees:
    """The trees of a fitted `HistGradientBoostingClassifier` of two classes and no categorical feature, as one.

    Args:
        estimator: as scikit-learn 1.9 has it; other releases may lack what is read of it here.

    Attributes:
        most_rows: with how many rows it is not slower than the estimator.
    """

    def __init__(self, estimator: Any) -> None:
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor  # noqa: PLC0415

        trees = [trees_of_iteration[0].nodes for trees_of_iteration in estimator._predictors]
        number_at = estimator.n_features_in_
        nodes = np.concatenate([_routes(len(trees), number_at, trees[0].dtype), *trees])
        starts = np.cumsum([len(trees) - 1, *map(len, trees)])
        for start, tree in zip(starts, trees, strict=False):
            inner = nodes[start : start + len(tree)]
            inner["left"] += np.uint32(start)
            inner["right"] += np.uint32(start)
        _lead_to(nodes, starts[: len(trees)])
        no_categories = np.zeros((0, 8), dtype=np.uint32)
        self._tree = TreePredictor(nodes, no_categories, no_categories)
        self._known, self._places = no_categories, np.zeros(number_at + 1, dtype=np.uint32)
        self._numbers = np.arange(len(trees), dtype=np.float64)
        self.most_rows = MOST_VALUES // (len(trees) * (number_at + 1))
        self._baseline = float(estimator._baseline_prediction[0, 0])
        self._loss = estimator._loss

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of class 1 for each row."""
        count, width = rows.shape
        trees = len(self._numbers)
        given = np.empty((count, trees, width + 1))
        given[:, :, :width] = rows[:, np.newaxis, :]
        given[:, :, width] = self._numbers
        leaves = np.empty((count, trees + 1))
        leaves[:, 0] = self._baseline
        leaves[:, 1:] = self._tree.predict(
            given.reshape(-1, width + 1), self._known, self._places, n_threads=1
        ).reshape(count, trees)
        # One after the other, as scikit-learn adds them: numpy's sum() adds in pairs.
        sums = np.add.accumulate(leaves, axis=1)[:, -1:]
        return self._loss.predict_proba(np.asfortranarray(sums))[:, 1]


def _routes(trees: int, number_at: int, dtype: Any) -> NDArray[Any]:
    """Return the nodes above the trees, which compare the tree's number; where they lead is not set yet."""
    routes: Any = np.zeros(trees - 1, dtype=dtype)
    routes["feature_idx"] = number_at
    return routes


def _lead_to(nodes: NDArray[Any], starts: NDArray[np.int64]) -> None:
    """Make the nodes above lead to the trees that begin at `starts`: each halves the trees that are left."""
    free = iter(range(len(starts) - 1))

    def lead(low: int, high: int) -> int:
        """Return the node that the trees from `low` up to `high` are reached by."""
        if high - low == 1:
            return int(starts[low])
        node, middle = next(free), (low + high) // 2
        nodes[node]["num_threshold"] = middle - 0.5
        nodes[node]["left"] = lead(low, middle)
        nodes[node]["right"] = lead(middle, high)
        return node

    lead(0, len(starts))


def _agree(few: JoinedTrees, plain: Scorer, width: int) -> bool:
    """Whether both score alike, to the last bit, over values of all sizes and nulls."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(_TRIED_ROWS, width)) * 10.0 ** random.integers(-6, 12, size=(_TRIED_ROWS, width))
    rows[random.random(rows.shape) < 0.2] = np.nan
    parts = [few(rows[start : start + few.most_rows]) for start in range(0, len(rows), few.most_rows)]
    return np.array_equal(np.concatenate(parts), plain(rows))
