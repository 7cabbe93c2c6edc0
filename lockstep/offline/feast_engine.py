"""`feast materialize` with our writer: a Feast batch engine that any Feast project can name in its feature_store.yaml.

    batch_engine:
      type: lockstep.offline.feast_engine.LockstepEngine

Rows come from the project's own offline store, the newest a key of the range asked for, and go to its own Redis, in Feast's own
bytes. What is different from Feast's local engine: a row is set in one atomic step, only if nothing newer is stored, so that runs
in any order and at once end at the newest row, and a correction (a newer created time) lands.

It knows no ledger and no epoch hash: of a view that Lockstep materializes too it writes the same rows to the same places.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from feast import Entity, FeatureView
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.types import Array, FeastType, Set
from feast.utils import _get_column_names  # pyright: ignore[reportPrivateUsage]

from lockstep.contract import Column, View
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift
from lockstep.online.store import answering
from lockstep.online.stored_types import STORED_TYPES, stored_type
from lockstep.online.writer import check_store, write_rows
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, DataType

_TIME = STORED_TYPES["timestamp"]
_KEY_VERSION = 3


class LockstepEngineConfig(FeastConfigBaseModel):
    """The engine has no options."""

    type: str = "lockstep.offline.feast_engine.LockstepEngine"


class LockstepEngine(ComputeEngine):
    """Materializes feature views to Redis.

    Raises:
        BadInput: the configuration has options, or the online store is no Redis.
    """

    def __init__(self, **given: Any) -> None:
        options = sorted(set(given) - {"type", "repo_config", "offline_store", "online_store"})
        if options:
            raise BadInput(f"batch_engine has the options {', '.join(options)}", hint="this engine takes none")
        super().__init__(**given)

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Prepare nothing: there is nothing to prepare."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Tear nothing down."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **_: Any) -> LocalMaterializationJob:
        """Bring one view online; Feast raises what the job holds, and moves its watermark only without one."""
        name = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            self._bring_online(registry, task)
        except Exception as failure:  # noqa: BLE001 - this is how an engine tells Feast
            return LocalMaterializationJob(name, MaterializationJobStatus.ERROR, error=failure)
        return LocalMaterializationJob(name, MaterializationJobStatus.SUCCEEDED)

    def _bring_online(self, registry: BaseRegistry, task: MaterializationTask) -> None:
        feature_view = task.feature_view
        _refuse_what_is_ignored(task)
        if not feature_view.online:
            return
        client = self._client()
        entities = [registry.get_entity(name, task.project) for name in feature_view.entities]
        view = self._view(feature_view)
        rows = _rows(view, feature_view, self._pulled(feature_view, entities, task))
        with task.tqdm_builder(rows.num_rows) if task.tqdm_builder else nullcontext() as bar:

            def progress(done: int) -> None:
                if bar is not None:
                    bar.update(done)

            write_rows(client, task.project, view, rows, progress=progress)

    def _client(self) -> Any:
        """Return Feast's own client of its own online store."""
        config, store = self.repo_config.online_store, self.online_store
        if not isinstance(config, RedisOnlineStoreConfig) or not isinstance(store, RedisOnlineStore):
            raise BadInput(
                f"the online store is {type(config).__name__}, not Redis", hint="online_store: {type: redis}"
            )
        if config.skip_dedup:
            raise NotYetSupported(
                "skip_dedup lets older rows overwrite newer ones, which this engine does not do", hint="leave it out"
            )
        if config.key_ttl_seconds is not None:
            raise NotYetSupported(
                "key_ttl_seconds would expire all of an entity's views with the first of them",
                hint="leave it out; a view's own ttl is judged when it is read",
            )
        if self.repo_config.entity_key_serialization_version != _KEY_VERSION:
            raise BadInput(
                f"entity_key_serialization_version is {self.repo_config.entity_key_serialization_version}",
                hint=f"the rows are stored under version {_KEY_VERSION}: set it, and materialize everything anew",
            )
        with answering():  # of a cluster Feast's client asks for its slots at once
            client = cast("Any", store)._get_client(config)
        check_store(client)
        return client

    def _view(self, feature_view: FeatureView) -> View:
        registry: Any = self.repo_config.registry  # a path to some of Feast's types, a config at run time
        versioned = registry.enable_online_feature_view_versioning
        keys = [(column.name, column.dtype) for column in feature_view.entity_columns]
        if not keys:
            raise SchemaDrift(f"the registry does not say what type the join keys of {feature_view.name} have")
        return View(
            name=compute_versioned_name(feature_view, versioned),
            table=feature_view.name,
            join_keys=tuple(Column(name=name, dtype=_dtype(name, kind)) for name, kind in sorted(keys, key=str)),
            columns=tuple(Column(name=f.name, dtype=_dtype(f.name, f.dtype)) for f in feature_view.features),
            ttl_us=0,
            every_us=1,
            compute_lag_us=0,
            visible_lag_us=0,
            freshness_us=1,
            freshness_hard=False,
            owner=feature_view.owner,
            definition_hash="",
        )

    def _pulled(self, feature_view: FeatureView, entities: list[Entity], task: MaterializationTask) -> pa.Table:
        """Return the newest row of each key of the range, its columns named as in the view."""
        source: Any = feature_view.batch_source
        keys, features, event, created = _get_column_names(feature_view, entities)
        table = self.offline_store.pull_latest_from_table_or_query(
            self.repo_config, source, keys, features, event, created, task.start_time, task.end_time
        ).to_arrow()
        renamed = dict(source.field_mapping or {})
        named = {renamed.get(name, name): table[name] for name in (*keys, *features) if name in table.column_names}
        if taken := sorted({EVENT_TIMESTAMP, CREATED_TIMESTAMP} & set(named)):
            raise NotYetSupported(f"{feature_view.name} has a column {taken[0]} besides its times", hint="rename it")
        named[EVENT_TIMESTAMP] = table[event]
        if created:
            named[CREATED_TIMESTAMP] = table[created]
        return pa.table(named)


