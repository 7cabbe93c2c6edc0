"""What a stored view is made of, and what its table says, read at a snapshot for a sample of its keys."""

from collections.abc import Collection, Mapping

import pyarrow as pa

from lockstep.clock import MICROSECOND
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect, quote
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView


def source_rows(
    settings: Settings,
    lake: Lake,
    view: StoredView,
    snapshots: Mapping[str, int],
    keys: pa.ChunkedArray,
    also: Collection[str] = (),
) -> pa.Table:
    """Return the source rows of some keys, with what the view's values are made of, and those columns of `also` that it has.

    A source that the training set was not cut from is read as it is now: then nothing says as of when.
    """
    source, key = view.source, view.entity.join_key
    more = sorted(set(also).intersection(lake.schema(source.table, snapshots.get(source.table)).names))
    read = tuple(dict.fromkeys((*view.source_columns, *more)))
    with connect(settings) as connection:
        lake.register(connection, "source", source.table, columns=read, snapshot_id=snapshots.get(source.table))
        connection.register("wanted", pa.table({key: keys}))
        return connection.sql(f"FROM source SEMI JOIN wanted USING ({quote(key)})").to_arrow_table()


def sampled_rows(
    settings: Settings,
    lake: Lake,
    view: StoredView,
    snapshots: Mapping[str, int],
    within: TimeRange,
    asked: pa.Table,
    rows: int,
    seed: int,
) -> pa.Table:
    """Return that many rows of a view's table: those that were retrieved, and then any; for one seed always the same.

    Args:
        settings: name the engine's memory.
        lake: has the table.
        view: whose.
        snapshots: of each table the one to read.
        within: which of the rows that nobody retrieved.
        asked: keys and times; what was retrieved for them is the newest row that was visible then.
        rows: how many.
        seed: of the order of what nobody retrieved.
    """
    key, lag = quote(view.entity.join_key), view.visible_lag // MICROSECOND
    event, created = quote(EVENT_TIMESTAMP), quote(CREATED_TIMESTAMP)
    named = f"{key}, {event}, {created}"
    with connect(settings) as connection:
        lake.register(
            connection,
            "stored",
            view.table,
            columns=view.schema.names,
            snapshot_id=snapshots[view.table],
            within=within,
        )
        connection.register("asked", asked.append_column("number", pa.array(range(asked.num_rows), pa.int64())))
        found = connection.sql(f"""
            WITH visible AS (
                SELECT stored.* FROM asked JOIN stored USING ({key})
                WHERE epoch_us(stored.{created}) + {lag} <= epoch_us(asked.{event})
                QUALIFY row_number() OVER (
                    PARTITION BY asked.number ORDER BY stored.{event} DESC, stored.{created} DESC
                ) = 1
            ), retrieved AS (SELECT DISTINCT * FROM visible), others AS (
                FROM stored ANTI JOIN retrieved USING ({named}) ORDER BY hash({seed}, {named}), {named} LIMIT {rows}
            ), all_of_them AS (SELECT 0 AS place, * FROM retrieved UNION ALL SELECT 1, * FROM others)
            SELECT * EXCLUDE (place, rank) FROM (
                SELECT *, row_number() OVER (ORDER BY place, hash({seed}, {named}), {named}) AS rank FROM all_of_them
            ) WHERE rank <= {rows} ORDER BY hash({seed}, {named}), {named}
        """)
        return found.to_arrow_table().cast(view.schema)
