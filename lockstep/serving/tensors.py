"""The Open Inference Protocol ("V2") in JSON: named tensors, of which the first dimension is the row.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
The binary extension is not spoken.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.errors import BadInput, nearest
from lockstep.views.declare import DataType

DATATYPES: Mapping[DataType, str] = {
    "bool": "BOOL",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
_REQUEST_FIELDS = {"id", "parameters", "inputs", "outputs"}
_INPUT_FIELDS = {"name", "datatype", "shape", "parameters", "data"}


def input_tensors(document: object) -> dict[str, Mapping[str, Any]]:
    """Return the input tensors of a request by name, their fields checked but for the data.

    Raises:
        BadInput: the document is no such request.
    """
    request = _object(document, "the body", _REQUEST_FIELDS)
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadInput('"inputs" must be a list with at least one tensor')
    tensors: dict[str, Mapping[str, Any]] = {}
    for number, given in enumerate(inputs):
        place = f"inputs[{number}]"
        tensor = _object(given, place, _INPUT_FIELDS)
        for field, kind in (("name", str), ("datatype", str), ("shape", list), ("data", list)):
            if not isinstance(tensor.get(field), kind):
                raise BadInput(f'{place} has no "{field}" that is {_KINDS[kind]}')
        if not all(type(size) is int and size >= 0 for size in tensor["shape"]):
            raise BadInput(f"{place}.shape is no list of whole numbers")
        if tensor["name"] in tensors:
            raise BadInput(f"{place} is a second tensor named {tensor['name']!r}")
        tensors[tensor["name"]] = tensor
    return tensors


def column(tensor: Mapping[str, Any], datatype: str) -> list[Any]:
    """Return the data of a tensor of one value a row: of the shape [rows] or [rows, 1].

    Raises:
        BadInput: it has another type or shape, or not as much data as its shape says.
    """
    rows = matrix(tensor, datatype, 1)
    return [row[0] for row in rows]


def matrix(tensor: Mapping[str, Any], datatype: str, width: int) -> list[list[Any]]:
    """Return the rows of a tensor of the shape [rows, width]; its data are flat or nested. For a width of 1 [rows] will do.

    Raises:
        BadInput: it has another type or shape, or not as much data as its shape says.
    """
    name, shape, data = tensor["name"], tensor["shape"], tensor["data"]
    if tensor["datatype"] != datatype:
        raise BadInput(f"{name} has the datatype {tensor['datatype']!r}, not {datatype}")
    flat, of_rows = width == 1 and len(shape) == 1, len(shape) == 2 and shape[1] == width
    if not (flat or of_rows):
        wanted = "[rows] or [rows, 1]" if width == 1 else f"[rows, {width}]"
        raise BadInput(f"{name} has the shape {shape}, not {wanted}")
    if of_rows and data and all(isinstance(row, list) for row in data):
        if len(data) != shape[0] or any(len(row) != width for row in data):
            raise BadInput(f"{name} does not hold what its shape {shape} says")
        return data
    if len(data) != math.prod(shape):
        raise BadInput(f"{name} holds {len(data)} values, its shape {shape} says {math.prod(shape)}")
    return [data[start : start + width] for start in range(0, len(data), width)]


def instances(document: object, fields: Mapping[str, str]) -> tuple[list[dict[str, Any]], object]:
    """Return a request of one tensor a field as rows, and its id, whatever that is; None if it has none.

    Args:
        document: the parsed body.
        fields: the datatype of each field that a row has.

    Raises:
        BadInput: a tensor is missing, unknown, or does not fit the others.
    """
    tensors = input_tensors(document)
    for name in sorted(tensors.keys() - fields.keys()):
        raise BadInput(f"there is no input {name!r}", hint=nearest(name, fields))
    if missing := sorted(fields.keys() - tensors.keys()):
        raise BadInput(f"the inputs lack {', '.join(missing)}")
    columns = {name: column(tensors[name], datatype) for name, datatype in fields.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
        raise BadInput(f"the tensors have different numbers of rows: {told}")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows, request_id(document)


def request_id(document: object) -> object:
    """Return the id of a request, None if it has none."""
    return document.get("id") if isinstance(document, dict) else None


def output(name: str, datatype: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return an output tensor of one value a row."""
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}


def _object(value: object, place: str, fields: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{place} is no object")
    for name in value:
        if name not in fields:
            raise BadInput(f"{place} has the unknown field {name!r}", hint=nearest(name, fields))
    return value


_KINDS: Mapping[type[Any], str] = {str: "text", list: "a list"}
