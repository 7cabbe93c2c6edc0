"""A retrieval as Feast hands it out: it runs when its result is asked for, and tells what it reads."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake
from lockstep.offline.cut import CUT_PROPERTY, Cut
from lockstep.offline.semantics import whole_micros
from lockstep.offline.storage import SavedDatasetLakeStorage
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.feast import arrow_type

# pandas' own integers and truth values have no null: an integer would become a float, and lose what is beyond 2**53.
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


class LakeRetrievalMetadata(RetrievalMetadata):
    """What a retrieval reads.

    Attributes:
        cut: the snapshot of each table that is read; `reading(cut)` reads them again.
    """

    def __init__(
        self, *, features: Sequence[str], keys: Sequence[str], first: datetime | None, last: datetime | None, cut: Cut
    ) -> None:
        super().__init__(list(features), list(keys), first, last)
        self.cut = cut


class LakeRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for, at the snapshots that were current when it was created.

    Args:
        lake: where a result may be kept.
        run: yields the stored features, a part of the entity rows at a time, at least one part.
        metadata: what is read.
        full_feature_names: whether a feature's name begins with its view's.
        on_demand: the on-demand views that Feast applies to the result.
    """

    def __init__(
        self,
        lake: Lake,
        run: Callable[[], Iterator[pa.Table]],
        metadata: LakeRetrievalMetadata,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
    ) -> None:
        self._lake = lake
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

    def parts(self) -> Iterator[pa.Table]:
        """Yield the result a part at a time, in order, as tables of one schema: a result may be larger than memory."""
        for part in self._run():
            alone = LakeRetrievalJob(
                self._lake,
                lambda part=part: iter([part]),
                self._metadata,
                full_feature_names=self._full_feature_names,
                on_demand=self._on_demand,
            )
            yield self._typed(alone.to_arrow())

    def _typed(self, part: pa.Table) -> pa.Table:
        """Give on-demand columns without a value the type they are declared with: Feast infers types, and from nothing none."""
        for view in self._on_demand:
            for feature in view.features:
                name = feature.name
                name = f"{view.projection.name_to_use()}__{name}" if self._full_feature_names else name
                declared = arrow_type(feature.dtype)
                if name in part.column_names and pa.types.is_null(part[name].type) and declared is not None:
                    values = part[name].cast(declared)
                    part = part.set_column(part.column_names.index(name), name, values)
        return part

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """Return the result as a pandas frame; integers stay integers, in pandas' nullable types."""
        return _frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Keep the result in a table of the lake, a part at a time, in one commit that also says what it was cut from.

        Args:
            storage: the table.
            allow_overwrite: whether it may hold other rows, which are replaced in the same commit.
            timeout: not kept to.

        Raises:
            BadInput: the storage is another project's, or the spine's times are not in `event_timestamp`.
            SavedDatasetLocationAlreadyExists: the table holds rows already.
            SchemaDrift: it has other columns.
            Transient: another writer committed first.
        """
        if not isinstance(storage, SavedDatasetLakeStorage):
            raise NotYetSupported(
                f"a saved dataset in {type(storage).__name__} is not supported",
                hint="keep it in the lake: SavedDatasetLakeStorage of lockstep.offline.storage",
            )
        lake, table = self._lake, storage.table
        if storage.project != lake.namespace:
            raise BadInput(f"the result is of the project {lake.namespace}, its storage of {storage.project}")
        newest = lake.current(table) if lake.exists(table) else None
        if newest is not None and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(table)
        parts = map(whole_micros, self.parts())
        first = next(parts)
        if EVENT_TIMESTAMP not in first.column_names:
            raise BadInput(
                f"a saved dataset needs its times in {EVENT_TIMESTAMP}, where Feast looks for them",
                hint="name the spine's column of times so",
            )
        lake.ensure_table(table, first.schema)
        batches = (batch for part in chain([first], parts) for batch in part.to_batches())
        reader = pa.RecordBatchReader.from_batches(first.schema, batches)
        properties = {CUT_PROPERTY: self._metadata.cut.to_json()}
        lake.fill(table, reader, properties, after=newest.sequence if newest else 0)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.concat_tables(self._run())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return _frame(self._to_arrow_internal(timeout))


def _frame(found: pa.Table) -> pd.DataFrame:
    """Return a table as a pandas frame whose integers are integers, also inside lists, where pandas would make floats of them."""
    frame = found.to_pandas(types_mapper=_NULLABLE.get)
    for field in found.schema:
        if pa.types.is_list(field.type):
            frame[field.name] = pd.Series(found[field.name].to_pylist(), index=frame.index, dtype=object)
    return frame
