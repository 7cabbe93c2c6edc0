"""Fit the use case's estimator on a training set, and refuse what could not be served; nothing is logged here."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import skops.io
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, UseCaseError
from lockstep.hashing import digest
from lockstep.serving.artifact import estimator_digest, modules_named
from lockstep.serving.features import feature_matrix
from lockstep.serving.policy import apply_policy
from lockstep.training.evaluation.scored import Scored
from lockstep.training.origins import origins
from lockstep.training.protocol import SPLIT, TEST, TRAIN
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.use_case import ModelRecipe

# What an estimator, or the code that makes it, raises at a mistake of its owner's.
_MISTAKES = (ValueError, TypeError, AttributeError, ImportError, RuntimeError)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Given:
    """Rows as an estimator sees them.

    Attributes:
        rows: the entity rows.
        vectors: rows by features in the contract's order, after the policy.
        labels: 0 or 1 a row.
        rejected: whether the contract rejects the row: it is not fitted on, and not asked about.
    """

    rows: pa.Table
    vectors: NDArray[np.float64]
    labels: NDArray[np.int64]
    rejected: NDArray[np.bool_]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether the row gets a score."""
        return ~self.rejected

    def scores(self, estimator: Any) -> NDArray[np.float64]:
        """Return the probability of class 1 of each row; 0 for a rejected one: nobody is told to look at it.

        So two models are always compared on all rows, and none looks better for not answering.
        """
        said = np.zeros(len(self.labels))
        if self.answered.any():
            said[self.answered] = score(estimator, self.vectors[self.answered])
        return said


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator and what it says to the rows held out that it is asked: one row of class probabilities each."""

    estimator: Any
    probabilities: NDArray[np.float64]


def given(
    recipe: ModelRecipe,
    contract: FeatureContract,
    rows: pa.Table,
    split: str,
    values: NDArray[np.float64] | None = None,
) -> Given:
    """Return one split of a training set as an estimator of this contract sees it.

    Args:
        recipe: names the label.
        contract: its features are columns of the set, and its policy is applied.
        rows: the training set.
        split: `train` or `test`.
        values: the features of all rows, before the policy, where they are to be others than the set's own.

    Raises:
        BadInput: its policy leaves no positive or no negative label.
    """
    of_split = rows[SPLIT].to_numpy() == split
    chosen = rows.filter(pa.array(of_split))
    vectors = feature_matrix(contract, chosen) if values is None else values[of_split]
    settled = apply_policy(contract, vectors)
    labels, rejected = chosen[recipe.label].to_numpy(), settled.rejected
    if rejected.any() and len(set(labels[~rejected].tolist())) < 2:
        raise BadInput(
            f"of the {len(labels)} rows to {split} on, the policy of {contract.feature_service} rejects {int(rejected.sum())}; "
            "what is left has labels of one kind alone",
            hint="are the views of that service computed for these days?",
        )
    return Given(chosen, settled.vectors, labels, rejected)


def fit(recipe: ModelRecipe, contract: FeatureContract, rows: pa.Table) -> Fitted:
    """Fit the recipe's estimator on the rows to train on, and have it judge those held out.

    Raises:
        BadInput: the policy leaves labels of one kind alone, or a feature has no value in any row to train on.
        UseCaseError: the estimator fails, does not take the features as they are, or does not serialize under its allow-list.
    """
    train = given(recipe, contract, rows, TRAIN)
    _refuse_empty(contract, train)
    estimator, vectors = _made(recipe), train.vectors[train.answered]
    labels = train.labels[train.answered]
    _tried(recipe, "fails to fit", lambda: estimator.fit(vectors, labels), _about_nulls(vectors))
    _refuse_unfit(recipe, estimator, len(contract.features))
    test = given(recipe, contract, rows, TEST)
    asked = test.vectors[test.answered]
    scores = _tried(recipe, "fails to score", lambda: estimator.predict_proba(asked), _about_nulls(asked))
    return Fitted(estimator, scores)


def scored(recipe: ModelRecipe, held_out: Given, scores: NDArray[np.float64]) -> Scored:
    """Return the rows held out with a model's scores, ready to be measured by the recipe's protocol."""
    rows, protocol = held_out.rows, recipe.protocol
    return Scored(
        times_us=rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(),
        labels=held_out.labels,
        scores=scores,
        entity=rows[protocol.entity].to_numpy(zero_copy_only=False),
        group=rows[protocol.group].cast(pa.int64()).to_numpy() if protocol.group else None,
    )


def score(estimator: Any, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of each vector: the probability of class 1, as the predictor answers it."""
    return estimator.predict_proba(vectors)[:, 1]


