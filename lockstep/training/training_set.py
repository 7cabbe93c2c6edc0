"""Build the table a model is fitted on: entity rows, their features as of then, and the contract that both follow from."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from lockstep.clock import require_zone
from lockstep.contract import FeatureContract, TableCut, TrainingCut
from lockstep.errors import BadInput, SchemaDrift, Terminal
from lockstep.lake import Lake
from lockstep.offline.cut import Cut
from lockstep.offline.semantics import plain
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.training.protocol import SPLIT, LeftOut
from lockstep.training.span import Span
from lockstep.training.spine import entity_rows, sort_rows, table_digest
from lockstep.views.declare import ARROW_TYPES
from lockstep.views.use_case import UseCase

CONTRACT_PROPERTY = "lockstep.contract"
LEFT_OUT_PROPERTY = "lockstep.left-out"


@dataclass(frozen=True)
class TrainingSet:
    """A training set in the lake.

    Attributes:
        table: its Iceberg table.
        contract: what it was made from and how; also in the table's snapshot.
        rows: train and test together.
        positives: those labelled 1.
        left_out: rows of the spine that are in neither split.
        start: the first event time fitted on.
        end: the event time before which the test ends.
    """

    table: str
    contract: FeatureContract
    rows: int
    positives: int
    left_out: LeftOut
    start: datetime
    end: datetime


def build_training_set(
    settings: Settings, use_case: UseCase, *, known_at: datetime, service: str | None = None
) -> TrainingSet:
    """Build the training set of the use case's model as it could be built at `known_at`; the same again is found, not rebuilt.

    The test ends on the last UTC midnight whose labels are known, one label delay before `known_at`; the gap of one label
    delay between train and test keeps what the model is fitted on known before the test begins. Left out are rows in the gap,
    rows to train on whose label was later than that, and rows to test on of entities that were already known to be positive, if
    the recipe's protocol says so.
    Features are those of `service`, or else of the recipe's own.

    The table's name is that of the tag which keeps every snapshot the set was read from: `training_<digest>` and
    `training-<digest>`, where the digest covers the entity rows, the snapshots, `known_at` and the definitions.

    Raises:
        BadInput: `known_at` lies in the future; the entity rows lack a column, collide with a feature, hold a null or a
            label that is not 0 or 1, lie outside the time asked for; a label became known after `known_at` or before its
            event; or a split has no row, no positive or no negative label.
        UseCaseError: the spine's SQL does not run.
        SchemaDrift: a feature is not of the type its view declares.
        Transient: another writer was faster.
    """
    known_at = require_zone(known_at, "known_at")
    now = settings.clock.now()
    if known_at > now:
        raise BadInput(f"known_at {known_at.isoformat()} is in the future", hint=f"it is {now.isoformat()} now")
    recipe = use_case.model
    lake = Lake.open(settings, use_case.project)
    service = service or recipe.service.name
    draft = compile_contract(use_case, service, TrainingCut(tables=(), spine_hash="", known_at=known_at))
    snapshots = newest_snapshots(lake, {*recipe.spine_tables, *(view.table for view in draft.views)})
    span = Span.of(recipe, known_at)
    spine, left_out = entity_rows(settings, lake, draft, recipe, span, snapshots, known_at)
    name, contract = _contract(use_case, service, spine, snapshots, known_at)
    for cut in contract.cut.tables:
        lake.tag(cut.table, cut.snapshot_id, cut.tag)
    if not lake.exists(name) or not lake.snapshots(name):
        cut = Cut({view.table: snapshots[view.table] for view in contract.views}, known_at)
        rows = _with_features(settings, use_case, contract, spine, cut)
        lake.ensure_table(name, rows.schema)
        properties = {
            CONTRACT_PROPERTY: contract.to_json().decode(),
            LEFT_OUT_PROPERTY: orjson.dumps(asdict(left_out)).decode(),
        }
        lake.append(name, rows, properties)
    return TrainingSet(
        table=name,
        contract=contract,
        rows=spine.num_rows,
        positives=int(spine[recipe.label].to_numpy().sum()),
        left_out=left_out,
        start=span.start,
        end=span.end,
    )


def read_training_set(lake: Lake, table: str) -> tuple[pa.Table, FeatureContract]:
    """Return the rows of a training set, always in the same order, and its contract.

    Raises:
        BadInput: there is no such table, or it is no training set.
    """
    snapshots = lake.snapshots(table)
    # The first one: should two writers ever race past the check above, the second one's equal rows are not read.
    text = snapshots[0].properties.get(CONTRACT_PROPERTY) if snapshots else None
    if text is None:
        raise BadInput(
            f"the table {table!r} is no training set", hint="build one first; its name begins with 'training_'"
        )
    contract = FeatureContract.from_json(text)
    found = lake.table(table).scan(snapshot_id=snapshots[0].id).to_arrow()
    schema = pa.schema([pa.field(f.name, plain(f.type)) for f in found.schema])
    features = {f.name for f in contract.features}
    return sort_rows(found.cast(schema), [c for c in schema.names if c not in features]), contract


def read_left_out(lake: Lake, table: str) -> LeftOut:
    """Return how many rows of a training set's spine are in neither split.

    Raises:
        BadInput: the table is no training set.
    """
    snapshots = lake.snapshots(table)
    text = snapshots[0].properties.get(LEFT_OUT_PROPERTY) if snapshots else None
    if text is None:
        raise BadInput(
            f"the table {table!r} does not say which rows were left out", hint="build the training set again"
        )
    return LeftOut(**orjson.loads(text))


def newest_snapshots(lake: Lake, tables: Iterable[str]) -> dict[str, int]:
    """Return the newest snapshot of each table.

    Raises:
        BadInput: one is empty.
    """
    newest: dict[str, int] = {}
    for table in sorted(tables):
        snapshot = lake.current(table)
        if snapshot is None:
            raise BadInput(f"the table {table!r} is empty", hint="ingest raw events and compute the views first")
        newest[table] = snapshot.id
    return newest


def _contract(
    use_case: UseCase, service: str, spine: pa.Table, snapshots: Mapping[str, int], known_at: datetime
) -> tuple[str, FeatureContract]:
    """Return the table's name and the contract; both follow from the contract without its tags."""

    def compiled(tag: str) -> FeatureContract:
        tables = tuple(TableCut(table=t, snapshot_id=s, tag=tag) for t, s in sorted(snapshots.items()))
        cut = TrainingCut(tables=tables, spine_hash=table_digest(spine), known_at=known_at)
        return compile_contract(use_case, service, cut)

    short = compiled("").hash[:12]
    return f"training_{short}", compiled(f"training-{short}")


def _with_features(
    settings: Settings, use_case: UseCase, contract: FeatureContract, spine: pa.Table, cut: Cut
) -> pa.Table:
    """Return the entity rows with their features, refusing any that came back changed, lost or doubled."""
    # Training reads the set from the lake, and does without Feast's 4 s.
    from lockstep.offline.history import training_features  # noqa: PLC0415

    bare = spine.drop_columns([SPLIT])
    found = training_features(settings, use_case, contract.feature_service, bare, cut).rows
    if not found.select(bare.column_names).equals(bare):
        raise Terminal(
            f"retrieval changed the entity rows: {bare.num_rows} went in, {found.num_rows} came back",
            hint="rows in must be rows out, in order; this is a bug in the offline store",
        )
    columns: dict[str, Any] = {name: bare[name] for name in bare.column_names}
    for feature in contract.features:
        values = found[feature.name]
        if values.type != ARROW_TYPES[feature.dtype]:
            raise SchemaDrift(
                f"{feature.view}:{feature.name} came back as {values.type}, not {ARROW_TYPES[feature.dtype]}"
            )
        columns[feature.name] = values
    return pa.table({**columns, SPLIT: spine[SPLIT]})
