"""Documents that are kept in a table of the lake, each named by the hash of what it says and never changed."""

from typing import Protocol, Self, TypeVar

from lockstep.errors import BadInput
from lockstep.lake.catalog import Lake
from lockstep.lake.engine import connect, quote
from lockstep.settings import Settings


class Document(Protocol):
    """What is kept: a pydantic model that hashes its canonical JSON."""

    @property
    def hash(self) -> str:
        """Its name."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self:
        """Read it."""
        ...


_Kept = TypeVar("_Kept", bound=Document)


def load_document(
    settings: Settings, lake: Lake, table: str, column: str, name: str, kind: type[_Kept], *, what: str, hint: str
) -> _Kept:
    """Read a document and check that it is what its name says.

    Args:
        settings: name the engine's memory.
        lake: has the table.
        table: the one that the documents are in.
        column: which of its columns has the names.
        name: the document's.
        kind: what it is read as.
        what: what to call it in an error.
        hint: how one comes by one.

    Raises:
        BadInput: there is none of that name, or it was changed since.
    """
    found = find_document(settings, lake, table, column, name)
    if found is None:
        raise BadInput(f"there is no {what} {name!r}", hint=hint)
    try:
        document = kind.model_validate_json(found)
    except ValueError as invalid:
        raise BadInput(f"{what} {name} cannot be read: {invalid}") from invalid
    require_name(document, name, what)
    return document


def require_name(document: Document, name: str, what: str) -> None:
    """Refuse a document that says something else than what its name was made of.

    Raises:
        BadInput: it does.
    """
    if document.hash != name:
        raise BadInput(f"{what} {name} was changed after it was made: its content hashes to {document.hash}")


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
