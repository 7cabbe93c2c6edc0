"""The V2 protocol says the same as ours: a request of tensors is read as the same rows would be, or refused by the same words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import fraud_case
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.contract import Column
from lockstep.errors import BadInput
from lockstep.serving import tensors
from lockstep.serving.request import MAX_ROWS, RequestParser

NOW = datetime(2018, 6, 1, 12, tzinfo=UTC)
TIME = "2018-06-01T12:00:00Z"
KINDS = {"flag": "bool", "small": "int32", "amount": "int64", "near": "float32", "far": "float64", "note": "string"}
ALL_KINDS = RequestParser(
    fraud_case.contract(request_inputs=tuple(Column(name=n, dtype=kind) for n, kind in KINDS.items())),  # type: ignore[arg-type]
    timedelta(minutes=5),
)
CASE = RequestParser(fraud_case.contract(), timedelta(minutes=5))

whole = st.integers(-(1 << 63), (1 << 63) - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 53), 1 << 53)
near = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(1 << 53), 1 << 53)
times = st.integers(-300, 300).map(lambda seconds: (NOW + timedelta(seconds=seconds)).isoformat())
rows = st.lists(
    st.fixed_dictionaries(
        {
            "customer_id": whole,
            "terminal_id": whole,
            "flag": st.booleans(),
            "small": st.integers(-(1 << 31), (1 << 31) - 1),
            "amount": st.integers(-(1 << 53), 1 << 53),
            "near": near,
            "far": numbers,
            "note": st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
            "request_time": times,
        }
    ),
    min_size=1,
    max_size=4,
)
ids = st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=5)
anything = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | numbers | st.text("ab", max_size=2)


def tensor(name: str, datatype: str, values: Sequence[Any], **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": list(values)} | changes


def document(parser: RequestParser, given_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as a request of V2."""
    inputs = [tensor(n, kind, [row[n] for row in given_rows]) for n, kind in parser.datatypes.items()]
    return {"inputs": inputs}


def named(request_id: str | None, key: str) -> dict[str, str]:
    return {} if request_id is None else {key: request_id}


@given(given_rows=rows, request_id=ids, shapes=st.lists(st.sampled_from(("flat", "column", "nested")), min_size=9))
def test_tensors_are_read_as_the_same_rows_would_be(
    given_rows: list[dict[str, Any]], request_id: str | None, shapes: list[str]
) -> None:
    body = document(ALL_KINDS, given_rows) | named(request_id, "id")
    for of, shape in zip(body["inputs"], shapes, strict=False):
        if shape != "flat":
            of["shape"] = [len(given_rows), 1]
        if shape == "nested":
            of["data"] = [[value] for value in of["data"]]

    by_tensors = ALL_KINDS.parse_tensors(orjson.dumps(body), NOW, "header")
    by_rows = ALL_KINDS.parse(orjson.dumps({"instances": given_rows} | named(request_id, "request_id")), NOW, "header")

    assert by_tensors == by_rows
    assert by_tensors.id == (request_id or "header")
    assert [list(row) for row in by_tensors.inputs] == [list(KINDS)] * len(given_rows)


@given(given_rows=rows, name=st.sampled_from([*KINDS, "customer_id", "request_time"]), value=anything)
def test_a_value_that_does_not_fit_is_refused_by_the_same_words(
    given_rows: list[dict[str, Any]], name: str, value: Any
) -> None:
    given_rows[-1][name] = value

    def said(read: Any, body: Any) -> Any:
        try:
            return read(orjson.dumps(body), NOW, "header")
        except BadInput as refused:
            return str(refused)

    by_rows = said(ALL_KINDS.parse, {"instances": given_rows})
    assert said(ALL_KINDS.parse_tensors, document(ALL_KINDS, given_rows)) == by_rows


def body_of(**changes: Any) -> dict[str, Any]:
    """Return a request of two rows; `changes` are of its tensors, None for one that is left out."""
    plain = {
        "customer_id": tensor("customer_id", "INT64", [7, 8]),
        "terminal_id": tensor("terminal_id", "INT64", [5, 5]),
        "amount_cents": tensor("amount_cents", "INT64", [1250, 3]),
        "request_time": tensor("request_time", "BYTES", [TIME, TIME]),
    }
    merged = {n: None if n in changes and changes[n] is None else plain[n] | changes.get(n, {}) for n in plain}
    return {"inputs": [of for of in merged.values() if of is not None]}


