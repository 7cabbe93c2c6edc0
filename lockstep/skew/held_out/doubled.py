"""One value in fifty is in the store twice as great, as by a writer that adds and was tried again.

It is a matter of the key and the column, so no conversion explains it, and no row with that value was ever written: `corruption`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract, View
from lockstep.online.layout import field_of
from lockstep.skew.fault import Fault, StoredRow, chance
from lockstep.skew.stored import with_values
from lockstep.views.declare import DataType

SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Doubled(Fault):
    """A share of the numbers in the store is doubled, always the same ones."""

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Double some."""
        columns: dict[bytes, DataType] = {
            field_of(view.name, column.name): column.dtype
            for column in view.columns
            if column.dtype in {"int64", "float64"} and chance("doubled", key, view.name, column.name) < SHARE
        }
        return with_values(row, columns, lambda value: value * 2)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, if anything is stored."""
    if contract.views:
        yield Doubled(
            name="doubled-2pct",
            says=f"{SHARE:.0%} of the numbers in the store are twice what they should be",
            causes=frozenset({"corruption"}),
        )
