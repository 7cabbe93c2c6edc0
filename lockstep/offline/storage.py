"""Where in the lake Feast keeps what it is asked to keep: saved datasets, and its log of served features.

Both name a project and a table, never a place, so that they may lie in a registry.
"""

import json

from feast.data_source import DataSource
from feast.feature_logging import LOG_TIMESTAMP_FIELD, LoggingDestination
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.saved_dataset import SavedDatasetStorage

from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.feast import WAREHOUSE


class SavedDatasetLakeStorage(SavedDatasetStorage):
    """A table of the lake that a retrieval's result is kept in: `FeatureStore.create_saved_dataset(..., storage=...)`.

    Args:
        project: whose table it is.
        table: its name.
    """

    _proto_attr_name = "custom_storage"

    def __init__(self, project: str, table: str) -> None:
        self.project = project
        self.table = table

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> "SavedDatasetLakeStorage":
        """Read what `to_proto` wrote."""
        return SavedDatasetLakeStorage(**_named(storage_proto.custom_storage.configuration))

    def to_proto(self) -> SavedDatasetStorageProto:
        """Return what Feast keeps in its registry."""
        configuration = json.dumps({"project": self.project, "table": self.table}).encode()
        return self._custom_storage_proto(DataSourceProto.CustomSourceOptions(configuration=configuration))

    def to_data_source(self) -> DataSource:
        """Return what the rows are read back from."""
        return _source(self.project, self.table, EVENT_TIMESTAMP)

    @staticmethod
    def from_data_source(data_source: DataSource) -> "SavedDatasetLakeStorage":
        """Return the storage that such a source reads."""
        if not isinstance(data_source, IcebergSource):
            raise TypeError(f"{data_source.name} is no table of the lake")
        return SavedDatasetLakeStorage(data_source.namespace, data_source.iceberg_table)


class LakeLoggingDestination(LoggingDestination):
    """A table of the lake that `FeatureStore.write_logged_features` appends to: `LoggingConfig(destination=...)`.

    Lockstep's own transformer writes its served log itself, with more in it than Feast's has.

    Args:
        project: whose table it is.
        table: its name.
    """

    _proto_kind = "lockstep_lake"

    def __init__(self, project: str, table: str) -> None:
        self.project = project
        self.table = table

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> "LakeLoggingDestination":
        """Read what `to_proto` wrote."""
        return cls(**config_proto.custom_destination.config)

    def to_proto(self) -> LoggingConfigProto:
        """Return what Feast keeps in its registry."""
        config = {"project": self.project, "table": self.table}
        destination = LoggingConfigProto.CustomDestination(kind=self._proto_kind, config=config)
        return LoggingConfigProto(custom_destination=destination)

    def to_data_source(self) -> DataSource:
        """Return what the log is read back from."""
        return _source(self.project, self.table, LOG_TIMESTAMP_FIELD)


def _source(project: str, table: str, time_column: str) -> IcebergSource:
    return IcebergSource(warehouse=WAREHOUSE, namespace=project, table=table, timestamp_field=time_column)


def _named(configuration: bytes) -> dict[str, str]:
    named = json.loads(configuration)
    return {"project": named["project"], "table": named["table"]}
