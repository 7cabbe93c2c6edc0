"""The one function that makes model vectors of retrieved rows and request inputs; the transformer and parity both call it.

Whatever decides a value between the store and the model is here, so that serving and checking cannot differ in it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.contract import Column, FeatureContract, OnDemand
from lockstep.errors import NotYetSupported, SchemaDrift, Terminal, UseCaseError
from lockstep.hashing import source_hash
from lockstep.views.declare import DataType

Values = Sequence[Any] | NDArray[Any]
"""One value a row."""
Function = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]

# A request input of this name is not sent: it is the request time, in whole microseconds.
REQUEST_TIME_US = "request_time_us"

NUMERIC: frozenset[DataType] = frozenset({"bool", "int32", "int64", "float32", "float64"})
_INPUT_TYPES: Mapping[DataType, type[Any]] = {
    "bool": np.int64,
    "int32": np.int64,
    "int64": np.int64,
    "float32": np.float64,
    "float64": np.float64,
    "string": np.object_,
}


def load_functions(contract: FeatureContract, use_case: str) -> dict[str, Function]:
    """Import the contract's on-demand functions, by the name of their view.

    Args:
        contract: names each as `module:function` and by the hash of its source.
        use_case: the package they must be in; an artifact does not choose what else is imported.

    Raises:
        SchemaDrift: the source here is not what the model was trained with.
        UseCaseError: a function is outside the use case or does not import.
    """
    return {view.name: _load_function(view, use_case) for view in contract.on_demand}


def _load_function(view: OnDemand, use_case: str) -> Function:
    module_name, _, function_name = view.function.partition(":")
    if module_name != use_case and not module_name.startswith(f"{use_case}."):
        raise UseCaseError(
            f"on-demand view {view.name}: {view.function} is not in the use case {use_case!r}",
            hint="set LOCKSTEP_USE_CASE to the package the model was trained with",
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as missing:
        raise UseCaseError(f"on-demand view {view.name}: {view.function} does not import: {missing}") from missing
    here = source_hash(module_name)
    if here != view.source_hash:
        raise SchemaDrift(
            f"on-demand view {view.name}: the source of {view.function} here has the hash {here}, "
            f"the contract names {view.source_hash}",
            hint="a published function is never edited: give the new version a new name and train with it",
        )
    return function


def complete_inputs(
    contract: FeatureContract, sent: Sequence[Mapping[str, Any]], times_us: Sequence[int]
) -> dict[str, list[Any]]:
    """Turn rows of request inputs, as sent or as the served log keeps them, into columns, the request time among them.

    Args:
        contract: names the inputs.
        sent: one mapping a row.
        times_us: the request time of each row.
    """
    return {
        column.name: list(times_us) if column.name == REQUEST_TIME_US else [row[column.name] for row in sent]
        for column in contract.request_inputs
    }


def on_demand_values(
    contract: FeatureContract,
    functions: Mapping[str, Function],
    usable: Mapping[tuple[str, str], Values],
    inputs: Mapping[str, Values],
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Compute every on-demand feature that is a number.

    Args:
        contract: lists the on-demand views.
        functions: from `load_functions`.
        usable: the stored values by (view, column), None where the row is missing, stale or null.
        inputs: the request's inputs by name.

    Returns:
        By (view, column), one value a row.

    Raises:
        Terminal: a function does not return the declared columns, one value a row.
    """
    given = {column.name: _input(column, inputs[column.name]) for column in contract.request_inputs}
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for view in contract.on_demand:
        taken = {column.name: given[column.name] for column in view.inputs}
        taken |= {column: _stored(usable[source, column]) for source, column in view.reads}
        made = functions[view.name](taken)
        rows = len(next(iter(taken.values()))) if taken else 0
        for column in view.outputs:
            if column.dtype not in NUMERIC:  # no vector holds it
                continue
            values[view.name, column.name] = _output(view, column, made, rows)
    return values


def build_vectors(
    contract: FeatureContract,
    functions: Mapping[str, Function],
    usable: Mapping[tuple[str, str], Values],
    inputs: Mapping[str, Values],
) -> NDArray[np.float64]:
    """Make the vectors: rows by features in the contract's order, NaN for what is null, missing or stale.

    What the model gets instead of a NaN is the policy's to say (`serving/policy.py`).

    The arguments and errors are those of `on_demand_values`.

    Raises:
        NotYetSupported: a feature is not a number.
        Terminal: a feature is infinite, which JSON, and so the way to the predictor, cannot carry.
    """
    made = on_demand_values(contract, functions, usable, inputs)
    columns: list[NDArray[np.float64]] = []
    for feature in contract.features:
        if feature.dtype not in NUMERIC:
            raise NotYetSupported(
                f"feature {feature.view}.{feature.name} is a {feature.dtype}; models take numbers so far"
            )
        key = (feature.view, feature.name)
        columns.append(made[key] if key in made else _stored(usable[key]))
    vectors = np.ascontiguousarray(np.column_stack(columns))
    infinite = sorted({int(column) for column in np.argwhere(np.isinf(vectors))[:, 1]})
    if infinite:
        names = ", ".join(f"{contract.features[i].view}.{contract.features[i].name}" for i in infinite)
        raise Terminal(f"infinite values in {names}", hint="guard the division, or return NaN for what has no value")
    return vectors


def feature_matrix(contract: FeatureContract, rows: pa.Table) -> NDArray[np.float64]:
    """Return retrieved features as rows by features in the contract's order, null as NaN.

    Raises:
        pa.ArrowInvalid: an integer is past 2**53, which float64 cannot hold: it is an error and not a nearby number.
    """
    columns = [rows[f.name].cast(pa.float64()).fill_null(float("nan")).to_numpy() for f in contract.features]
    return np.column_stack(columns) if columns else np.empty((rows.num_rows, 0))


def _stored(values: Values) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None becomes NaN


def _input(column: Column, values: Values) -> NDArray[Any]:
    kind = _INPUT_TYPES.get(column.dtype)
    if kind is None:
        raise NotYetSupported(f"request input {column.name} is a {column.dtype}; known: {', '.join(_INPUT_TYPES)}")
    return np.array(values, dtype=kind)


def _output(view: OnDemand, column: Column, made: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float64]:
    if column.name not in made:
        raise Terminal(f"{view.function} returned no {column.name!r}: it returned {', '.join(sorted(made))}")
    values = np.asarray(made[column.name])
    if values.shape != (rows,):
        raise Terminal(
            f"{view.function}: {column.name} has the shape {values.shape}, not one value for each of {rows} rows"
        )
    if column.dtype == "float32":  # a training set stores it rounded
        values = values.astype(np.float32)
    return values.astype(np.float64)
