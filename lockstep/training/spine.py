"""The spine of a training set: which entity rows there are, what must hold for them, and the hash that names them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.settings import Settings
from lockstep.training.protocol import SPLIT, TEST, TRAIN, LeftOut, divide, require_labels
from lockstep.training.span import Span
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP, DataType
from lockstep.views.use_case import ModelRecipe


def entity_rows(
    settings: Settings,
    lake: Lake,
    draft: FeatureContract,
    recipe: ModelRecipe,
    span: Span,
    snapshots: Mapping[str, int],
    known_at: datetime,
) -> tuple[pa.Table, LeftOut]:
    """Return the entity rows of train and test with their split, in an order that does not depend on the engine.

    Also returned is how many rows of the spine are in neither split. The errors are those of `build_training_set`.
    """
    spine = _query(settings, lake, recipe, span, snapshots, known_at)
    rows, left_out = divide_checked(draft, recipe, span, spine, known_at)
    return sort_rows(rows, rows.column_names), left_out


def divide_checked(
    draft: FeatureContract, recipe: ModelRecipe, span: Span, spine: pa.Table, known_at: datetime
) -> tuple[pa.Table, LeftOut]:
    """Return the rows of train and test with their split, in the spine's order, and how many are in neither.

    Args:
        draft: of whose features; it says which keys and inputs a row needs.
        recipe: names the label, when it was known, and who is left out.
        span: the times of the two splits.
        spine: entity rows with their labels. The request's time may not be among them: it is made from theirs.
        known_at: no label may be known later.

    Raises:
        BadInput: the spine lacks a column or value, gives the request's time itself, has rows outside the span or labels that
            are not known, or a split has labels of one kind alone.
    """
    inputs: dict[str, DataType] = {column.name: column.dtype for column in draft.request_inputs}
    if REQUEST_TIME_US in spine.column_names:
        raise BadInput(
            f"the spine gives {REQUEST_TIME_US} itself",
            hint=f"leave it out of the spine's SQL: it is made from {EVENT_TIMESTAMP}",
        )
    if REQUEST_TIME_US in inputs and EVENT_TIMESTAMP in spine.column_names:
        spine = spine.append_column(REQUEST_TIME_US, spine[EVENT_TIMESTAMP].cast(pa.int64()))
    keys: dict[str, DataType] = {key.name: key.dtype for key in draft.join_keys}
    needed: dict[str, DataType] = {EVENT_TIMESTAMP: "timestamp", **keys, **inputs}
    needed |= {recipe.label_known_at: "timestamp"}
    plain = [recipe.label, recipe.protocol.entity, *filter(None, [recipe.protocol.group])]
    _refuse_columns(spine, needed, plain, [f.name for f in draft.features])
    spine = spine.set_column(spine.column_names.index(recipe.label), recipe.label, _label(spine, recipe.label))
    time = spine[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    if not np.all((time >= to_micros(span.start)) & (time < to_micros(span.end))):
        raise BadInput(
            f"the spine has rows outside {_range(span.start, span.end)}",
            hint="filter by $start and $end in the spine's SQL",
        )
    require_labels(recipe, spine, known_at)
    rows, left_out = divide(recipe, span, spine)
    _refuse_one_sided(rows, recipe.label, span)
    return rows, left_out


def _query(
    settings: Settings,
    lake: Lake,
    recipe: ModelRecipe,
    span: Span,
    snapshots: Mapping[str, int],
    known_at: datetime,
) -> pa.Table:
    parameters = {"start": span.start, "end": span.end, "known_at": known_at}
    with connect(settings) as connection:
        for table, columns in recipe.spine_tables.items():
            lake.register(connection, table, table, columns=columns, snapshot_id=snapshots[table])
        return run_spine(connection, recipe, parameters)


def run_spine(
    connection: duckdb.DuckDBPyConnection, recipe: ModelRecipe, parameters: Mapping[str, datetime]
) -> pa.Table:
    """Run a recipe's SQL over the tables that the engine has.

    Raises:
        UseCaseError: it does not run.
    """
    try:
        return connection.sql(recipe.spine, params=dict(parameters)).to_arrow_table()
    except (duckdb.ProgrammingError, duckdb.DataError) as wrong:
        raise UseCaseError(f"the spine of model {recipe.name!r} does not run: {wrong}") from wrong


def _refuse_columns(
    spine: pa.Table, needed: Mapping[str, DataType], plain: Sequence[str], features: Iterable[str]
) -> None:
    """Refuse a spine without the columns `needed`, of a type each, or the `plain` ones, of any."""
    names = spine.column_names
    if lacking := [name for name in dict.fromkeys([*needed, *plain]) if name not in names]:
        raise BadInput(f"the spine lacks {', '.join(lacking)}", hint=f"its SQL gives {', '.join(names)}")
    if clash := sorted({SPLIT, *features}.intersection(names)):
        raise BadInput(f"the spine's {', '.join(clash)} collides with a feature", hint="rename it in the spine's SQL")
    for name, dtype in needed.items():
        if spine[name].type != ARROW_TYPES[dtype]:
            raise BadInput(
                f"the spine's {name} is {spine[name].type}, not {ARROW_TYPES[dtype]}",
                hint="cast it in the spine's SQL",
            )
    if nulls := [name for name in dict.fromkeys([*needed, *plain]) if spine[name].null_count]:
        raise BadInput(
            f"the spine has nulls in {', '.join(nulls)}", hint="an entity row needs its keys, time and label"
        )


def _label(spine: pa.Table, label: str) -> pa.ChunkedArray:
    values = spine[label]
    if not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise BadInput(f"the label {label} is {values.type}", hint="give 0 or 1 in the spine's SQL")
    values = values.cast(pa.int64())
    if foreign := sorted(set(values.unique().to_pylist()) - {0, 1}):
        raise BadInput(f"the label {label} holds {', '.join(map(str, foreign[:5]))}", hint="a label is 0 or 1")
    return values


def _refuse_one_sided(spine: pa.Table, label: str, span: Span) -> None:
    for split, start, end in ((TRAIN, span.start, span.train_end), (TEST, span.test_start, span.end)):
        labels = rows_of(spine, split)[label].to_numpy()
        if not len(labels):
            raise BadInput(
                f"there is no row to {split} on in {_range(start, end)}",
                hint="is there data, and are its labels known?",
            )
        if (found := labels.sum()) in {0, len(labels)}:
            raise BadInput(
                f"there is no {'negative' if found else 'positive'} label among the {len(labels)} rows to {split} on "
                f"in {_range(start, end)}",
                hint="take a longer time, or a later known_at",
            )


def rows_of(training_set: pa.Table, split: str) -> pa.Table:
    """Return the rows of one split, in order."""
    return training_set.filter(pa.array(training_set[SPLIT].to_numpy() == split, pa.bool_()))


def table_digest(table: pa.Table) -> str:
    """Return the SHA-256 of a table's names, types and values, whatever its chunks, buffers and their padding.

    Raises:
        BadInput: a column is of a nested or otherwise unusual type.
    """
    digest = hashlib.sha256(orjson.dumps([[f.name, str(f.type)] for f in table.schema]))
    for name in table.column_names:
        digest.update(table.num_rows.to_bytes(8, "little"))
        values = table[name].combine_chunks()
        digest.update(np.packbits(values.is_null().to_numpy(zero_copy_only=False)).tobytes())
        kind = values.type
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            plain = values.fill_null("" if pa.types.is_string(kind) else b"").cast(pa.binary())
            parts = plain.to_pylist()
            digest.update(np.array([len(part) for part in parts], "<i8").tobytes())
            digest.update(b"".join(parts))
        elif pa.types.is_timestamp(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            digest.update(values.cast(pa.int64()).fill_null(0).to_numpy().astype("<i8").tobytes())
        elif pa.types.is_floating(kind):
            digest.update(values.cast(pa.float64()).fill_null(0.0).to_numpy().astype("<f8").tobytes())
        else:
            raise BadInput(f"the spine's {name} is {kind}, which cannot be hashed", hint="cast it in the spine's SQL")
    return digest.hexdigest()


def sort_rows(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Return the rows by event time, then by every one of `columns`; rows equal in all of them are interchangeable."""
    order = [EVENT_TIMESTAMP, *(c for c in columns if c != EVENT_TIMESTAMP)]
    return table.sort_by([(name, "ascending") for name in order]).combine_chunks()


def _range(start: datetime, end: datetime) -> str:
    return f"[{start.isoformat()}, {end.isoformat()})"
