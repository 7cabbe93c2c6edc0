"""A value comes in another unit: a hundred times as much, as with cents for euros or percent for shares."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.contract import FeatureContract, View
from lockstep.online.layout import field_of
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.skew.fault import Fault, StoredRow
from lockstep.skew.stored import with_values
from lockstep.skew.windows import unit_columns
from lockstep.views.declare import DataType

FACTOR = 100


@dataclass(frozen=True, kw_only=True)
class StoredUnit(Fault):
    """What is written to the store is in another unit than the lake's rows."""

    view: str

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Multiply the last measure."""
        if view.name != self.view:
            return row
        columns: dict[bytes, DataType] = {field_of(view.name, c.name): c.dtype for c in unit_columns(view)}
        return with_values(row, columns, lambda value: value * FACTOR)


@dataclass(frozen=True, kw_only=True)
class SentUnit(Fault):
    """The caller sends an input in another unit."""

    column: str

    def sent(self, contract: FeatureContract, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Multiply the input."""
        return {**inputs, self.column: inputs[self.column] * FACTOR}


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield one for each view, and one for the first number that a request brings."""
    for view in contract.views:
        if any(column.dtype in {"int64", "float64"} for column in unit_columns(view)):
            named = ", ".join(column.name for column in unit_columns(view))
            yield StoredUnit(
                name=f"cents:{view.name}",
                says=f"{named} a hundredfold in the store",
                causes=frozenset({"type", "corruption"}),
                view=view.name,
            )
    numbers = [c for c in contract.request_inputs if c.dtype in {"int64", "float64"} and c.name != REQUEST_TIME_US]
    for column in numbers[:1]:
        yield SentUnit(
            name="cents-sent",
            says=f"callers send {column.name} a hundredfold",
            unseen="training has no other source for what a caller sends: a matter for monitoring of drift",
            column=column.name,
        )
