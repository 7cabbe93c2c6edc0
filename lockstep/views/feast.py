"""Feast's objects, derived from what a use case declares; nowhere else are any made.

They hold logical names only: tables are named by project and table, and where the lake is stays in settings, so that a
registry never holds a path or a secret. https://docs.feast.dev/getting-started/concepts
"""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Before Feast, which makes it keep values in files: see _forget_metrics_folder.
import prometheus_client  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import feast
import feast.types
import numpy as np
import pandas as pd
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID
from feast.feature_view_projection import FeatureViewProjection
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource
from feast.transformation.pandas_transformation import PandasTransformation
from feast.transformation.udf_rehydrate import rehydrate_udf_from_source
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput, UseCaseError
from lockstep.views.declare import (
    ARROW_TYPES,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    DataType,
    Entity,
    FeatureService,
    OnDemandView,
    StoredView,
)
from lockstep.views.use_case import UseCase

WAREHOUSE = "lake"
COMPUTE_LAG_TAG = "lockstep.compute_lag_us"
VISIBLE_LAG_TAG = "lockstep.visible_lag_us"
EVERY_TAG = "lockstep.every_us"
FRESHNESS_TAG = "lockstep.freshness_us"
FRESHNESS_KIND_TAG = "lockstep.freshness_kind"
DEFINITION_TAG = "lockstep.definition_hash"
FUNCTION_TAG = "lockstep.function"
SOURCE_TAG = "lockstep.source_hash"

FEAST_TYPES: Mapping[DataType, feast.types.FeastType] = {
    "bool": feast.types.Bool,
    "int32": feast.types.Int32,
    "int64": feast.types.Int64,
    "float32": feast.types.Float32,
    "float64": feast.types.Float64,
    "string": feast.types.String,
    "bytes": feast.types.Bytes,
    "timestamp": feast.types.UnixTimestamp,
}
# What an on-demand function is given for a request's input of each type.
_INPUT_TYPES: Mapping[str, str] = {
    "bool": "bool",
    "int32": "int64",
    "int64": "int64",
    "float32": "float64",
    "float64": "float64",
    "string": "object",
    "bytes": "object",
    "timestamp": "datetime64[us]",
}
_OUTPUT_TYPES: Mapping[str, str] = {
    **{name: name for name in ("bool", "int32", "int64", "float32", "float64")},
    "string": "object",
    "bytes": "object",
    "timestamp": "datetime64[us]",
}


def _forget_metrics_folder() -> None:
    """Undo what `import feast` leaves in the environment for child processes to trip over.

    feast/metrics.py (0.67) points prometheus_client at a temporary folder of this very process: every child that uses
    prometheus_client (a model server, say) would write its metrics there, and fail once this process has removed it. So would
    our own metrics without the folder; but where values are kept is decided when prometheus_client is imported, before.
    """
    for name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
        if Path(os.environ.get(name, "")).name.startswith("feast_metrics_"):
            del os.environ[name]


_forget_metrics_folder()


def arrow_type(dtype: feast.types.FeastType) -> pa.DataType | None:
    """Return what a feature of a type is in the lake: None where Feast's type does not say it, as for decimals and maps."""
    if isinstance(dtype, feast.types.Array):
        inner = arrow_type(dtype.base_type)
        return None if inner is None else pa.list_(inner)
    return next((ARROW_TYPES[name] for name, known in FEAST_TYPES.items() if known == dtype), None)


def objects(use_case: UseCase) -> list[Any]:
    """Return every Feast object of a use case: entities, feature views, on-demand views and services, in this order."""
    return [
        *(entity(e) for e in use_case.entities),
        *(feature_view(v, use_case.project) for v in use_case.views),
        *(on_demand_feature_view(v, use_case.project) for v in use_case.on_demand),
        *(feature_service(s, use_case.project) for s in use_case.services),
    ]


def entity(declared: Entity) -> feast.Entity:
    """Return an entity as Feast knows it."""
    return feast.Entity(
        name=declared.name,
        join_keys=[declared.join_key],
        value_type=FEAST_TYPES[declared.dtype].to_value_type(),
        description=declared.description,
        owner=declared.owner,
    )