def _refuse_what_is_ignored(task: MaterializationTask) -> None:
    """Refuse what Feast's other engines would do and this one would leave out."""
    view = task.feature_view
    asked = {
        "a transformation": getattr(view, "feature_transformation", None),
        "aggregations": getattr(view, "aggregations", None),
        "a filter": getattr(view, "filter", None),
        "offline=True": getattr(view, "offline", False),
        "disable_event_timestamp": task.disable_event_timestamp,
        "source views": getattr(view, "source_views", None),
        "enable_validation": getattr(view, "enable_validation", False),
    }
    found = [what for what, value in asked.items() if value]
    if found:
        raise NotYetSupported(
            f"{view.name} has {' and '.join(found)}, which this engine does not apply",
            hint="materialize it with another batch engine, or have its source hold what is to be served",
        )


def _dtype(name: str, kind: FeastType) -> DataType:
    inner = kind.base_type.to_value_type().name if isinstance(kind, (Array, Set)) else ""
    try:
        return stored_type(kind.to_value_type().name, inner)
    except NotYetSupported as refused:
        raise NotYetSupported(f"{name}: {refused}") from None


def _rows(view: View, feature_view: FeatureView, table: pa.Table) -> pa.Table:
    """Return the rows as the writer takes them; where there is no created time, it is 1970: any that is known is newer."""
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for column in (*view.join_keys, *view.columns):
        if column.name == DUMMY_ENTITY_ID and DUMMY_ENTITY_ID not in table.column_names:
            columns[column.name] = pa.repeat(pa.scalar(DUMMY_ENTITY_VAL), table.num_rows)
            continue
        if column.name not in table.column_names:
            raise SchemaDrift(f"the source of {feature_view.name} has no column {column.name}")
        found, wanted = table[column.name], STORED_TYPES[column.dtype]
        try:
            columns[column.name] = _utc(found) if wanted == _TIME else found.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as unfit:
            raise SchemaDrift(
                f"{feature_view.name}: {column.name} is {found.type} in its source, {column.dtype} in the registry: {unfit}"
            ) from unfit
    columns[EVENT_TIMESTAMP] = _utc(table[EVENT_TIMESTAMP])
    if CREATED_TIMESTAMP in table.column_names:
        columns[CREATED_TIMESTAMP] = _utc(table[CREATED_TIMESTAMP])
    else:
        columns[CREATED_TIMESTAMP] = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows).cast(_TIME)
    return pa.table(columns)


def _utc(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times in whole microseconds; those without a zone are UTC, as for Feast."""
    if pa.types.is_timestamp(times.type) and times.type.tz is None:
        times = pc.assume_timezone(times, "UTC")  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    return times.cast(_TIME, safe=False)
