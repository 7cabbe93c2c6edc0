"""What one retrieval reads: its entity rows, and each view's table at one snapshot."""

from collections.abc import Sequence
from datetime import datetime

import feast
import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, nearest
from lockstep.lake import Lake
from lockstep.lake.snapshots import NO_SNAPSHOT
from lockstep.offline.cut import Cut, current_cut
from lockstep.offline.engine import Engine
from lockstep.offline.semantics import ViewRead, plain
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from lockstep.views.feast import EVERY_TAG, VISIBLE_LAG_TAG, arrow_type


class Reader:
    """What one retrieval reads from: a lake at the snapshots of the surrounding cut, or at the newest ones as of now."""

    def __init__(self, lake: Lake, engine: Engine, project: str) -> None:
        self.lake = lake
        self.engine = engine
        self._project = project
        self._cut: Cut | None = current_cut()
        self._snapshots: dict[str, int] = {}

    @property
    def used(self) -> Cut:
        """The cut that names the tables read so far: reading at it gives the same rows again."""
        return Cut(
            dict(self._snapshots), self._cut and self._cut.known_at, corrected=bool(self._cut and self._cut.corrected)
        )

    def snapshot(self, table: str) -> int:
        """Return the snapshot of a table that this retrieval reads, the same one each time; `NO_SNAPSHOT` before its first.

        Raises:
            BadInput: the cut names none, or it has expired.
        """
        if table not in self._snapshots:
            if self._cut:
                named = self._cut.snapshot(table)
                self._snapshots[table] = named if named == NO_SNAPSHOT else self.lake.snapshot(table, named).id
            else:
                newest = self.lake.current(table)
                self._snapshots[table] = newest.id if newest else NO_SNAPSHOT
        return self._snapshots[table]

    def read(self, view: feast.FeatureView, feature_refs: Sequence[str], *, full_feature_names: bool) -> ViewRead:
        """Return what to read of a view for the features that are asked of it.

        Raises:
            BadInput: the view has no such feature, or its snapshot has expired.
            SchemaDrift: its table has no such column, or has it in another type.
            NotYetSupported: it does not lie in this project's part of the lake.
        """
        source = _view_source(view)
        if source.namespace != self._project:
            raise NotYetSupported(f"{view.name} lies in the project {source.namespace!r}, not in {self._project!r}")
        name = view.projection.name_to_use()
        wanted = [feature for owner, _, feature in (ref.partition(":") for ref in feature_refs) if owner == name]
        keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        self._check_types(view, source.iceberg_table, wanted)
        return ViewRead(
            table=source.iceberg_table,
            join_keys={key: view.projection.join_key_map.get(key, key) for key in keys},
            columns={feature: f"{name}__{feature}" if full_feature_names else feature for feature in wanted},
            ttl_us=view.ttl // MICROSECOND if view.ttl else 0,
            visible_lag_us=int(view.tags.get(VISIBLE_LAG_TAG, "0")),
            every_us=int(view.tags.get(EVERY_TAG, "1")),
            snapshot_id=self.snapshot(source.iceberg_table),
        )

    def spine(self, entity_df: pd.DataFrame | pa.Table | str | None) -> pa.Table:
        """Return the entity rows as Arrow."""
        if entity_df is None:
            raise NotYetSupported("retrieval needs entity rows", hint="pass entity_df instead of a range of time")
        if isinstance(entity_df, str):
            return self.engine.query(entity_df, self.snapshot)
        if isinstance(entity_df, pa.Table):
            return entity_df
        if not isinstance(entity_df, pd.DataFrame):
            raise BadInput(
                f"entity rows are given as {type(entity_df).__name__}",
                hint="give SQL, an Arrow table or a pandas frame",
            )
        try:
            return pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowException, ValueError) as mixed:
            raise BadInput(f"the spine is no table of plain columns: {mixed}") from mixed

    def require_within_cut(self, last: datetime | None) -> None:
        """Refuse entity rows later than the cut."""
        known_at = self._cut.known_at if self._cut else None
        if known_at and last and last > known_at:
            raise BadInput(
                f"the spine asks for {last.isoformat()}, the cut knows nothing after {known_at.isoformat()}",
                hint="leave later rows out",
            )

    def _check_types(self, view: feast.FeatureView, table: str, wanted: Sequence[str]) -> None:
        """Refuse features that the view does not have, or whose column is of another type."""
        declared = {field.name: field.dtype for field in view.features}
        schema = self.lake.schema(table, self.snapshot(table))
        for feature in wanted:
            if feature not in declared:
                raise BadInput(f"{view.name} has no feature {feature!r}", hint=nearest(feature, declared))
            if feature not in schema.names:
                raise SchemaDrift(f"the table {table} has no column {feature!r}", hint=nearest(feature, schema.names))
            expected, held = arrow_type(declared[feature]), plain(schema.field(feature).type)
            if expected is not None and held != expected:
                raise SchemaDrift(
                    f"the table {table} has {feature} as {held}, the view {view.name} declares {expected}",
                    hint="apply the definitions that the table was written by, or write the table anew",
                )


def time_column_of(spine: pa.Table) -> str:
    """Return `event_timestamp`, or else the only column of times."""
    times = [field.name for field in spine.schema if pa.types.is_timestamp(field.type)]
    return times[0] if EVENT_TIMESTAMP not in spine.column_names and len(times) == 1 else EVENT_TIMESTAMP


def lake_source(source: DataSource | None) -> IcebergSource:
    """Return a source that names a table of the lake.

    Raises:
        NotYetSupported: it is of another kind, or renames columns.
    """
    if not isinstance(source, IcebergSource) or source.field_mapping:
        raise NotYetSupported(
            f"{source and source.name} is no plain table of the lake", hint="derive views with lockstep.views.feast"
        )
    return source


def _view_source(view: feast.FeatureView) -> IcebergSource:
    source = lake_source(view.batch_source)
    named = (source.timestamp_field, source.created_timestamp_column)
    if named != (EVENT_TIMESTAMP, CREATED_TIMESTAMP):
        raise NotYetSupported(
            f"{view.name} has its times in {' and '.join(name or 'no column' for name in named)}",
            hint=f"a feature table has them in {EVENT_TIMESTAMP} and {CREATED_TIMESTAMP}",
        )
    return source
