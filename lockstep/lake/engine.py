"""The embedded engine, and how a range of the lake is said to it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import duckdb
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan

from lockstep.settings import Settings


@dataclass(frozen=True)
class TimeRange:
    """The half-open range `[start, end)` of a timestamp column; None is no bound."""

    column: str
    start: datetime | None = None
    end: datetime | None = None

    def expression(self) -> BooleanExpression:
        """Return the range as an Iceberg row filter."""
        # PyIceberg builds these classes with a metaclass that hides their constructors from the type checker.
        above = GreaterThanOrEqual(self.column, self.start.isoformat()) if self.start else AlwaysTrue()  # pyright: ignore[reportCallIssue]
        below = LessThan(self.column, self.end.isoformat()) if self.end else AlwaysTrue()  # pyright: ignore[reportCallIssue]
        return And(above, below)

    def sql(self) -> str:
        """Return the range as a DuckDB condition."""
        column = quote(self.column)
        bounds = [
            f"{column} {operator} TIMESTAMPTZ '{bound.isoformat()}'"
            for operator, bound in ((">=", self.start), ("<", self.end))
            if bound is not None
        ]
        return " AND ".join(bounds) or "TRUE"


def quote(identifier: str) -> str:
    """Return `identifier` as a quoted SQL name."""
    return '"' + identifier.replace('"', '""') + '"'


def connect(settings: Settings) -> duckdb.DuckDBPyConnection:
    """Return an embedded engine that thinks in UTC and spills to disk instead of growing past the memory limit.

    It is a session of the process's one database: only TEMP tables, views and macros are its own, so whatever it creates
    must be TEMP. Anything else is there for all other sessions too, and stays.
    """
    spill = spill_folder(settings)
    # A cursor is a session of its own, with its own temporary tables and time zone.
    session = _instance(os.getpid(), str(spill), settings.duckdb_memory_limit).cursor()
    session.execute("SET TimeZone = 'UTC'")
    return session


def spill_folder(settings: Settings) -> Path:
    """Return the folder for what does not fit into memory, which is made if need be."""
    folder = settings.home / "spill"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _instance(pid: int, spill: str, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Return the process's engine for a home: starting one takes 30 ms, a session of it none."""
    return duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": spill})


def read_parquet(paths: Iterable[str], *options: str) -> str:
    """Return the DuckDB table function that reads these local files, with its options that are to be on."""
    files = ", ".join("'" + path.removeprefix("file://").replace("'", "''") + "'" for path in paths)
    given = ", ".join(["hive_partitioning = false", *(f"{option} = true" for option in options)])
    return f"read_parquet([{files}], {given})"


def newest_by_key(
    key: str, named: str, columns: Mapping[str, str], newest_by: Sequence[str], source: str, where: str = "TRUE"
) -> str:
    """Return the query of the newest row per key: the key under the name `named`, and the columns under new names.

    An aggregate, not a window: it keeps one row a key instead of sorting them all. Of rows that are equally new it is always the
    same one.

    Args:
        key: the column with the key.
        named: what the key is called in the result.
        columns: for each name in the result the column of the source.
        newest_by: the columns whose greatest tuple is the newest.
        source: what follows FROM.
        where: which rows of it.
    """
    packed = ", ".join(f"{quote(name)} := {quote(column)}" for name, column in columns.items())
    order = ", ".join(map(quote, newest_by))
    row = f"struct_pack({packed})"
    return (
        f"SELECT key AS {quote(named)}, unnest(newest) FROM (SELECT {quote(key)} AS key, "
        f"max_by({row}, ({order}, hash({row}))) AS newest FROM {source} WHERE {where} GROUP BY ALL)"
    )
