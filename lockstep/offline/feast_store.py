"""Feast's offline store over the lake: `get_historical_features` on DuckDB, always as known at the time.

Feast loads it by its dotted name. A definition's source names a project and a table; where the lake is comes from the store's
configuration, and which snapshot is read from `cut`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import feast
import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from lockstep.clock import MICROSECOND, from_micros, require_zone
from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect, quote
from lockstep.offline.duckdb import retrieve
from lockstep.offline.job import LakeRetrievalJob, LakeRetrievalMetadata
from lockstep.offline.reader import Reader, lake_source, time_column_of
from lockstep.offline.semantics import TIME, check_spine, span_us, times_us
from lockstep.settings import Settings


class LockstepDuckDBOfflineStoreConfig(FeastConfigBaseModel):
    """Where the lake is, and how much memory DuckDB may take."""

    type: Literal["lockstep.offline.feast_store.LockstepDuckDBOfflineStore"] = (
        "lockstep.offline.feast_store.LockstepDuckDBOfflineStore"
    )
    home: str
    catalog_uri: str
    warehouse: str
    duckdb_memory_limit: str

    @classmethod
    def of(cls, settings: Settings) -> "LockstepDuckDBOfflineStoreConfig":
        """Take what the store needs from the settings."""
        return cls(
            home=str(settings.home),
            catalog_uri=settings.catalog_uri,
            warehouse=settings.warehouse,
            duckdb_memory_limit=settings.duckdb_memory_limit,
        )

    def settings(self) -> Settings:
        """Return settings of just these values."""
        return Settings(home=Path(self.home), **self.model_dump(exclude={"type", "home"})).resolved()


class LockstepDuckDBOfflineStore(OfflineStore):
    """Reads feature tables of the lake with DuckDB."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[feast.FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Prepare a point-in-time retrieval, refusing what cannot be answered.

        `entity_df` is a pandas frame, an Arrow table, or SQL over the lake's tables, which is run at once. Retrieval always goes
        by what was known at the time, whatever `filter_by_created_timestamp` says.

        Raises:
            BadInput: the entity rows cannot be answered, or ask beyond the cut.
            NotYetSupported: there are no entity rows, or a view does not lie in the lake.
        """
        reader = Reader(_settings(config), project)
        spine = reader.spine(entity_df)
        time_column = time_column_of(spine)
        reads = [reader.read(view, feature_refs, full_feature_names=full_feature_names) for view in feature_views]
        schemas = {read.table: reader.lake.table(read.table).schema().as_arrow() for read in reads}
        check_spine(spine, reads, schemas, time_column)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        outputs = [name for read in reads for name in read.columns.values()]
        _check_on_demand(on_demand, feature_refs, spine, outputs, full_feature_names=full_feature_names)
        span = span_us(times_us(spine, time_column))
        first, last = (from_micros(micros) for micros in span) if span else (None, None)
        reader.require_within_cut(last)
        known_at = reader.cut.known_at if reader.cut and reader.cut.corrected else None

        def run() -> pa.Table:
            with connect(reader.settings) as connection:
                return retrieve(reader.lake, connection, spine, reads, time_column=time_column, known_at=known_at)

        metadata = LakeRetrievalMetadata(
            features=feature_refs,
            keys=[name for name in spine.column_names if name != time_column],
            first=first,
            last=last,
            snapshots=reader.snapshots,
            known_at=known_at,
        )
        return LakeRetrievalJob(run, metadata, full_feature_names=full_feature_names, on_demand=on_demand)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Prepare reading the newest row of each key whose event time lies in `[start_date, end_date]`."""
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        newest = (
            f"QUALIFY row_number() OVER (PARTITION BY {', '.join(map(quote, join_key_columns))} "
            f"ORDER BY {', '.join(quote(column) + ' DESC' for column in order)}) = 1"
        )
        columns = [*join_key_columns, *feature_name_columns, *order]
        return _pull(config, data_source, columns, TimeRange(timestamp_field, start_date, end_date), newest)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Prepare reading every row whose event time lies in `[start_date, end_date]`."""
        order = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        columns = [*join_key_columns, *feature_name_columns, *order]
        return _pull(config, data_source, columns, TimeRange(timestamp_field, start_date, end_date), "")

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: feast.FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to a view's table in one commit; pandas' nanoseconds must be whole microseconds.

        Raises:
            SchemaDrift: the rows are not the table's.
        """
        source = lake_source(feature_view.batch_source)
        fields = [f.with_type(TIME) if pa.types.is_timestamp(f.type) and f.type.tz else f for f in table.schema]
        rows = table.cast(pa.schema(fields))
        Lake.open(_settings(config), source.namespace).append(source.iceberg_table, rows)
        if progress:
            progress(rows.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Refuse: what was served is logged by the transformer.

        Raises:
            NotYetSupported: always.
        """
        raise NotYetSupported("Feast's feature logging is not supported", hint="the transformer logs what it serves")

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Refuse a source whose table the lake does not have.

        Raises:
            BadInput: there is no such table.
        """
        source = lake_source(data_source)
        Lake.open(_settings(config), source.namespace).table(source.iceberg_table)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return a table's columns with their Iceberg types."""
        source = lake_source(data_source)
        table = Lake.open(_settings(config), source.namespace).table(source.iceberg_table)
        return [(field.name, str(field.field_type)) for field in table.schema().fields]


def _pull(
    config: RepoConfig, data_source: DataSource, columns: Sequence[str], span: TimeRange, rest: str
) -> RetrievalJob:
    source = lake_source(data_source)
    reader = Reader(_settings(config), source.namespace)
    snapshot_id = reader.snapshot(source.iceberg_table)
    # Feast's range includes its end.
    start = require_zone(span.start, "start_date") if span.start else None
    end = require_zone(span.end, "end_date") + MICROSECOND if span.end else None

    def run() -> pa.Table:
        with connect(reader.settings) as connection:
            reader.lake.register(
                connection,
                "rows",
                source.iceberg_table,
                columns=columns,
                snapshot_id=snapshot_id,
                within=TimeRange(span.column, start, end),
            )
            return connection.sql(f"SELECT {', '.join(map(quote, columns))} FROM rows {rest}").to_arrow_table()

    metadata = LakeRetrievalMetadata(
        features=columns, keys=[], first=start, last=span.end, snapshots=reader.snapshots, known_at=None
    )
    return LakeRetrievalJob(run, metadata)


def _check_on_demand(
    views: Sequence[OnDemandFeatureView],
    feature_refs: Sequence[str],
    spine: pa.Table,
    outputs: Sequence[str],
    *,
    full_feature_names: bool,
) -> None:
    """Refuse a spine without the request's inputs, and features that would share a name with another column.

    Feast checks the first for pandas frames only, and the second not at all: the result would have the column twice.
    """
    taken = {*spine.column_names, *outputs}
    for view in views:
        name = view.projection.name_to_use()
        if missing := sorted(set(view.get_request_data_schema()) - set(spine.column_names)):
            raise BadInput(
                f"the spine lacks {', '.join(missing)}, which {name} takes from a request",
                hint=f"it has {', '.join(spine.column_names)}",
            )
        asked = [feature for owner, _, feature in (ref.partition(":") for ref in feature_refs) if owner == name]
        columns = [f"{name}__{feature}" if full_feature_names else feature for feature in asked]
        if clash := sorted(taken.intersection(columns)):
            raise BadInput(
                f"{name} would add the column {', '.join(clash)}, which is there already",
                hint="rename the spine's column, or ask for full feature names",
            )
        taken.update(columns)


def _settings(config: RepoConfig) -> Settings:
    return cast("LockstepDuckDBOfflineStoreConfig", config.offline_store).settings()
