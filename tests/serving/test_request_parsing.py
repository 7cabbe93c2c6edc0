from datetime import UTC, datetime, timedelta
from typing import Any

import fraud_case
import orjson
import pytest

from lockstep.contract import Column
from lockstep.errors import BadInput, NotYetSupported
from lockstep.serving.request import MAX_ROWS, RequestParser

NOW = datetime(2018, 6, 1, 12, tzinfo=UTC)
ROW: dict[str, Any] = {
    "customer_id": 7,
    "terminal_id": 9,
    "amount_cents": 1250,
    "request_time": "2018-06-01T14:00:01.000002+02:00",
}


def parser() -> RequestParser:
    return RequestParser(fraud_case.contract(), timedelta(minutes=5))


def test_a_request_that_fits_becomes_columns_of_keys_and_rows_of_inputs() -> None:
    second = ROW | {"customer_id": -(1 << 63), "request_time": "2018-06-01T12:00:00Z"}

    request = parser().parse({"instances": [ROW, second], "request_id": "r-1"}, NOW)

    assert request.id == "r-1"
    assert request.entities == {"customer_id": [7, -(1 << 63)], "terminal_id": [9, 9]}
    assert request.inputs == [{"amount_cents": 1250}, {"amount_cents": 1250}]
    assert request.times_us == [1_527_854_401_000_002, 1_527_854_400_000_000]


def test_a_body_of_bytes_is_parsed() -> None:
    assert parser().parse(orjson.dumps({"instances": [ROW]}), NOW).entities["customer_id"] == [7]


def test_a_request_without_a_name_gets_the_header_s_or_one_of_ours() -> None:
    assert parser().parse({"instances": [ROW]}, NOW, "from-header").id == "from-header"
    assert len({parser().parse({"instances": [ROW]}, NOW).id for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"customer_id": "7"}, 'instances[0].customer_id is text, not a whole number of 64 bits: "7"'),
        ({"customer_id": True}, "instances[0].customer_id is a boolean, not a whole number of 64 bits: true"),
        ({"customer_id": 7.0}, "instances[0].customer_id is a number, not a whole number of 64 bits: 7.0"),
        ({"customer_id": 1 << 63}, "instances[0].customer_id is a whole number, not a whole number of 64 bits"),
        ({"amount_cents": None}, "instances[0].amount_cents is null, not a whole number of 64 bits: null"),
        ({"amount_cents": [1]}, "instances[0].amount_cents is a list, not a whole number of 64 bits: [1]"),
        ({"custmer_id": 7}, "instances[0] has the unknown field 'custmer_id'"),
        ({"request_time_us": 5}, "unknown field 'request_time_us'\n\nHint: did you mean 'request_time'"),
        ({"request_time": "2018-06-01T12:00:00"}, "instances[0].request_time has no time zone"),
        ({"request_time": "2018-06-01"}, "instances[0].request_time has no time zone"),
        ({"request_time": "yesterday"}, "instances[0].request_time is no ISO 8601 time: 'yesterday'"),
        ({"request_time": 1_527_854_400}, "instances[0].request_time is a whole number, not a time"),
        ({"request_time": "0001-01-01T00:00:00+14:00"}, "instances[0].request_time is out of range"),
        ({"request_time": "2018-06-01T12:05:00.000001Z"}, "further than 300 s from now (2018-06-01T12:00:00+00:00)"),
        ({"request_time": "2018-06-01T11:54:59.999999Z"}, "further than 300 s from now"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_place_and_reason(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parser().parse({"instances": [ROW | change]}, NOW)

    assert message in str(refused.value)


def test_a_misspelt_field_is_named_with_the_one_that_is_missing() -> None:
    row = {name: value for name, value in ROW.items() if name != "customer_id"} | {"custmer_id": 7}

    with pytest.raises(BadInput) as refused:
        parser().parse({"instances": [ROW, row]}, NOW)

    assert str(refused.value) == (
        "instances[1] has the unknown field 'custmer_id', lacks 'customer_id'\n\nHint: did you mean 'customer_id'?"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([ROW], "the body is a list, not an object"),
        (b"{", "the body is no JSON"),
        ({"instance": [ROW]}, "the body has the unknown field 'instance'\n\nHint: did you mean 'instances'?"),
        ({"instances": []}, '"instances" must be a list with at least one row'),
        ({}, '"instances" must be a list with at least one row'),
        ({"instances": [7]}, "instances[0] is a whole number, not an object"),
        ({"instances": [ROW] * (MAX_ROWS + 1)}, "1001 rows are more than the 1000 of one request"),
        ({"instances": [ROW], "request_id": ""}, "the id of a request must be 1 to 128 printable ASCII characters"),
        ({"instances": [ROW], "request_id": 5}, "the id of a request must be 1 to 128 printable ASCII characters"),
        ({"instances": [ROW], "request_id": "a\r\nx: y"}, "the id of a request must be 1 to 128 printable"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_reason(body: object, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parser().parse(body, NOW)

    assert message in str(refused.value)


def test_a_float_takes_a_whole_number_only_when_none_of_its_digits_is_lost() -> None:
    given = fraud_case.contract(request_inputs=(Column(name="amount_cents", dtype="float64"),))
    floats = RequestParser(given, timedelta(minutes=5))

    assert floats.parse({"instances": [ROW | {"amount_cents": 5}]}, NOW).inputs == [{"amount_cents": 5}]
    with pytest.raises(BadInput, match="amount_cents is a whole number, not a number"):
        floats.parse({"instances": [ROW | {"amount_cents": (1 << 53) + 1}]}, NOW)


def test_a_field_that_json_cannot_carry_is_refused_at_the_start() -> None:
    with pytest.raises(NotYetSupported, match="a request cannot carry blob, a bytes"):
        RequestParser(fraud_case.contract(request_inputs=(Column(name="blob", dtype="bytes"),)), timedelta(minutes=5))


def of_inputs(**kinds: Any) -> RequestParser:
    inputs = tuple(Column(name=name, dtype=dtype) for name, dtype in kinds.items())
    return RequestParser(fraud_case.contract(request_inputs=inputs, features=(), on_demand=()), timedelta(minutes=5))


def test_numbers_are_what_training_has_of_them() -> None:
    row = {name: value for name, value in ROW.items() if name != "amount_cents"} | {
        "near": 0.1,
        "far": 2**60,
        "whole": 2**53,
    }

    (inputs,) = of_inputs(near="float32", far="float64", whole="int64").parse({"instances": [row]}, NOW).inputs

    assert inputs == {"near": 0.10000000149011612, "far": float(2**60), "whole": 2**53}
    assert (
        type(inputs["far"]) is float
    )  # as a whole number of JSON it would be past what the comparison with training reads


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("float32", 1e39, "instances[0].given is larger than a float32 can be"),
        ("int64", 2**53 + 1, "instances[0].given is past 2**53: as a number of a model it would lose digits"),
        ("int64", -(2**53) - 1, "instances[0].given is past 2**53"),
        ("string", "x" * 1025, "instances[0].given is text, not text of at most 1024 characters"),
    ],
)
def test_an_input_that_would_not_be_the_same_in_training_is_refused(kind: str, value: Any, message: str) -> None:
    row = {name: held for name, held in ROW.items() if name != "amount_cents"} | {"given": value}

    with pytest.raises(BadInput) as refused:
        of_inputs(given=kind).parse({"instances": [row]}, NOW)
    assert message in str(refused.value)
