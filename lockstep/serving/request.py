"""Read a scoring request strictly: what is unclear is refused with the row and field that is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import isfinite
from typing import Any
from uuid import uuid4

import numpy as np
import orjson

from lockstep.clock import parse_time, to_micros
from lockstep.contract import Column, FeatureContract
from lockstep.errors import BadInput, NotYetSupported, nearest
from lockstep.serving.edge import parse_json
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.serving.tensors import DATATYPES, instances
from lockstep.views.declare import DataType

REQUEST_TIME = "request_time"
MAX_ROWS = 1000
MAX_ID_LENGTH = 128
MAX_TEXT_LENGTH = 1024  # of a join key or an input; both go into each row of the served log
MOST_WHOLE = 2**53
_NAMED = 5  # unknown fields, at most; there may be a hundred thousand


@dataclass(frozen=True)
class Request:
    """A request that fits the contract.

    Attributes:
        id: the caller's name for it, or one of ours.
        times_us: each row's request time, in microseconds.
        entities: each join key's values, one a row.
        inputs: each row's request inputs, as sent but for the rounding of a float32.
    """

    id: str
    times_us: list[int]
    entities: dict[str, list[Any]]
    inputs: list[dict[str, Any]]


class RequestParser:
    """Reads requests for one contract.

    Args:
        contract: names the fields and their types.
        time_limit: how far a request time may lie from now.

    Raises:
        NotYetSupported: a field has a type that JSON does not carry.
    """

    def __init__(self, contract: FeatureContract, time_limit: timedelta) -> None:
        self._time_limit = time_limit
        self._keys = contract.join_keys
        self._inputs = tuple(c for c in contract.request_inputs if c.name != REQUEST_TIME_US)
        for column in (*self._keys, *self._inputs):
            if column.dtype not in _CHECKS:
                raise NotYetSupported(f"a request cannot carry {column.name}, a {column.dtype}, so far")
        self._fields = frozenset(c.name for c in (*self._keys, *self._inputs)) | {REQUEST_TIME}
        self.datatypes = {c.name: DATATYPES[c.dtype] for c in (*self._keys, *self._inputs)} | {REQUEST_TIME: "BYTES"}

    def parse(self, payload: object, now: datetime, request_id: str | None = None) -> Request:
        """Read a request.

        Args:
            payload: the body: JSON text, or what it parses to.
            now: what the request times are measured against.
            request_id: what to call it when the body does not say.

        Raises:
            BadInput: it does not fit, with the place and the reason.
        """
        body = _body(payload)
        given = body.get("request_id")
        return self._request(body.get("instances"), now, request_id if given is None else given)

    def parse_tensors(self, payload: object, now: datetime, request_id: str | None = None) -> Request:
        """Read a request of the V2 protocol, one tensor a field (`serving/tensors.py`); otherwise as `parse`."""
        rows, given = instances(_parsed(payload), self.datatypes)
        return self._request(rows, now, request_id if given is None else given)

    def _request(self, instances: object, now: datetime, request_id: object) -> Request:
        if not isinstance(instances, list) or not instances:
            raise BadInput('"instances" must be a list with at least one row')
        if len(instances) > MAX_ROWS:
            raise BadInput(f"{len(instances)} rows are more than the {MAX_ROWS} of one request", hint="send several")
        entities: dict[str, list[Any]] = {key.name: [] for key in self._keys}
        inputs: list[dict[str, Any]] = []
        times_us: list[int] = []
        for number, row in enumerate(instances):
            place = f"instances[{number}]"
            self._require_fields(row, place)
            for key in self._keys:
                entities[key.name].append(_value(row, key, place))
            inputs.append({column.name: _input(row, column, place) for column in self._inputs})
            times_us.append(self._time(row[REQUEST_TIME], now, f"{place}.{REQUEST_TIME}"))
        return Request(_id(request_id), times_us, entities, inputs)

    def _require_fields(self, row: object, place: str) -> None:
        if not isinstance(row, dict):
            raise BadInput(f"{place} is {_kind(row)}, not an object")
        if row.keys() == self._fields:
            return
        unknown = sorted(islice((name for name in row if name not in self._fields), _NAMED))
        missing = sorted(self._fields - row.keys())
        problems = [f"has the unknown field {name!r}" for name in unknown] + [f"lacks {name!r}" for name in missing]
        hint = nearest(unknown[0], missing or self._fields) if unknown else ""
        raise BadInput(f"{place} {', '.join(problems)}", hint=hint)

    def _time(self, value: object, now: datetime, place: str) -> int:
        if not isinstance(value, str):
            raise BadInput(f"{place} is {_kind(value)}, not a time", hint="write it as 2018-06-01T00:00:00Z")
        time = parse_time(value, place)
        if abs(time - now) > self._time_limit:
            raise BadInput(
                f"{place} is {value}, further than {self._time_limit.total_seconds():g} s from now ({now.isoformat()})",
                hint="send the time of the event itself; its clock or ours may be wrong",
            )
        return to_micros(time)


def _parsed(payload: object) -> object:
    return parse_json(payload) if isinstance(payload, bytes) else payload


def _body(payload: object) -> Mapping[str, Any]:
    payload = _parsed(payload)
    if not isinstance(payload, dict):
        raise BadInput(f"the body is {_kind(payload)}, not an object")
    known = {"instances", "request_id"}
    for name in payload:
        if name not in known:
            raise BadInput(f"the body has the unknown field {name!r}", hint=nearest(name, known))
    return payload


def _id(value: object) -> str:
    if value is None:
        return uuid4().hex
    # It travels on as a header.
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MAX_ID_LENGTH
        or not (value.isascii() and value.isprintable())
    ):
        raise BadInput(f"the id of a request must be 1 to {MAX_ID_LENGTH} printable ASCII characters")
    return value


def _value(row: Mapping[str, Any], column: Column, place: str) -> Any:
    value = row[column.name]
    if not _CHECKS[column.dtype](value):
        shown = orjson.dumps(value).decode()[:40]
        raise BadInput(f"{place}.{column.name} is {_kind(value)}, not {_NAMES[column.dtype]}: {shown}")
    return value


def _input(row: Mapping[str, Any], column: Column, place: str) -> Any:
    """Return a request input as training has it: a number that float64 holds, rounded to the input's own type."""
    value = _value(row, column, place)
    if column.dtype in {"float32", "float64"}:
        with np.errstate(over="ignore"):
            value = float(np.float32(value)) if column.dtype == "float32" else float(value)
        if not isfinite(value):
            raise BadInput(f"{place}.{column.name} is larger than a {column.dtype} can be")
    elif column.dtype == "int64" and abs(value) > MOST_WHOLE:
        raise BadInput(f"{place}.{column.name} is past 2**53: as a number of a model it would lose digits")
    return value


def _is_int(value: object, bits: int) -> bool:
    return type(value) is int and -(1 << (bits - 1)) <= value < 1 << (bits - 1)


def _is_float(value: object) -> bool:
    # A whole number is a fine float64 as long as none of its digits is lost.
    return type(value) is float or (type(value) is int and int(float(value)) == value)


_CHECKS: Mapping[DataType, Callable[[object], bool]] = {
    "bool": lambda value: type(value) is bool,
    "int32": lambda value: _is_int(value, 32),
    "int64": lambda value: _is_int(value, 64),
    "float32": _is_float,
    "float64": _is_float,
    "string": lambda value: type(value) is str and len(value) <= MAX_TEXT_LENGTH,
}
_NAMES: Mapping[DataType, str] = {
    "bool": "true or false",
    "int32": "a whole number of 32 bits",
    "int64": "a whole number of 64 bits",
    "float32": "a number",
    "float64": "a number",
    "string": f"text of at most {MAX_TEXT_LENGTH} characters",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: Mapping[type[Any], str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