def recipe_digest(recipe: ModelRecipe) -> str:
    """Return the digest of what is fitted: the unfitted estimator as skops tells it, and the code that fits it.

    Raises:
        UseCaseError: it cannot be made, skops cannot tell it, or a class of it has no source.
    """
    estimator = _made(recipe)
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    hint = "skops keeps estimators, arrays, numbers and functions of modules"
    told = _tried(recipe, f"does not serialize (it is a {kind})", lambda: skops.io.dumps(estimator), hint)
    return digest([estimator_digest(BytesIO(told)), origins(modules_named(BytesIO(told)))])


def _made(recipe: ModelRecipe) -> Any:
    """Return a new estimator that says its parameters, which are logged."""

    def make() -> Any:
        estimator = recipe.estimator()
        estimator.get_params()
        return estimator

    return _tried(recipe, "cannot be made", make)


def _tried(recipe: ModelRecipe, what: str, act: Callable[[], _Answer], hint: str = "") -> _Answer:
    """Return what the owner's code gives.

    Raises:
        UseCaseError: it fails at a mistake, which a second try would repeat.
    """
    try:
        return act()
    except _MISTAKES as failure:
        told = f"{type(failure).__name__}: {next(iter(str(failure).splitlines()), '')}"
        raise UseCaseError(f"the estimator of model {recipe.name!r} {what}: {told}", hint=hint) from failure


def _about_nulls(vectors: NDArray[np.float64]) -> str:
    if not np.isnan(vectors).any():
        return ""
    return "a feature without a value reaches it as NaN, unless the service's policy says default(...) or reject()"


def _refuse_empty(contract: FeatureContract, train: Given) -> None:
    """Refuse features that no row has: nothing is learned of them, and estimators fail at them in words of their own."""
    features, vectors = enumerate(contract.features), train.vectors[train.answered]
    if empty := [f"{f.view}:{f.name}" for number, f in features if np.isnan(vectors[:, number]).all()]:
        raise BadInput(
            f"none of the {len(train.labels)} rows to train on has a value of {', '.join(empty)}",
            hint="is the view computed for these days? leave the feature out of the service, or give it a default",
        )


def _refuse_unfit(recipe: ModelRecipe, estimator: Any, features: int) -> None:
    if not hasattr(estimator, "predict_proba"):
        raise UseCaseError(f"the estimator of model {recipe.name!r} has no predict_proba")
    width = getattr(estimator, "n_features_in_", None)
    if width != features:
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} takes {width} features of {features}",
            hint="choose features in the service, not in the estimator",
        )
    if hasattr(estimator, "feature_names_in_"):
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} names its features itself",
            hint="it is given a matrix in the service's order, and must keep to that",
        )
    saved = _tried(recipe, "does not serialize", lambda: skops.io.dumps(estimator))
    unknown = set(skops.io.get_untrusted_types(data=saved)) - set(recipe.trusted_types)
    if unknown:
        raise UseCaseError(
            f"the estimator of model {recipe.name!r} holds types that are not trusted: {', '.join(sorted(unknown))}",
            hint="after a review, add them to the recipe's trusted_types",
        )
