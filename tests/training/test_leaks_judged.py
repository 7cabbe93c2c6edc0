"""What is too good to be true; a feature that is the label; a set that is not the same twice; labels that mean nothing."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from lockstep.training.leaks.judged import auc_of, not_judged, one_feature, too_good
from lockstep.training.leaks.null_test import shuffled_labels, standard_error
from lockstep.training.leaks.repeat import not_repeatable
from lockstep.views import Ceilings

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ROWS = 2_000


@pytest.fixture(scope="module")
def vectors() -> Floats:
    return np.random.default_rng(1).normal(size=(ROWS, 3))


@pytest.fixture(scope="module")
def labels(vectors: Floats) -> Labels:
    """One row in twenty, mostly those with a great first feature."""
    noise = np.random.default_rng(2).normal(size=ROWS)
    return (vectors[:, 0] + noise > 2.3).astype(np.int64)


def test_scores_above_a_ceiling_are_too_good_to_be_true(labels: Labels) -> None:
    scores = labels + np.linspace(0, 0.5, ROWS)
    found = too_good(Ceilings(), labels, scores)
    assert [(a.name, a.subject) for a in found] == [("too_good", "average_precision"), ("too_good", "auc")]
    assert str(found[1]).startswith(
        f"too_good: auc: 1.0000 over {ROWS} held-out rows, {labels.sum()} of them positive"
    )
    assert too_good(Ceilings(average_precision=1, auc=1), labels, scores) == []


def test_scores_of_an_honest_model_are_not(labels: Labels, vectors: Floats) -> None:
    assert too_good(Ceilings(), labels, vectors[:, 0]) == []
    assert [a.subject for a in too_good(Ceilings(auc=0.8), labels, vectors[:, 0])] == ["auc"]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_is_the_label_is_named(labels: Labels, vectors: Floats, sign: int) -> None:
    given = np.column_stack([vectors, sign * (labels * 10.0 + vectors[:, 1])])
    (found,) = one_feature(Ceilings(), labels, given, ["a", "b", "c", "risk:the_label"])
    assert (found.name, found.subject) == ("one_feature", "risk:the_label")
    assert f"ranked {'up' if sign > 0 else 'down'}," in found.evidence
    assert f"AUC of 1.0000 over {ROWS} held-out rows" in found.evidence


def test_a_feature_that_is_missing_because_of_the_label_is_named(labels: Labels, vectors: Floats) -> None:
    lacking_positives = np.where(labels == 1, np.nan, vectors[:, 1])
    lacking_negatives = np.where(labels == 0, np.nan, vectors[:, 1])
    found = one_feature(Ceilings(), labels, np.column_stack([lacking_positives, lacking_negatives]), ["p", "n"])
    assert [a.subject for a in found] == ["p", "n"]


def test_what_is_missing_at_random_tells_nothing(labels: Labels, vectors: Floats) -> None:
    given = np.where(np.random.default_rng(3).random(ROWS) < 0.3, np.nan, vectors[:, 0])
    assert one_feature(Ceilings(), labels, given[:, None], ["a"]) == []


def test_too_few_positives_are_not_judged_which_is_said() -> None:
    labels, ranks = np.zeros(200, np.int64), np.arange(200.0)
    labels[171:] = 1
    assert auc_of(labels, ranks) == 1.0
    assert one_feature(Ceilings(), labels, ranks[:, None], ["a"]) == []
    assert too_good(Ceilings(), labels, ranks) == []
    assert [said.partition(", ")[0] for said in not_judged(labels)] == [
        "too_good is not judged: with 29 positives among the rows held out",
        "one_feature is not judged: with 29 positives among the rows held out",
    ]
    labels[170] = 1
    assert [a.subject for a in one_feature(Ceilings(), labels, ranks[:, None], ["a"])] == ["a"]
    assert [a.subject for a in too_good(Ceilings(), labels, ranks)] == ["average_precision", "auc"]
    assert not_judged(labels) == ()


def test_with_few_positives_a_feature_is_above_a_low_ceiling_by_chance() -> None:
    labels, noise = np.zeros(100, np.int64), np.random.default_rng(11).random((100, 60))
    labels[::3] = 1
    names = [str(n) for n in range(60)]
    best = max(max(of, 1 - of) for of in (auc_of(labels, values) for values in noise.T))
    assert best > 0.6
    assert one_feature(Ceilings(one_feature_auc=0.6), labels, noise, names) == []


def test_the_auc_is_scikit_learns_with_ties_and_the_u_statistics(labels: Labels, vectors: Floats) -> None:
    rounded = np.round(vectors[:, 0])
    u = mannwhitneyu(rounded[labels == 1], rounded[labels == 0]).statistic
    assert auc_of(labels, rounded) == pytest.approx(roc_auc_score(labels, rounded), abs=1e-12)
    assert auc_of(labels, rounded) == pytest.approx(u / (labels.sum() * (ROWS - labels.sum())), abs=1e-12)


def test_the_standard_error_is_the_spread_of_scores_that_know_nothing(labels: Labels) -> None:
    rng = np.random.default_rng(4)
    spread = np.std([auc_of(labels, rng.random(ROWS)) for _ in range(400)])
    positives = int(labels.sum())
    assert spread == pytest.approx(standard_error(positives, ROWS - positives), rel=0.1)


def halves(vectors: Floats, labels: Labels) -> tuple[tuple[Floats, Labels], tuple[Floats, Labels]]:
    return (vectors[: ROWS // 2], labels[: ROWS // 2]), (vectors[ROWS // 2 :], labels[ROWS // 2 :])


@pytest.mark.parametrize("estimator", [LogisticRegression(), DecisionTreeClassifier(max_depth=4, random_state=0)])
@pytest.mark.parametrize("seed", range(5))
def test_an_honest_estimator_passes_the_null_test(vectors: Floats, labels: Labels, estimator: Any, seed: int) -> None:
    (known, given), (asked, held_out) = halves(vectors, labels)

    def fit(labels: Labels) -> Floats:
        return estimator.fit(known, labels).predict_proba(asked)[:, 1]

    assert shuffled_labels(fit, given, held_out, seed) == []


def test_an_estimator_that_looks_up_true_labels_by_the_rows_content_fails_the_null_test(
    vectors: Floats, labels: Labels
) -> None:
    truth = {row.tobytes(): label for row, label in zip(vectors, labels, strict=True)}
    (_, given), (asked, held_out) = halves(vectors, labels)

    def fit(_: Labels) -> Floats:
        return np.array([float(truth[row.tobytes()]) for row in asked])

    (found,) = shuffled_labels(fit, given, held_out, 0)
    assert (found.name, found.subject) == ("shuffled_labels", "estimator")
    assert "AUC of 1.0000 over 1000 held-out rows, with these inverted one of 1.0000" in found.evidence


def test_a_set_that_differs_when_it_is_read_again_names_the_columns() -> None:
    there = pa.table({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"]})
    again = there.set_column(1, "b", pa.array([0.5, 0.0]))
    (found,) = not_repeatable(there, again)
    assert (found.name, found.subject) == ("not_repeatable", "b")
    assert not_repeatable(there, pa.table({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"]})) == []
    assert not_repeatable(there, there.slice(1))[0].subject == "rows"
    assert not_repeatable(there, there.drop_columns(["c"]))[0].subject == "c"
