"""Feast's offline store over the lake, whichever engine answers: always as known at the time.

A definition's source names a project and a table; where the lake is and which engine reads it comes from the store's
configuration, and which snapshot is read from `cut`. What cannot be answered is refused before any feature is read.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_logging import LOG_TIMESTAMP_FIELD, LoggingConfig, LoggingSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from lockstep.clock import MICROSECOND, from_micros, require_zone
from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange
from lockstep.offline.engine import Engine
from lockstep.offline.job import LakeRetrievalJob, LakeRetrievalMetadata
from lockstep.offline.reader import Reader, lake_source, time_column_of
from lockstep.offline.semantics import check_spine, span_us, whole_micros
from lockstep.offline.storage import LakeLoggingDestination
from lockstep.settings import Settings


class LakeStoreConfig(FeastConfigBaseModel):
    """Where the lake is; a store's own configuration adds which engine reads it."""

    home: str
    catalog_uri: str
    warehouse: str

    @abstractmethod
    def settings(self) -> Settings:
        """Return settings of just these values."""

    @abstractmethod
    def engine(self, lake: Lake) -> Engine:
        """Return what reads the tables of `lake`."""


class LakeOfflineStore(OfflineStore):
    """Reads and writes tables of the lake."""

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
            BadInput: the entity rows cannot be answered, ask beyond the cut, or a snapshot has expired.
            SchemaDrift: a table is not what its view declares.
            NotYetSupported: there are no entity rows, or a view does not lie in the lake.
        """
        reader = _reader(config, project)
        reads = [reader.read(view, feature_refs, full_feature_names=full_feature_names) for view in feature_views]
        spine = reader.spine(entity_df)
        time_column = time_column_of(spine)
        schemas = {read.table: reader.lake.schema(read.table, read.snapshot_id) for read in reads}
        check_spine(spine, reads, schemas, time_column)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        _refuse_ownerless(feature_refs, feature_views, on_demand)
        outputs = [name for read in reads for name in read.columns.values()]
        _check_on_demand(on_demand, feature_refs, spine, outputs, full_feature_names=full_feature_names)
        span = span_us(spine, time_column)
        first, last = (from_micros(micros) for micros in span) if span else (None, None)
        reader.require_within_cut(last)
        cut = reader.used
        known_at = cut.known_at if cut.corrected else None

        def run() -> Iterator[pa.Table]:
            return reader.engine.retrieve(spine, reads, time_column=time_column, known_at=known_at)

        keys = [name for name in spine.column_names if name != time_column]
        metadata = LakeRetrievalMetadata(features=feature_refs, keys=keys, first=first, last=last, cut=cut)
        return LakeRetrievalJob(reader.lake, run, metadata, full_feature_names=full_feature_names, on_demand=on_demand)

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
        columns = [*join_key_columns, *feature_name_columns, *order]
        span = TimeRange(timestamp_field, start_date, end_date)
        return _pull(config, data_source, columns, span, newest_of=join_key_columns, newest_by=order)

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
        return _pull(config, data_source, columns, TimeRange(timestamp_field, start_date, end_date))

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: feast.FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to a view's table in one commit; pandas' nanoseconds must be whole microseconds.

        Raises:
            BadInput: a time is finer than a microsecond.
            SchemaDrift: the rows are not the table's.
        """
        source = lake_source(feature_view.batch_source)
        _lake(config, source.namespace).append(source.iceberg_table, whole_micros(table))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append Feast's log of served features to a table of the lake, which is made if need be.

        Args:
            config: where the lake is.
            data: the rows, or a folder of Parquet files.
            source: says which columns the log has.
            logging_config: its destination names the table.
            registry: where the logged features are declared.

        Raises:
            NotYetSupported: the destination is not in the lake.
            BadInput: a time is finer than a microsecond.
            SchemaDrift: the rows are not the log's.
        """
        destination = logging_config.destination
        if not isinstance(destination, LakeLoggingDestination):
            raise NotYetSupported(
                f"logging to {type(destination).__name__} is not supported",
                hint="log to the lake: LakeLoggingDestination of lockstep.offline.storage",
            )
        lake = _lake(config, destination.project)
        rows = _zoned(pq.read_table(data) if isinstance(data, Path) else data)
        missing = [name for name in source.get_schema(registry).names if name not in rows.column_names]
        if missing:
            raise BadInput(f"the log lacks {', '.join(missing)}", hint="write what Feast's feature logging gives")
        lake.ensure_table(destination.table, rows.schema, LOG_TIMESTAMP_FIELD)
        lake.append(destination.table, rows)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Refuse a source whose table the lake does not have.

        Raises:
            BadInput: there is no such table.
        """
        source = lake_source(data_source)
        _lake(config, source.namespace).table(source.iceberg_table)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return a table's columns with their Iceberg types."""
        source = lake_source(data_source)
        table = _lake(config, source.namespace).table(source.iceberg_table)
        return [(field.name, str(field.field_type)) for field in table.schema().fields]


def _pull(
    config: RepoConfig,
    data_source: DataSource,
    columns: Sequence[str],
    span: TimeRange,
    *,
    newest_of: Sequence[str] | None = None,
    newest_by: Sequence[str] = (),
) -> RetrievalJob:
    source = lake_source(data_source)
    reader = _reader(config, source.namespace)
    snapshot_id = reader.snapshot(source.iceberg_table)
    # Feast's range includes its end.
    start = require_zone(span.start, "start_date") if span.start else None
    end = require_zone(span.end, "end_date") + MICROSECOND if span.end else None
    within = TimeRange(span.column, start, end)

    def run() -> Iterator[pa.Table]:
        yield reader.engine.rows(
            source.iceberg_table, columns, within, snapshot_id, newest_of=newest_of, newest_by=newest_by
        )

    metadata = LakeRetrievalMetadata(features=columns, keys=[], first=start, last=span.end, cut=reader.used)
    return LakeRetrievalJob(reader.lake, run, metadata)


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


def _refuse_ownerless(
    feature_refs: Sequence[str], views: Sequence[feast.FeatureView], on_demand: Sequence[OnDemandFeatureView]
) -> None:
    """Refuse features that nobody would answer: Feast does not find an on-demand view under another name than its own."""
    owners = {view.projection.name_to_use() for view in (*views, *on_demand)}
    if lost := sorted({ref for ref in feature_refs if ref.partition(":")[0] not in owners}):
        raise NotYetSupported(
            f"nothing answers {', '.join(lost)}",
            hint="an on-demand view is asked for by its own name, not by an alias",
        )


def _zoned(rows: pa.Table) -> pa.Table:
    """Return a log with its times in whole microseconds of UTC: the times of Feast's features are UTC and do not say so."""
    fields = [
        f.with_type(pa.timestamp(f.type.unit, "UTC")) if pa.types.is_timestamp(f.type) else f for f in rows.schema
    ]
    return whole_micros(rows.cast(pa.schema(fields)))


def _reader(config: RepoConfig, project: str) -> Reader:
    lake = _lake(config, project)
    return Reader(lake, _config(config).engine(lake), project)


def _lake(config: RepoConfig, project: str) -> Lake:
    return Lake.open(_config(config).settings(), project)


def _config(config: RepoConfig) -> LakeStoreConfig:
    return cast("LakeStoreConfig", config.offline_store)
