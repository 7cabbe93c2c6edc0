"""The value half of the policy: one function, whose defaults and rejections are those of the contract."""

import math
from dataclasses import replace
from typing import Any

import fraud_case
import numpy as np
import pytest
from pydantic import ValidationError

from feature_repo.definitions import use_case as fraud
from lockstep.contract import Feature, FeatureContract
from lockstep.errors import UseCaseError
from lockstep.serving.policy import apply_policy, rejections, require_answerable
from lockstep.serving.refusal import RowRejected
from lockstep.training.contract import compile_contract
from lockstep.views import FeatureService, default, reject
from lockstep.views.declare import NullPolicy

NAN = np.nan


def test_null_stays_with_the_model_a_default_is_put_in_and_a_rejection_is_named() -> None:
    given = fraud_case.with_policy(
        nb_tx_7d={"when_null": "default", "default": 0.5},
        hour={"when_null": "reject"},
        risk_28d={"when_null": "reject"},
    )
    vectors = np.array([[0.1, NAN, NAN, 5.0, NAN], [NAN, 3.0, 1.0, 5.0, 2.0], [0.2, NAN, 1.0, NAN, 2.0]])
    before = vectors.copy()

    settled = apply_policy(given, vectors)

    np.testing.assert_array_equal(settled.vectors, [[0.1, 0.5, NAN, 5, NAN], [NAN, 3, 1, 5, 2], [0.2, 0.5, 1, NAN, 2]])
    assert settled.rejected.tolist() == [False, True, True]
    np.testing.assert_array_equal(vectors, before)
    assert rejections(given, settled) == {1: "terminals:risk_28d", 2: "enriched:hour"}
    with pytest.raises(RowRejected, match=r"instances\[1\] cannot be scored: terminals:risk_28d has no value") as told:
        require_answerable(given, settled)
    assert told.value.rows == [1, 2]


def test_a_row_that_lacks_several_features_is_rejected_for_the_first_in_the_contract_s_order() -> None:
    given = fraud_case.with_policy(
        hour={"when_null": "reject"}, risk_28d={"when_null": "reject"}, nb_tx_7d={"when_null": "reject"}
    )
    settled = apply_policy(given, np.array([[0.1, 2.0, NAN, NAN, NAN], [0.1, NAN, NAN, NAN, NAN]]))

    assert rejections(given, settled) == {0: "enriched:hour", 1: "cards:nb_tx_7d"}
    with pytest.raises(RowRejected, match=r"instances\[0\] cannot be scored: enriched:hour has no value"):
        require_answerable(given, settled)


def test_without_a_policy_nothing_is_changed_or_rejected() -> None:
    vectors = np.full((2, 5), NAN)

    settled = apply_policy(fraud_case.contract(), vectors)

    assert settled.vectors is vectors
    assert not settled.rejected.any()
    assert rejections(fraud_case.contract(), settled) == {}
    require_answerable(fraud_case.contract(), settled)


@pytest.mark.parametrize(
    ("when_null", "value"),
    [("default", None), ("default", NAN), ("default", float("inf")), ("null", 0.0), ("reject", 0.0)],
)
def test_a_contract_whose_default_contradicts_its_policy_is_none(when_null: str, value: float | None) -> None:
    with pytest.raises(ValidationError, match="feature a: when_null is"):
        Feature(name="a", view="v", dtype="float64", when_null=when_null, default=value)


def service(**changes: Any) -> FeatureService:
    return replace(fraud.service("fraud_v1"), **changes)


def compiled(given: FeatureService) -> FeatureContract:
    return compile_contract(replace(fraud, services=(given,)), given.name, fraud_case.contract().cut)


def test_the_service_says_which_policy_a_feature_has() -> None:
    found = compiled(service(policy={"risk_7d": default(0), "nb_tx_30d": reject()}))

    told = {f.name: (f.when_null, f.default) for f in found.features if f.when_null != "null"}
    assert told == {"risk_7d": ("default", 0.0), "nb_tx_30d": ("reject", None)}
    assert found.hash != compiled(service()).hash


def test_a_policy_about_a_feature_that_is_not_listed_is_refused_with_the_nearest() -> None:
    with pytest.raises(UseCaseError, match=r"about 'risk_6d', which it does not list\n\nHint: did you mean 'risk_"):
        compiled(service(policy={"risk_6d": default(0)}))


def test_a_default_that_is_no_number_is_refused() -> None:
    with pytest.raises(UseCaseError, match="the default nan is no number"):
        default(NAN)
    assert default(3) == NullPolicy("default", 3.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("default",), r"the policy 'default' comes with the value None\n\nHint: write default\(0\.0\)"),
        (("null", 1.0), "the policy 'null' comes with the value 1.0"),
        (("reject", 0.0), "the policy 'reject' comes with the value 0.0"),
        (("default", math.inf), "the default inf is no number"),
        (("rejekt",), r"there is no policy 'rejekt'\n\nHint: did you mean 'reject'\?"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused_where_it_is_declared(
    given: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(UseCaseError, match=message):
        NullPolicy(*given)
