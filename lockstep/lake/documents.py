"""Documents that are kept in a table of the lake, each named by the hash of what it says and never changed."""

from lockstep.lake.catalog import Lake
from lockstep.lake.engine import connect, quote
from lockstep.settings import Settings


def find_document(settings: Settings, lake: Lake, table: str, column: str, name: str) -> str | None:
    """Return the `json` of the row that has `name` in `column`; None where there is none, or no such table."""
    if not lake.exists(table):
        return None
    with connect(settings) as connection:
        lake.register(connection, "documents", table, columns=[column, "json"])
        found: list[tuple[str]] = connection.execute(
            f"SELECT json FROM documents WHERE {quote(column)} = ? LIMIT 1",
            [name],
        ).fetchall()
    return found[0][0] if found else None
