"""The offline store that Feast loads by its dotted name: the lake, read by DuckDB."""

from pathlib import Path
from typing import Literal

from lockstep.lake import Lake
from lockstep.offline.duckdb import DuckDBEngine
from lockstep.offline.lake_store import LakeOfflineStore, LakeStoreConfig
from lockstep.settings import Settings


class LockstepDuckDBOfflineStoreConfig(LakeStoreConfig):
    """Where the lake is, and how much memory DuckDB may take."""

    type: Literal["lockstep.offline.feast_store.LockstepDuckDBOfflineStore"] = (
        "lockstep.offline.feast_store.LockstepDuckDBOfflineStore"
    )
    duckdb_memory_limit: str
    retrieval_rows: int

    @classmethod
    def of(cls, settings: Settings) -> "LockstepDuckDBOfflineStoreConfig":
        """Take what the store needs from the settings."""
        return cls(
            home=str(settings.home),
            catalog_uri=settings.catalog_uri,
            warehouse=settings.warehouse,
            duckdb_memory_limit=settings.duckdb_memory_limit,
            retrieval_rows=settings.retrieval_rows,
        )

    def settings(self) -> Settings:
        """Return settings of just these values."""
        return Settings(home=Path(self.home), **self.model_dump(exclude={"type", "home"})).resolved()

    def engine(self, lake: Lake) -> DuckDBEngine:
        """Return DuckDB, reading `lake`."""
        return DuckDBEngine(self.settings(), lake)


class LockstepDuckDBOfflineStore(LakeOfflineStore):
    """Reads feature tables of the lake with DuckDB."""
