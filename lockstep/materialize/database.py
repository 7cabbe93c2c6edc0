"""The ledger's database: SQLite (embedded) or PostgreSQL, and what its failures mean."""

import getpass
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from lockstep.errors import Terminal, Transient
from lockstep.settings import Settings

METADATA = sa.MetaData()


class Database:
    """Transactions on the ledger.

    Args:
        engine: SQLite or PostgreSQL.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, settings: Settings, *tables: sa.Table) -> "Database":
        """Open the ledger the settings name, and make tables that are absent: these, or all that are declared.

        Raises:
            Transient: it cannot be reached.
        """
        url = settings.ledger_url
        settings.home.mkdir(parents=True, exist_ok=True)
        # A few statements a run do not need a pool, and a server may have closed what waits in one.
        engine = (
            sa.create_engine(url)
            if url.startswith("sqlite")
            # Not the server's own level: what is read in `alone` has to be of after the lock.
            else sa.create_engine(url, poolclass=sa.NullPool, isolation_level="READ COMMITTED")
        )
        database = cls(engine)
        try:
            there = set(sa.inspect(engine).get_table_names())
        except OperationalError as failure:
            raise Transient(
                f"the ledger cannot be opened: {failure.orig}", hint="see ledger_url in settings"
            ) from failure
        if missing := [table for table in tables or METADATA.sorted_tables if table.name not in there]:
            with database.alone("lockstep tables") as connection:
                METADATA.create_all(connection, missing)  # but for those that somebody else has made meanwhile
        return database

    @contextmanager
    def transaction(self) -> Generator[sa.Connection]:
        """Give a connection whose statements take effect together, when the block ends.

        Raises:
            Transient: the ledger cannot be read or written.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as failure:
            raise Transient(
                f"the ledger cannot be read or written: {failure.orig}",
                hint="is its disk full, or its server away? ledger_url in settings says where it is; nothing was noted",
            ) from failure

    @contextmanager
    def alone(self, name: str) -> Generator[sa.Connection]:
        """Give a transaction that nobody else has under this name at the same time.

        Raises:
            Transient: the ledger cannot be read or written, or others do not come to an end with it.
        """
        with self.transaction() as connection:
            if connection.dialect.name == "sqlite":
                # Else the driver begins at the first insert, when others may have read the same rows.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
            yield connection

    def one(self, query: sa.Select[tuple[object, ...]]) -> sa.RowMapping | None:
        """Return the one row there is, or None."""
        with self.transaction() as connection:
            return connection.execute(query).mappings().one_or_none()

    def all(self, query: sa.Select[tuple[object, ...]]) -> list[sa.RowMapping]:
        """Return all rows."""
        with self.transaction() as connection:
            return list(connection.execute(query).mappings())

    def claim(self, table: sa.Table, values: Mapping[str, object]) -> None:
        """Insert a row, or leave the one that a unique index already holds.

        Raises:
            Terminal: another constraint refuses it.
        """
        try:
            with self.transaction() as connection:
                connection.execute(table.insert().values(values))
        except IntegrityError as refused:
            if "unique" not in str(refused.orig).lower():
                raise Terminal(f"the ledger refused a row of {table.name}: {refused.orig}") from refused


def who() -> str:
    """Return who a row says planned it: user, host and process."""
    return f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"
