"""Boosted trees are scored as one, and every score is scikit-learn's own to the last bit; where they cannot be, it is asked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.ensemble._hist_gradient_boosting import predictor
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lockstep.serving import scoring
from lockstep.serving.scoring import JoinedTrees, scorer_of

ROWS = 160


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Fit with one thread: on a busy machine, several wait for each other."""
    with threadpool_limits(1, user_api="openmp"):
        yield


def fitted(seed: int, width: int, trees: int, **options: Any) -> HistGradientBoostingClassifier:
    """Fit noise with a signal in the first column, a fifth of it null."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(ROWS, width)).round(1)
    labels = (rows[:, 0] + random.normal(size=ROWS) > 0).astype(int)
    rows[random.random(rows.shape) < 0.2] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=trees, random_state=seed, early_stopping=False, **options)
    return estimator.fit(rows, labels)


def nodes_of(estimator: Any) -> NDArray[Any]:
    return np.concatenate([trees[0].nodes for trees in estimator._predictors])


def telling_rows(estimator: Any, seed: int, count: int = 120) -> NDArray[np.float64]:
    """Return rows of the values that the trees compare with, of their neighbours, of nulls and of very large and small ones."""
    random = np.random.default_rng(seed)
    nodes = nodes_of(estimator)
    rows = np.empty((count, estimator.n_features_in_))
    for number in range(rows.shape[1]):
        inner = nodes[(nodes["is_leaf"] == 0) & (nodes["feature_idx"] == number)]["num_threshold"]
        inner = inner[np.isfinite(inner)]  # infinity where nulls alone go to the right
        near = [inner, np.nextafter(inner, np.inf), np.nextafter(inner, -np.inf)]
        others = [np.nan, np.nan, 0.0, -0.0, 5e-324, 1e308, -1e308, 0.1 + 0.2]
        rows[:, number] = random.choice(np.concatenate([*near, others]), size=count)
    return rows


def plain(estimator: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return estimator.predict_proba(rows)[:, 1]


options = st.fixed_dictionaries(
    {},
    optional={
        "min_samples_leaf": st.sampled_from((1, 5, ROWS)),  # the last leaves no tree more than one leaf
        "max_leaf_nodes": st.sampled_from((2, 3, 15, None)),
        "max_depth": st.sampled_from((1, 4)),
        "learning_rate": st.sampled_from((1e-3, 0.3, 1.0)),
        "l2_regularization": st.sampled_from((0.5, 100.0)),
        "max_features": st.just(0.5),
        "class_weight": st.just("balanced"),
        "monotonic_cst": st.sampled_from(({0: 1}, {0: -1})),
    },
)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 7),
    trees=st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 31)),
    how=options,
    rows=st.integers(1, 120),
)
def test_joined_trees_score_as_scikit_learn_does_to_the_last_bit(
    seed: int, width: int, trees: int, how: dict[str, Any], rows: int
) -> None:
    if "monotonic_cst" in how:
        how = how | {"monotonic_cst": [how["monotonic_cst"][0]] + [0] * (width - 1)}
    estimator = fitted(seed, width, trees, **how)
    given_rows = telling_rows(estimator, seed)[:rows]

    scores = JoinedTrees(estimator)(given_rows)

    assert scores.tobytes() == plain(estimator, given_rows).tobytes()


def test_nulls_go_to_the_side_that_the_tree_sends_them_to() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 2))
    rows[random.random(rows.shape) < 0.2] = np.nan
    low, high = np.nan_to_num(rows[:, 0], nan=-9.0), np.nan_to_num(rows[:, 1], nan=9.0)
    estimator = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows, (low > 0) | (high > 0))
    inner = nodes_of(estimator)[nodes_of(estimator)["is_leaf"] == 0]
    assert set(inner["missing_go_to_left"]) == {0, 1}
    asked = np.array([[np.nan, -1.0], [-1.0, np.nan], [np.nan, np.nan], [-1.0, -1.0], [1.0, -1.0]])

    scores = JoinedTrees(estimator)(asked)

    assert (scores > 0.5).tolist() == [False, True, True, False, True]
    assert scores.tobytes() == plain(estimator, asked).tobytes()


def test_trees_of_one_leaf_and_one_tree_of_one_leaf_are_scored() -> None:
    for trees in (1, 2, 5):
        estimator = fitted(0, 3, trees, min_samples_leaf=ROWS)
        assert len(nodes_of(estimator)) == trees
        rows = telling_rows(estimator, 0)

        assert JoinedTrees(estimator)(rows).tobytes() == plain(estimator, rows).tobytes()


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 11, 300])
def test_few_rows_are_scored_joined_and_many_by_scikit_learn_and_both_are_equal(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = fitted(1, 5, 20)
    given_rows = telling_rows(estimator, 1, rows)
    expected, asked = plain(estimator, given_rows), []
    monkeypatch.setattr(scoring, "MOST_VALUES", 10 * 20 * (5 + 1))
    scorer = scorer_of(estimator)
    own = HistGradientBoostingClassifier.predict_proba
    monkeypatch.setattr(HistGradientBoostingClassifier, "predict_proba", lambda *of: asked.append(1) or own(*of))

    assert scorer(given_rows).tobytes() == expected.tobytes()
    assert len(asked) == (rows > 10)


def test_a_model_of_which_one_row_is_too_much_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = fitted(1, 5, 20)
    rows = telling_rows(estimator, 1, 3)
    monkeypatch.setattr(scoring, "MOST_VALUES", 20 * (5 + 1) - 1)
    monkeypatch.setattr(JoinedTrees, "__call__", None)

    assert scorer_of(estimator)(rows).tobytes() == plain(estimator, rows).tobytes()


def test_the_order_and_the_memory_of_the_rows_do_not_matter() -> None:
    estimator = fitted(2, 6, 9)
    rows = telling_rows(estimator, 2, 40)

    for layout in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2], rows[::-1][::-1]):
        assert scorer_of(estimator)(layout).tobytes() == plain(estimator, rows).tobytes()
    before = rows.copy()
    scorer_of(estimator)(rows)
    np.testing.assert_array_equal(rows, before)


class Derived(HistGradientBoostingClassifier):
    """May do anything in `predict_proba`."""


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]),
        Derived(max_iter=3),
        RandomForestClassifier(n_estimators=3),
        LogisticRegression(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_categories_and_other_estimators_are_scored_by_themselves(
    estimator: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def joined(_: object) -> None:
        raise AssertionError("its trees are joined")

    monkeypatch.setattr(scoring, "JoinedTrees", joined)
    random = np.random.default_rng(3)
    rows = np.column_stack([random.normal(size=ROWS), random.integers(0, 4, ROWS)])
    estimator.fit(rows, (rows[:, 0] + rows[:, 1] % 2 > 0).astype(int))

    assert scorer_of(estimator)(rows[:5]).tobytes() == plain(estimator, rows[:5]).tobytes()
    assert caplog.records == []


def without_the_class(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.delattr(predictor, "TreePredictor")


def with_another_baseline(estimator: Any, _: pytest.MonkeyPatch) -> None:
    estimator._baseline_prediction = estimator._baseline_prediction.ravel()


def with_trees_of_another_form(estimator: Any, _: pytest.MonkeyPatch) -> None:
    class Tree:
        def __init__(self, tree: Any) -> None:
            self.predict = tree.predict

    estimator._predictors = [[Tree(tree) for tree in trees] for trees in estimator._predictors]


def with_nodes_of_another_form(estimator: Any, _: pytest.MonkeyPatch) -> None:
    with_trees_of_another_form(estimator, _)
    for (tree,) in estimator._predictors:
        tree.nodes = np.zeros((3, 4))


@pytest.mark.parametrize(
    "change", [without_the_class, with_another_baseline, with_trees_of_another_form, with_nodes_of_another_form]
)
def test_where_scikit_learn_is_another_inside_it_is_asked_and_the_log_says_so(
    change: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = fitted(4, 3, 5)
    rows = telling_rows(estimator, 4, 20)
    expected = plain(estimator, rows)
    change(estimator, monkeypatch)

    scorer = scorer_of(estimator)

    assert scorer(rows).tobytes() == expected.tobytes()
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "gradient boosting is scored tree by tree")
    assert record.exc_info is not None


def test_where_joined_trees_score_otherwise_scikit_learn_is_asked_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = fitted(5, 3, 5)
    rows = telling_rows(estimator, 5, 20)
    lead = scoring._lead_to
    monkeypatch.setattr(scoring, "_lead_to", lambda nodes, starts: lead(nodes, np.roll(starts, 1) * 0 + starts[0]))

    assert scorer_of(estimator)(rows).tobytes() == plain(estimator, rows).tobytes()
    assert [record.message for record in caplog.records] == [
        "gradient boosting is scored tree by tree: joined, its scores differ"
    ]
