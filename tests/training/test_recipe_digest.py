"""The digest by which a recipe finds the model that was fitted by it: of what is fitted, to the last bit, and of what fits it."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer

from feature_repo.definitions import use_case as fraud
from lockstep.errors import UseCaseError
from lockstep.training import origins
from lockstep.training.fit import recipe_digest


def of(estimator: Callable[[], Any]) -> str:
    return recipe_digest(replace(fraud.model, estimator=estimator))


def priors(first: float) -> GaussianNB:
    return GaussianNB(priors=np.array([first, 1 - first]))


def spline(middle: float) -> Any:
    knots = np.linspace(0, 1, 2_000).reshape(-1, 1)
    knots[1_000] = middle
    return make_pipeline(SplineTransformer(knots=knots), LogisticRegression())


def seeded(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(random_state=np.random.RandomState(seed))


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (priors, 0.123456789, 0.123456791),
        (spline, 0.5, 0.9),
        (seeded, 0, 1),
        (lambda c: LogisticRegression(C=c), 0.1, np.nextafter(0.1, 1)),
        (lambda name: VotingClassifier([("file", GaussianNB()), (name, GaussianNB())]), "a", "b"),
    ],
    ids=["rounded", "elided", "random state", "last bit", "nested"],
)
def test_two_recipes_have_two_digests_and_one_made_twice_has_one(
    make: Callable[[Any], Any], one: Any, other: Any
) -> None:
    assert of(lambda: make(one)) == of(lambda: make(one))
    assert of(lambda: make(one)) != of(lambda: make(other))


def test_a_number_is_the_same_whether_or_not_another_parameter_shares_the_object() -> None:
    shared = float("0.25")
    one = of(lambda: LogisticRegression(C=shared, tol=shared))
    assert one == of(lambda: LogisticRegression(C=float("0.25"), tol=float("0.25")))


def test_the_source_of_a_class_that_is_not_installed_is_in_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "edited_estimator.py"

    def written(factor: int) -> str:
        source.write_text(
            "from sklearn.linear_model import LogisticRegression\n\n"
            f"def scaled(x): return {factor} * x\n\n"
            "class Own(LogisticRegression):\n    pass\n"
        )
        sys.modules.pop("edited_estimator", None)
        importlib.invalidate_caches()
        own = importlib.import_module("edited_estimator")
        return of(lambda: make_pipeline(FunctionTransformer(own.scaled), own.Own()))

    first = written(1)
    assert written(2) != first
    assert written(1) == first
    sys.modules.pop("edited_estimator")


def parsing() -> Any:
    return make_pipeline(FunctionTransformer(yaml.safe_load), LogisticRegression())


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("scikit-learn", GaussianNB), ("numpy", GaussianNB), ("scipy", GaussianNB), ("PyYAML", parsing)],
)
def test_the_releases_of_what_fits_are_in_the_digest(
    name: str, estimator: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(estimator)
    installed = origins.version
    monkeypatch.setattr(origins, "version", lambda asked: "99.0" if asked == name else installed(asked))

    assert of(estimator) != before


def test_what_is_installed_as_a_folder_goes_by_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its release stays while people edit it."""

    class Folder:
        def read_text(self, _: str) -> str:
            return '{"url": "file:///somewhere", "dir_info": {"editable": true}}'

    monkeypatch.setattr(origins, "packages_distributions", lambda: {"feature_repo": ["theirs"]})
    monkeypatch.setattr(origins, "distribution", lambda _: Folder())

    found = dict(origins.origins({"feature_repo.simulator", "sklearn.svm", "builtins", "collections.abc"}))

    assert set(found) == {"feature_repo.simulator", "scikit-learn", "numpy", "scipy"}
    assert len(found["feature_repo.simulator"]) == 64


class Locked(BaseEstimator):
    """Holds what nobody can save."""

    def __init__(self) -> None:
        self.lock = (n for n in range(3))


def test_an_estimator_that_cannot_be_told_is_the_use_case_s_mistake() -> None:
    with pytest.raises(
        UseCaseError, match=r"model 'fraud' does not serialize \(it is a test_recipe_digest\.Locked\): Type"
    ):
        of(Locked)
