"""Move the served log from its Redis Stream into the lake, exactly once.

Each append says in its snapshot's properties up to which stream id it goes, in the same commit as the rows; a drain starts after
the newest of these and only then trims the stream. A run that died between the two is finished by the next one.

An id means something in its own stream alone: after a flush, or at another address, ids begin anew, perhaps with an earlier
clock. So a stream has a name, and the property bears it. The name is that of a consumer group by which nobody reads: a part of
the stream, it comes, moves and goes with it, and no key beside it can be lost. (`XINFO GROUPS lockstep:served:<project>` shows
it; who destroys the group, or loads a backup from before the first drain, has the stream drained from its beginning.)
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import pyarrow as pa
from pyiceberg.table import Table

from lockstep.errors import SchemaDrift, Transient
from lockstep.lake import Lake
from lockstep.lake.commit import append_rows
from lockstep.online.store import Store, answering
from lockstep.serving.log_rows import PARTITION_BY, SCHEMA, SERVED_LOG, read_row, stream_key

STREAM = "lockstep.stream."
"""What the names of streams begin with; such a name is also that of the property which says up to where the stream is drained."""
BATCH_ROWS = 10_000
_START = "0-0"
# PyIceberg would repeat a lost commit on top of the winner's: of two drains at once, both would append the same rows.
_NO_RETRY = {"commit.retry.num-retries": "0"}
# In one step, or two drains at once could give a stream two names. Nothing where there is no stream.
_NAME = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if string.find(group[2], ARGV[1], 1, true) == 1 then return group[2] end
end
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1] .. ARGV[2], '0')
return ARGV[1] .. ARGV[2]
"""

_Entry: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True)
class Drained:
    """What a drain did.

    Attributes:
        rows: how many rows it appended.
        last_id: up to which stream id the lake now has them.
    """

    rows: int
    last_id: str


def drain(lake: Lake, redis: Store, project: str) -> Drained:
    """Append what the stream holds beyond the last row of it in the lake, and trim what the lake has.

    Raises:
        SchemaDrift: a row is not the served log's.
        Transient: the store does not answer, another drain committed first, or the stream was replaced by another one
            meanwhile; nothing was lost or doubled.
    """
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    key = stream_key(project)
    if (stream := stream_name(redis, key)) is None:
        return Drained(0, _START)
    done = 0
    while True:
        table = _table(lake)
        last = last_id(table, stream)
        entries = _entries(redis, key, stream, last)
        if not entries:
            break
        rows = arrow_rows(entries)
        _append(table, rows, {stream: entries[-1][0].decode()})
        done += rows.num_rows
    if last != _START:
        with answering():
            redis.xtrim(key, minid=_after(last), approximate=False)
    return Drained(done, last)


def stream_name(redis: Store, key: str) -> str | None:
    """Return the stream's name, which it gets now if it has none; None if there is no stream."""
    with answering():
        name = cast("bytes | None", redis.eval(_NAME, 1, key, STREAM, secrets.token_hex(8)))
    return name.decode() if name is not None else None


def last_id(table: Table, stream: str) -> str:
    """Return the last id of a stream that the lake has; newer snapshots may be of other streams, or of maintenance."""
    for snapshot in sorted(table.snapshots(), key=lambda s: s.sequence_number or 0, reverse=True):
        properties = snapshot.summary.additional_properties if snapshot.summary else {}
        if stream in properties:
            return properties[stream]
    return _START


def arrow_rows(entries: Sequence[_Entry]) -> pa.Table:
    """Turn entries of the stream into rows of the served log.

    Raises:
        SchemaDrift: one holds no row, or a row with other fields or types; the entry's id is named.
    """
    rows = [read_row(*entry) for entry in entries]
    try:
        columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in SCHEMA]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as wrong:
        raise SchemaDrift(
            f"stream entries {entries[0][0].decode()} to {entries[-1][0].decode()} do not fit {SERVED_LOG}: {wrong}"
        ) from wrong
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _table(lake: Lake) -> Table:
    table = lake.table(SERVED_LOG)
    if not _NO_RETRY.items() <= table.properties.items():
        with table.transaction() as change:
            change.set_properties(_NO_RETRY)
        table = lake.table(SERVED_LOG)
    return table


def _entries(redis: Store, key: str, stream: str, last: str) -> list[_Entry]:
    """Return the first entries after an id.

    Raises:
        Transient: they may be of another stream than the one of this name.
    """
    with answering():
        entries = cast("list[_Entry]", redis.xrange(key, min=f"({last}", max="+", count=BATCH_ROWS))
    # A name goes with its stream: one that is there still was there when the entries were read.
    if stream_name(redis, key) != stream:
        raise Transient(
            "the served log's stream was flushed, or replaced, while it was drained", hint="run the step again"
        )
    return entries


def _append(table: Table, rows: pa.Table, properties: Mapping[str, str]) -> None:
    """Append on exactly this state of the table: the one whose last id was read."""
    append_rows(table, [rows.cast(table.schema().as_arrow())], properties)


def _after(stream_id: str) -> str:
    milliseconds, _, sequence = stream_id.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"
