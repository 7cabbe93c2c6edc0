"""What one retrieval reads: its entity rows, and each view's table at one snapshot."""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import feast
import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.offline.cut import Cut, current_cut
from lockstep.offline.semantics import ViewRead
from lockstep.settings import Settings
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.feast import VISIBLE_LAG_TAG


class Reader:
    """What one retrieval reads from: a lake at the snapshots of the surrounding cut, or at the newest ones as of now."""

    def __init__(self, settings: Settings, project: str) -> None:
        self.settings = settings
        self.project = project
        self.lake = Lake.open(self.settings, project)
        self.cut: Cut | None = current_cut()
        self.snapshots: dict[str, int | None] = {}

    def snapshot(self, table: str) -> int | None:
        """Return the snapshot of a table that this retrieval reads, the same one each time."""
        if table not in self.snapshots:
            newest = None if self.cut else self.lake.current(table)
            self.snapshots[table] = self.cut.snapshot(table) if self.cut else newest and newest.id
        return self.snapshots[table]

    def read(self, view: feast.FeatureView, feature_refs: Sequence[str], *, full_feature_names: bool) -> ViewRead:
        """Return what to read of a view for the features that are asked of it."""
        source = lake_source(view.batch_source)
        if source.namespace != self.project:
            raise NotYetSupported(f"{view.name} lies in the project {source.namespace!r}, not in {self.project!r}")
        name = view.projection.name_to_use()
        wanted = [feature for owner, _, feature in (ref.partition(":") for ref in feature_refs) if owner == name]
        keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        return ViewRead(
            table=source.iceberg_table,
            join_keys={key: view.projection.join_key_map.get(key, key) for key in keys},
            columns={feature: f"{name}__{feature}" if full_feature_names else feature for feature in wanted},
            ttl_us=view.ttl // MICROSECOND if view.ttl else 0,
            visible_lag_us=int(view.tags.get(VISIBLE_LAG_TAG, "0")),
            snapshot_id=self.snapshot(source.iceberg_table),
        )

    def spine(self, entity_df: pd.DataFrame | pa.Table | str | None) -> pa.Table:
        """Return the entity rows as Arrow."""
        if entity_df is None:
            raise NotYetSupported("retrieval needs entity rows", hint="pass entity_df instead of a range of time")
        if isinstance(entity_df, str):
            return self._query(entity_df)
        if isinstance(entity_df, pa.Table):
            return entity_df
        try:
            return pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
        except pa.ArrowException as mixed:
            raise BadInput(f"the spine is no table of plain columns: {mixed}") from mixed

    def require_within_cut(self, last: datetime | None) -> None:
        """Refuse entity rows later than the cut."""
        known_at = self.cut.known_at if self.cut else None
        if known_at and last and last > known_at:
            raise BadInput(
                f"the spine asks for {last.isoformat()}, the cut knows nothing after {known_at.isoformat()}",
                hint="leave later rows out",
            )

    def _query(self, sql: str) -> pa.Table:
        with connect(self.settings) as connection:
            try:
                tables = connection.get_table_names(sql)
                for table in sorted(tables):
                    columns = self.lake.table(table).schema().column_names
                    self.lake.register(connection, table, table, columns=columns, snapshot_id=self.snapshot(table))
                return connection.sql(sql).to_arrow_table()
            except duckdb.Error as wrong:
                raise BadInput(f"the spine's SQL does not run: {wrong}") from wrong


def time_column_of(spine: pa.Table) -> str:
    """Return `event_timestamp`, or else the only column of times."""
    times = [field.name for field in spine.schema if pa.types.is_timestamp(field.type)]
    return times[0] if EVENT_TIMESTAMP not in spine.column_names and len(times) == 1 else EVENT_TIMESTAMP


def lake_source(source: DataSource | None) -> IcebergSource:
    """Return a view's source, which names a table of the lake.

    Raises:
        NotYetSupported: it is of another kind, or renames columns.
    """
    if not isinstance(source, IcebergSource) or source.field_mapping:
        raise NotYetSupported(
            f"{source and source.name} is no plain table of the lake", hint="derive views with lockstep.views.feast"
        )
    return source