def feature_view(view: StoredView, project: str) -> feast.FeatureView:
    """Return a windowed view as Feast knows it: its table in the lake, its types, ttl, lags and freshness."""
    source = IcebergSource(
        warehouse=WAREHOUSE,
        namespace=project,
        table=view.table,
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        description=f"the lake's table {view.table}",
        owner=view.owner,
    )
    tags = {
        COMPUTE_LAG_TAG: str(view.compute_lag // MICROSECOND),
        VISIBLE_LAG_TAG: str(view.visible_lag // MICROSECOND),
        EVERY_TAG: str(view.every // MICROSECOND),
        FRESHNESS_TAG: str(view.freshness.objective // MICROSECOND),
        FRESHNESS_KIND_TAG: "hard" if view.freshness.hard else "soft",
        DEFINITION_TAG: view.definition_hash,
    }
    return feast.FeatureView(
        name=view.name,
        source=source,
        entities=[entity(view.entity)],
        schema=_fields({view.entity.join_key: view.entity.dtype, **view.features}),
        ttl=view.ttl,
        description=view.description,
        owner=view.owner,
        tags={**view.tags, **tags},
    )


def on_demand_feature_view(view: OnDemandView, project: str) -> feast.OnDemandFeatureView:
    """Return an on-demand view as Feast knows it.

    Its transformation names the function and imports it when it is first called, so that the registry carries no copy of the
    code: readers that only list definitions need neither Lockstep nor the use case.

    Raises:
        UseCaseError: two inputs of the function have one name.
    """
    names = [*view.inputs, *(feature for _, feature in view.reads)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UseCaseError(
            f"on-demand view {view.name} gives its function two inputs named {', '.join(twice)}",
            hint="an input is named by its column alone, whichever view it comes from",
        )
    tags = {FUNCTION_TAG: view.reference, SOURCE_TAG: view.source_hash}
    derived = feast.OnDemandFeatureView(
        name=view.name,
        sources=_sources(view, project),
        schema=_fields(view.outputs),
        feature_transformation=_transformation(view),
        mode="pandas",
        description=view.description,
        owner=view.owner,
        tags={**view.tags, **tags},
    )
    # What `apply` would infer: with it, a view that was applied equals the one that is derived again.
    derived.entity_columns = [feast.Field(name=DUMMY_ENTITY_ID, dtype=feast.types.String)]
    return derived


def feature_service(service: FeatureService, project: str) -> feast.FeatureService:
    """Return a feature service as Feast knows it; Feast keeps the features by view, the declared order stays in the contract."""
    wanted: dict[str, tuple[StoredView | OnDemandView, list[str]]] = {}
    for view, feature in service.features:
        wanted.setdefault(view.name, (view, []))[1].append(feature)
    return feast.FeatureService(
        name=service.name,
        features=[_some(_derived(view, project), features) for view, features in wanted.values()],
        description=service.description,
        owner=service.owner,
    )


def evaluate(
    frame: pd.DataFrame,
    reference: str,
    *,
    inputs: Mapping[str, str],
    reads: Mapping[str, str],
    outputs: Mapping[str, str],
) -> pd.DataFrame:
    """Call an on-demand function the way Feast's pandas mode asks for.

    Args:
        frame: Feast's input; it has each stored feature under its full name too, which no other view's feature shares.
        reference: `module:function`.
        inputs: the request's inputs and their types.
        reads: the function's names of the stored features, each with its full name `view__feature`.
        outputs: what the function gives, and its types.

    Raises:
        BadInput: an integer of the request is null, or is none.
        UseCaseError: the function does not give what its view declares.
    """
    module, _, name = reference.partition(":")
    function: Callable[[Mapping[str, Any]], Mapping[str, Any]] = getattr(importlib.import_module(module), name)
    arrays = {key: _request_input(frame[key], dtype) for key, dtype in inputs.items()}
    arrays |= {key: pd.to_numeric(frame[full]).to_numpy(np.float64, na_value=np.nan) for key, full in reads.items()}
    made = function(arrays)
    return pd.DataFrame({key: _output(made, key, dtype, len(frame), reference) for key, dtype in outputs.items()})


def _request_input(values: pd.Series, dtype: str) -> NDArray[Any]:
    # An integer with a null has become a float on its way here and may have lost its last digits.
    if dtype in {"int32", "int64"} and len(values) and not pd.api.types.is_integer_dtype(values.dtype):
        raise BadInput(
            f"the request's {values.name} holds {values.dtype}, not whole numbers",
            hint="give every row an integer; null is none",
        )
    return values.to_numpy(_INPUT_TYPES[dtype])


def _output(made: Mapping[str, Any], name: str, dtype: str, rows: int, reference: str) -> NDArray[Any]:
    if name not in made:
        raise UseCaseError(f"{reference} gives no {name!r}", hint=f"it gives {', '.join(sorted(made)) or 'nothing'}")
    values = np.asarray(made[name])
    if values.shape != (rows,):
        raise UseCaseError(f"{reference} gives {name} with the shape {values.shape} for {rows} rows")
    target = np.dtype(_OUTPUT_TYPES[dtype])
    if not np.can_cast(values.dtype, target, "same_kind" if target.kind in "fM" else "safe"):
        raise UseCaseError(f"{reference} gives {name} as {values.dtype}, not the declared {dtype}")
    return values.astype(target)


def _transformation(view: OnDemandView) -> PandasTransformation:
    arguments = {
        "inputs": dict(view.inputs),
        "reads": {feature: f"{source.name}__{feature}" for source, feature in view.reads},
        "outputs": dict(view.outputs),
    }
    source = (
        f"def {view.name}(frame):\n"
        "    from lockstep.views.feast import evaluate\n"
        f"    return evaluate(frame, {view.reference!r}, **{arguments!r})\n"
    )
    # Feast makes a function of this text in every process that reads the registry; here it is made in the same way.
    function = rehydrate_udf_from_source(source, preferred_name=view.name)
    if function is None:
        raise UseCaseError(f"{view.name!r} is no name for an on-demand view", hint="letters, digits and underscores")
    return PandasTransformation(udf=function, udf_string=source)


def _sources(
    view: OnDemandView, project: str
) -> list[feast.FeatureView | feast.RequestSource | FeatureViewProjection]:
    read: dict[str, tuple[StoredView, list[str]]] = {}
    for source, feature in view.reads:
        read.setdefault(source.name, (source, []))[1].append(feature)
    stored = [_some(feature_view(source, project), features) for source, features in read.values()]
    request = feast.RequestSource(name=f"{view.name}_request", schema=_fields(view.inputs), owner=view.owner)
    return [*stored, request] if view.inputs else [*stored]


def _derived(view: StoredView | OnDemandView, project: str) -> feast.FeatureView | feast.OnDemandFeatureView:
    if isinstance(view, StoredView):
        return feature_view(view, project)
    return on_demand_feature_view(view, project)


def _some(view: Any, features: list[str]) -> Any:
    """Return a copy of a Feast view that gives these features only; Feast's type for its own `view[...]` says None."""
    return view[features]


def _fields(types: Mapping[str, DataType]) -> list[feast.Field]:
    return [feast.Field(name=name, dtype=FEAST_TYPES[dtype]) for name, dtype in types.items()]
