"""A retrieval as Feast hands it out: it runs when its result is asked for, and tells what it reads."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from lockstep.errors import NotYetSupported

_NULLABLE = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}


class LakeRetrievalMetadata(RetrievalMetadata):
    """What a retrieval reads.

    Attributes:
        snapshots: per table the id of the snapshot that is read; None for a table that never got one.
        known_at: None when each row is answered with what was known at its own time.
    """

    def __init__(
        self,
        *,
        features: Sequence[str],
        keys: Sequence[str],
        first: datetime | None,
        last: datetime | None,
        snapshots: Mapping[str, int | None],
        known_at: datetime | None,
    ) -> None:
        super().__init__(list(features), list(keys), first, last)
        self.snapshots = dict(snapshots)
        self.known_at = known_at


class LakeRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for, at the snapshots that were current when it was created."""

    def __init__(
        self,
        run: Callable[[], pa.Table],
        metadata: LakeRetrievalMetadata,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
    ) -> None:
        self._run = run
        self._metadata = metadata
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)

    @property
    def full_feature_names(self) -> bool:
        """Whether a feature's name begins with its view's."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views that Feast applies to the result."""
        return self._on_demand

    @property
    def metadata(self) -> LakeRetrievalMetadata:
        """What is read, and at which snapshots."""
        return self._metadata

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """Return the result as a pandas frame; integers stay integers, in pandas' nullable types."""
        found = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        return found.to_pandas(types_mapper=_NULLABLE.get)

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Refuse: training sets are tables of the lake, not Feast's saved datasets.

        Raises:
            NotYetSupported: always.
        """
        raise NotYetSupported("saved datasets are not supported", hint="append to_arrow() to a table of the lake")

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._run().to_pandas(types_mapper=_NULLABLE.get)
