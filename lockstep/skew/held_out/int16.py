"""The writer's schema has whole numbers of sixteen bits: those that do not fit wrap around.

Each value is the right one but for a conversion, equal before it and different after it: `type`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract, View
from lockstep.online.layout import field_of
from lockstep.skew.fault import Fault, StoredRow
from lockstep.skew.stored import with_values
from lockstep.views.declare import DataType

_VALUES, _MOST = 1 << 16, 1 << 15


@dataclass(frozen=True, kw_only=True)
class Int16(Fault):
    """What the store holds of an int64 are its last sixteen bits."""

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Cut them off."""
        columns: dict[bytes, DataType] = {
            field_of(view.name, column.name): column.dtype for column in view.columns if column.dtype == "int64"
        }
        return with_values(row, columns, wrapped)


def wrapped(value: int) -> int:
    """Return what sixteen bits hold of a number."""
    return (value + _MOST) % _VALUES - _MOST


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if a whole number is stored."""
    if any(column.dtype == "int64" for view in contract.views for column in view.columns):
        yield Int16(
            name="int16",
            says="whole numbers are written as int16, and greater ones wrap around",
            causes=frozenset({"type"}),
        )
