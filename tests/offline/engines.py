"""Every engine that answers point-in-time questions, and the definition itself as one more: slow, plain, and the judge."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from lockstep.clock import to_micros
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange
from lockstep.offline.duckdb import DuckDBEngine
from lockstep.offline.engine import Engine
from lockstep.offline.semantics import FeatureRow, ViewRead, as_known, plain, times_us
from lockstep.settings import Settings

_MANY = 200


class Definition:
    """`as_known`, row by row over a whole table in memory."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._lake = lake

    def retrieve(
        self, spine: pa.Table, reads: Sequence[ViewRead], *, time_column: str, known_at: datetime | None
    ) -> Iterator[pa.Table]:
        asked = times_us(spine, time_column).to_pylist()
        found = spine
        for read in reads:
            table = self._lake.table(read.table)
            rows = feature_rows(table.scan(snapshot_id=read.snapshot_id).to_arrow(), read)
            keys = zip(*(spine[column].to_pylist() for column in read.join_keys.values()), strict=True)
            answers = [
                as_known(
                    rows, key, t, t if known_at is None else to_micros(known_at), read.ttl_us, read.visible_lag_us
                )
                for key, t in zip(keys, asked, strict=True)
            ]
            schema = table.schema().as_arrow()
            for name, output in read.columns.items():
                values = [answer and answer.values[name] for answer in answers]
                found = found.append_column(output, pa.array(values, plain(schema.field(name).type)))
        yield found

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        within: TimeRange,
        snapshot_id: int | None,
        *,
        newest_of: Sequence[str] | None = None,
        newest_by: Sequence[str] = (),
    ) -> pa.Table:
        raise NotImplementedError

    def query(self, sql: str, snapshot_of: Callable[[str], int | None]) -> pa.Table:
        raise NotImplementedError


def feature_rows(table: pa.Table, read: ViewRead) -> list[FeatureRow]:
    """Return the rows of a feature table as the definition takes them: those that have their times."""
    events, created = (times_us(table, name).to_pylist() for name in ("event_timestamp", "created_timestamp"))
    return [
        FeatureRow(tuple(row[key] for key in read.join_keys), event, made, {name: row[name] for name in read.columns})
        for row, event, made in zip(table.to_pylist(), events, created, strict=True)
        if event is not None and made is not None
    ]


ENGINES: dict[str, Callable[[Settings, Lake], Engine]] = {"duckdb": DuckDBEngine, "definition": Definition}


def ask(engine: Engine, spine: pa.Table, *reads: ViewRead, **options: Any) -> pa.Table:
    """Return what an engine answers, all parts together: the same however often each row is asked for.

    DuckDB 2.0 joins up to 63 entity rows by another plan than more of them: both answer here.
    """
    options = {"time_column": "event_timestamp", "known_at": None, **options}
    found = pa.concat_tables(engine.retrieve(spine, reads, **options))
    if 0 < spine.num_rows < _MANY:
        times = -(-_MANY // spine.num_rows)
        many = pa.concat_tables(engine.retrieve(pa.concat_tables([spine] * times), reads, **options))
        # As text, in which NaN equals itself and -0.0 does not equal 0.0.
        assert str(many.to_pylist()) == str(found.to_pylist() * times)
    return found
