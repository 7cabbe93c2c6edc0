"""Move the served log from its Redis Stream into the lake, exactly once.

Each append keeps the last stream id in its snapshot's properties, in the same commit as the rows; a drain starts after the
newest of these and only then trims the stream. A run that died between the two is finished by the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pyarrow as pa
from pyiceberg.table import Table

from lockstep.errors import SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.commit import append_rows
from lockstep.online.store import Store, answering
from lockstep.serving.log_rows import PARTITION_BY, ROW_FIELD, SCHEMA, SERVED_LOG, stream_key
from lockstep.settings import Settings

STREAM_ID = "lockstep.stream-id"
BATCH_ROWS = 10_000
_START = "0-0"
# PyIceberg would repeat a lost commit on top of the winner's: of two drains at once, both would append the same rows.
_NO_RETRY = {"commit.retry.num-retries": "0"}


@dataclass(frozen=True)
class Drained:
    """What a drain did.

    Attributes:
        rows: how many rows it appended.
        last_id: up to which stream id the lake now has them.
    """

    rows: int
    last_id: str


def drain(settings: Settings, lake: Lake, redis: Store, project: str) -> Drained:
    """Append what the stream holds beyond the lake's last row, and trim what the lake has.

    Raises:
        SchemaDrift: a row is not the served log's.
        Transient: the store does not answer, or another drain committed first; nothing was lost or doubled.
    """
    del settings  # where the sampling rate and batch size will come from
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    key = stream_key(project)
    done = 0
    while True:
        table = _table(lake)
        last = last_id(table)
        with answering():
            answer = redis.xrange(key, min=f"({last}", max="+", count=BATCH_ROWS)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
        if not entries:
            break
        rows = arrow_rows([(_text(name), fields[ROW_FIELD]) for name, fields in entries])
        _append(table, rows, _text(entries[-1][0]))
        done += rows.num_rows
    if last != _START:
        with answering():
            redis.xtrim(key, minid=_after(last), approximate=False)
    return Drained(done, last)


def last_id(table: Table) -> str:
    """Return the last stream id the lake has; maintenance may have added newer snapshots that do not say."""
    for snapshot in sorted(table.snapshots(), key=lambda s: s.sequence_number or 0, reverse=True):
        properties = snapshot.summary.additional_properties if snapshot.summary else {}
        if STREAM_ID in properties:
            return properties[STREAM_ID]
    return _START


def arrow_rows(entries: Sequence[tuple[str, bytes]]) -> pa.Table:
    """Turn (stream id, JSON row) into rows of the served log.

    Raises:
        SchemaDrift: a row has other fields or types; the stream id is named.
    """
    rows: list[Mapping[str, Any]] = []
    names = set(SCHEMA.names)
    for entry, text in entries:
        row = orjson.loads(text)
        if row.keys() != names:
            different = ", ".join(sorted(row.keys() ^ names))
            raise SchemaDrift(f"stream entry {entry} is no row of {SERVED_LOG}: it differs in {different}")
        rows.append(row)
    try:
        columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in SCHEMA]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as wrong:
        raise SchemaDrift(
            f"stream entries {entries[0][0]} to {entries[-1][0]} do not fit {SERVED_LOG}: {wrong}"
        ) from wrong
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _table(lake: Lake) -> Table:
    table = lake.table(SERVED_LOG)
    if not _NO_RETRY.items() <= table.properties.items():
        with table.transaction() as change:
            change.set_properties(_NO_RETRY)
        table = lake.table(SERVED_LOG)
    return table


def _append(table: Table, rows: pa.Table, last: str) -> None:
    """Append on exactly this state of the table: the one whose last id was read."""
    append_rows(table, [rows.cast(table.schema().as_arrow())], {STREAM_ID: last})


def _after(stream_id: str) -> str:
    milliseconds, _, sequence = stream_id.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
