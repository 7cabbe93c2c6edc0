"""A table's column has got another name or another type since the model was trained."""

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.types import StringType

from lockstep.contract import Column, FeatureContract, View
from lockstep.lake import Lake
from lockstep.online.layout import field_of
from lockstep.online.values import decode_value
from lockstep.skew.fault import Fault, StoredRow
from lockstep.skew.stored import encoded


@dataclass(frozen=True, kw_only=True)
class Renamed(Fault):
    """The pipeline writes a column under another name, to the table and to the store."""

    view: View
    column: Column

    @property
    def renamed(self) -> str:
        """The new name."""
        return f"{self.column.name}_v2"

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Move the value to the other name's field."""
        if view.name != self.view.name:
            return row
        names = {field_of(view.name, self.column.name): field_of(view.name, self.renamed)}
        return {names.get(field, field): data for field, data in row.items()}

    def afterwards(self, lake: Lake, contract: FeatureContract, since_us: int, until_us: int) -> None:
        """Rename the table's column."""
        with lake.table(self.view.table).update_schema() as change:
            change.rename_column(self.column.name, self.renamed)


@dataclass(frozen=True, kw_only=True)
class Retyped(Fault):
    """The pipeline writes a column as text, to the table and to the store."""

    view: View
    column: Column

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Store the number as a text."""
        if view.name != self.view.name:
            return row
        field = field_of(view.name, self.column.name)
        value = decode_value(row.get(field), self.column.dtype)
        return row if value is None else {**row, field: encoded(str(value), "string")}

    def afterwards(self, lake: Lake, contract: FeatureContract, since_us: int, until_us: int) -> None:
        """Put a text in the column's place."""
        with lake.table(self.view.table).update_schema(allow_incompatible_changes=True) as change:
            change.delete_column(self.column.name)
        with lake.table(self.view.table).update_schema() as change:
            change.add_column(self.column.name, StringType())


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both for the last column of the last view."""
    for view in contract.views[-1:]:
        column = view.columns[-1]
        yield Renamed(
            name="renamed-column",
            says=f"{column.name} of {view.name} is written as {column.name}_v2",
            causes=frozenset({"schema_drift"}),
            view=view,
            column=column,
        )
        yield Retyped(
            name="retyped-column",
            says=f"{column.name} of {view.name} is written as text",
            causes=frozenset({"schema_drift"}),
            view=view,
            column=column,
        )