def refusal(body: Any) -> str:
    with pytest.raises(BadInput) as refused:
        CASE.parse_tensors(body, NOW)
    return str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, 'inputs[0] has no "name" that is text'),
        ({"name": 5}, 'inputs[0] has no "name" that is text'),
        (
            {"name": "custmer_id"},
            "there is no input 'custmer_id'\n\nHint: did you mean 'customer_id' or 'terminal_id'?",
        ),
        ({"name": "terminal_id"}, "inputs[1] is a second tensor named 'terminal_id'"),
        ({"datatype": 5}, 'inputs[0] has no "datatype" that is text'),
        ({"datatype": "INT32"}, "customer_id has the datatype 'INT32', not INT64"),
        ({"datatype": "int64"}, "customer_id has the datatype 'int64', not INT64"),
        ({"shape": 2}, 'inputs[0] has no "shape" that is a list'),
        ({"shape": ["2"]}, "inputs[0].shape is no list of whole numbers"),
        ({"shape": [True]}, "inputs[0].shape is no list of whole numbers"),
        ({"shape": [-2]}, "inputs[0].shape is no list of whole numbers"),
        ({"shape": [2.0]}, "inputs[0].shape is no list of whole numbers"),
        ({"shape": []}, "customer_id has the shape [], not [rows] or [rows, 1]"),
        ({"shape": [1, 2]}, "customer_id has the shape [1, 2], not [rows] or [rows, 1]"),
        ({"shape": [2, 1, 1]}, "customer_id has the shape [2, 1, 1], not [rows] or [rows, 1]"),
        ({"shape": [3]}, "customer_id holds 2 values, its shape [3] says 3"),
        ({"shape": [1 << 62]}, f"customer_id holds 2 values, its shape [{1 << 62}] says {1 << 62}"),
        ({"data": "7"}, 'inputs[0] has no "data" that is a list'),
        ({"data": None}, 'inputs[0] has no "data" that is a list'),
        ({"data": [7]}, "customer_id holds 1 values, its shape [2] says 2"),
        ({"data": [[7], [8]]}, "instances[0].customer_id is a list, not a whole number of 64 bits: [7]"),
        ({"shape": [2, 1], "data": [[7], [8, 9]]}, "customer_id does not hold what its shape [2, 1] says"),
        ({"shape": [2, 1], "data": [[7], [8], [9]]}, "customer_id does not hold what its shape [2, 1] says"),
        ({"shape": [2, 1], "data": [[7], 8]}, "instances[0].customer_id is a list, not a whole number of 64 bits"),
        ({"shape": [1], "data": [7]}, "different numbers of rows: customer_id 1, terminal_id 2"),
        ({"shape": [0], "data": []}, "different numbers of rows: customer_id 0, terminal_id 2"),
        ({"contents": [7, 8]}, "inputs[0] has the unknown field 'contents'"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_place_and_reason(change: dict[str, Any], message: str) -> None:
    assert message in refusal(body_of(customer_id=change))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is no JSON"),
        (b"", "the body is no JSON"),
        ([], "the body is no object"),
        ({"inputs": [], "outputs": []}, '"inputs" must be a list with at least one tensor'),
        ({"inputs": {"name": "x"}}, '"inputs" must be a list with at least one tensor'),
        ({}, '"inputs" must be a list with at least one tensor'),
        ({"instances": []}, "the body has the unknown field 'instances'"),
        ({"inputs": [7]}, "inputs[0] is no object"),
        ({"inputs": body_of()["inputs"][1:]}, "the inputs lack customer_id"),
        (body_of(customer_id=None, request_time=None), "the inputs lack customer_id, request_time"),
        (body_of() | {"id": ""}, "the id of a request must be 1 to 128 printable ASCII characters"),
        (body_of() | {"id": 5}, "the id of a request must be 1 to 128 printable ASCII characters"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_reason(body: object, message: str) -> None:
    assert message in refusal(body)


def test_no_rows_and_more_rows_than_one_request_may_have_are_refused() -> None:
    row = {"customer_id": 7, "terminal_id": 5, "amount_cents": 3, "request_time": TIME}

    assert "at least one row" in refusal(document(CASE, []))
    assert "1001 rows are more than the 1000" in refusal(document(CASE, [row] * (MAX_ROWS + 1)))


def test_what_the_protocol_has_beside_data_is_taken_and_not_acted_on() -> None:
    body = body_of(customer_id={"parameters": {"content_type": "np"}})
    body |= {"id": "r", "parameters": {"priority": 1}, "outputs": [{"name": "score"}]}

    request = CASE.parse_tensors(body, NOW)

    assert (request.id, request.entities) == ("r", {"customer_id": [7, 8], "terminal_id": [5, 5]})


def test_a_tensor_of_vectors_is_flat_or_nested_and_may_hold_nulls() -> None:
    flat = tensor("v", "FP64", [1.0, None, 3.0, 4.0], shape=[2, 2])
    nested = tensor("v", "FP64", [[1.0, None], [3.0, 4.0]]) | {"shape": [2, 2]}

    assert tensors.matrix(flat, "FP64", 2) == tensors.matrix(nested, "FP64", 2) == [[1.0, None], [3.0, 4.0]]
    for wrong in ([4], [2, 3], [1, 2, 2]):
        with pytest.raises(BadInput, match=r"v has the shape .*, not \[rows, 2\]"):
            tensors.matrix(flat | {"shape": wrong}, "FP64", 2)


def test_an_output_is_a_tensor_that_is_read_back() -> None:
    printed = tensors.output("score", "FP64", [0.1, 0.2])

    assert printed == {"name": "score", "datatype": "FP64", "shape": [2], "data": [0.1, 0.2]}
    assert tensors.column(printed, "FP64") == [0.1, 0.2]
