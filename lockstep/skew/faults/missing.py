"""A view's rows are missing from the store, of some keys or of all."""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract, View
from lockstep.online.layout import fields_of
from lockstep.skew.fault import Fault, StoredRow, chance

SHARES = {"5pct": 0.05, "20pct": 0.20, "100pct": 1.0}


@dataclass(frozen=True, kw_only=True)
class Missing(Fault):
    """A share of the keys has no row of a view."""

    view: str
    share: float

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Take away the view's fields."""
        if view.name != self.view or chance("missing", key) >= self.share:
            return row
        gone = set(fields_of(view))
        return {field: data for field, data in row.items() if field not in gone}


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield one for each view and share."""
    for view in contract.views:
        for label, share in SHARES.items():
            yield Missing(
                name=f"missing-{label}:{view.name}",
                says=f"{share:.0%} of the keys have no row of {view.name} in the store",
                causes=frozenset({"missing"}),
                view=view.name,
                share=share,
            )
