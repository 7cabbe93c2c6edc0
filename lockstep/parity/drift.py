"""Which views are no longer what a contract describes: their definition, their table's columns, their on-demand function."""

from collections.abc import Mapping

import pyarrow as pa

from lockstep.contract import FeatureContract, View
from lockstep.errors import BadInput, SchemaDrift, UseCaseError
from lockstep.lake import Lake
from lockstep.lake.catalog import plain_type
from lockstep.serving.features import Function, load_functions
from lockstep.views import UseCase
from lockstep.views.declare import ARROW_TYPES, DataType


def drifted_views(use_case: UseCase, lake: Lake, contract: FeatureContract) -> dict[str, str]:
    """Return the stored views that have drifted, each with what is different.

    Training under another definition would agree with serving under it, on something the model never saw.
    """
    found = {view.name: _drift(use_case, lake, view) for view in contract.views}
    return {name: drift for name, drift in found.items() if drift}


def functions_of(contract: FeatureContract, use_case: str) -> tuple[Mapping[str, Function], dict[str, str]]:
    """Return the contract's on-demand functions as far as they are what it names, and of the others what is different."""
    functions: dict[str, Function] = {}
    drifted: dict[str, str] = {}
    for view in contract.on_demand:
        try:
            functions |= load_functions(contract.model_copy(update={"on_demand": (view,)}), use_case)
        except (SchemaDrift, UseCaseError) as another:
            drifted[view.name] = str(another.args[0])
    return functions, drifted


def _drift(use_case: UseCase, lake: Lake, view: View) -> str:
    try:
        here = use_case.view(view.name).definition_hash
    except BadInput:
        return f"the use case declares no view {view.name}"
    if here != view.definition_hash:
        return f"view {view.name} has the definition {here[:12]} now, the contract names {view.definition_hash[:12]}"
    if not lake.exists(view.table):
        return f"the lake has no table {view.table}"
    schema = lake.schema(view.table)
    wrong = [
        told for column in (*view.join_keys, *view.columns) if (told := _column(schema, column.name, column.dtype))
    ]
    return f"table {view.table}: {', '.join(wrong)}" if wrong else ""


def _column(schema: pa.Schema, name: str, dtype: DataType) -> str:
    if name not in schema.names:
        return f"it has no column {name}"
    found, declared = plain_type(schema.field(name).type), plain_type(ARROW_TYPES[dtype])
    return "" if found == declared else f"{name} is {found}, the contract says {declared}"
