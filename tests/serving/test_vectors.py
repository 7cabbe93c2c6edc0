from typing import Any

import fraud_case
import numpy as np
import pytest

from lockstep.contract import Feature
from lockstep.errors import NotYetSupported, SchemaDrift, Terminal, UseCaseError
from lockstep.online.reader import Reading, Status, ViewRows
from lockstep.serving.features import build_vectors, complete_inputs, load_functions, on_demand_values
from lockstep.serving.request import Request
from lockstep.serving.vectors import flags_of, vectors_of

USABLE: dict[tuple[str, str], list[Any]] = {
    ("cards", "nb_tx_7d"): [3, None],
    ("cards", "avg_amount_7d"): [500.0, None],
    ("terminals", "risk_28d"): [None, 0.25],
}
TIMES_US = [5 * fraud_case.HOUR_US + 1, 29 * fraud_case.HOUR_US]


def inputs() -> dict[str, list[Any]]:
    return complete_inputs(fraud_case.contract(), [{"amount_cents": 1250}, {"amount_cents": 10}], TIMES_US)


def test_vectors_follow_the_contract_s_order_with_nan_for_null() -> None:
    contract = fraud_case.contract()

    vectors = build_vectors(contract, load_functions(contract, "fraud_case"), USABLE, inputs())

    nan = np.nan
    assert vectors.dtype == np.float64
    assert vectors.flags.c_contiguous
    np.testing.assert_array_equal(vectors, [[nan, 3.0, 2.5, 5.0, 500.0], [0.25, nan, nan, 5.0, nan]])


def test_the_request_time_is_filled_in_and_not_sent() -> None:
    assert inputs() == {"amount_cents": [1250, 10], "request_time_us": TIMES_US}


def test_a_function_gets_integers_as_int64_and_stored_features_as_float64() -> None:
    contract = fraud_case.contract()
    seen: dict[str, Any] = {}

    def spy(given: Any) -> Any:
        seen.update(given)
        return fraud_case.enrich(given)

    on_demand_values(contract, {"enriched": spy}, USABLE, inputs())

    assert {name: str(values.dtype) for name, values in seen.items()} == {
        "amount_cents": "int64",
        "request_time_us": "int64",
        "avg_amount_7d": "float64",
    }


def test_a_function_whose_source_changed_is_refused_naming_both_hashes() -> None:
    trained = fraud_case.contract()
    edited = trained.on_demand[0].model_copy(update={"source_hash": "e" * 64})

    with pytest.raises(SchemaDrift) as refused:
        load_functions(fraud_case.contract(on_demand=(edited,)), "fraud_case")

    message = str(refused.value)
    assert "fraud_case:enrich" in message
    assert trained.on_demand[0].source_hash in message
    assert "e" * 64 in message


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("os:system", "os:system is not in the use case 'fraud_case'"),
        ("fraud_case_two:enrich", "fraud_case_two:enrich is not in the use case 'fraud_case'"),
        ("fraud_case:nothing", "fraud_case:nothing does not import"),
        ("fraud_case.nothing:enrich", "fraud_case.nothing:enrich does not import"),
    ],
)
def test_only_functions_of_the_use_case_are_imported(function: str, message: str) -> None:
    elsewhere = fraud_case.contract().on_demand[0].model_copy(update={"function": function})

    with pytest.raises(UseCaseError, match=message):
        load_functions(fraud_case.contract(on_demand=(elsewhere,)), "fraud_case")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"hour": np.zeros(2)}, "fraud_case:enrich returned no 'amount_ratio': it returned hour"),
        (
            {"hour": np.zeros(2), "amount_ratio": np.zeros(3)},
            r"amount_ratio has the shape \(3,\), not one value for each of 2",
        ),
        ({"hour": np.zeros(2), "amount_ratio": np.array([1.0, np.inf])}, "infinite values in enriched.amount_ratio"),
    ],
)
def test_a_function_that_returns_something_else_is_an_error(made: dict[str, Any], message: str) -> None:
    with pytest.raises(Terminal, match=message):
        build_vectors(fraud_case.contract(), {"enriched": lambda _: made}, USABLE, inputs())


def test_a_feature_that_is_no_number_is_refused() -> None:
    contract = fraud_case.contract(features=(Feature(name="nb_tx_7d", view="cards", dtype="string"),))

    with pytest.raises(NotYetSupported, match=r"feature cards\.nb_tx_7d is a string"):
        build_vectors(contract, load_functions(contract, "fraud_case"), USABLE, inputs())


def read(*, stored: dict[tuple[str, str], list[Any]], terminals: list[Status]) -> Reading:
    """What a store answers that holds these values, the cards all present."""
    nothing: Any = None
    views = {
        view.name: ViewRows(
            terminals if view.name == "terminals" else ["present", "present"],
            [1, 1],
            [1, 1],
            {column.name: stored[view.name, column.name] for column in view.columns},
        )
        for view in fraud_case.contract().views
    }
    return Reading(nothing, nothing, views)


def asked() -> Request:
    inputs: Any = [{"amount_cents": 1250}, {"amount_cents": 10}]
    return Request("r", TIMES_US, {"customer_id": [1, 2], "terminal_id": [5, 6]}, inputs)


def test_a_default_takes_the_place_of_what_is_null_missing_or_stale_after_the_functions_have_run() -> None:
    contract = fraud_case.with_policy(
        risk_28d={"when_null": "default", "default": -1.0}, avg_amount_7d={"when_null": "default", "default": 9.0}
    )
    functions = load_functions(contract, "fraud_case")
    stored = USABLE | {("terminals", "risk_28d"): [0.5, 0.25]}

    stale = vectors_of(contract, functions, asked(), read(stored=stored, terminals=["stale", "present"]))
    null = vectors_of(contract, functions, asked(), read(stored=USABLE, terminals=["present", "missing"]))

    # The ratio is made of the stored null, not of the default that the model gets for it.
    cards = [[3.0, 2.5, 5.0, 500.0], [np.nan, np.nan, 5.0, 9.0]]
    np.testing.assert_array_equal(stale.vectors, [[-1.0, *cards[0]], [0.25, *cards[1]]])
    np.testing.assert_array_equal(null.vectors, [[-1.0, *cards[0]], [-1.0, *cards[1]]])


@pytest.mark.parametrize("status", ["missing", "stale"])
def test_a_row_without_a_value_that_the_contract_asks_for_is_rejected(status: Status) -> None:
    contract = fraud_case.with_policy(risk_28d={"when_null": "reject"})
    functions = load_functions(contract, "fraud_case")
    stored = USABLE | {("terminals", "risk_28d"): [0.5, 0.25]}

    whole = vectors_of(contract, functions, asked(), read(stored=stored, terminals=["present", "present"]))
    assert (whole.vectors[:, 0].tolist(), whole.rejected.tolist()) == ([0.5, 0.25], [False, False])
    without = vectors_of(contract, functions, asked(), read(stored=stored, terminals=["present", status]))
    np.testing.assert_array_equal(without.vectors[:, 0], [0.5, np.nan])
    assert without.rejected.tolist() == [False, True]
    null = vectors_of(contract, functions, asked(), read(stored=USABLE, terminals=["present", "present"]))
    assert null.rejected.tolist() == [True, False]


def test_a_row_is_flagged_for_what_was_read_and_for_being_rejected() -> None:
    views = read(stored=USABLE, terminals=["stale", "present"]).views

    assert flags_of(views, 2, {0: "terminals:risk_28d"}) == [["terminals:stale", "rejected"], []]
