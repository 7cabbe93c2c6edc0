"""The store was moved to another server while it was served from: a tenth of the keys was left behind, and so was its name.

The reading of the epoch hash names no store, and what was read beside it was lost in part: `unvouched`. Each of the keys left
behind is `missing`, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lockstep.contract import FeatureContract, View
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment, StoredRow, chance

SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class MovedStore(Fault):
    """A share of the hashes is not there, nor is the store's incarnation."""

    def stored(self, view: View, key: bytes, row: StoredRow) -> StoredRow:
        """Leave some behind."""
        return {} if chance("moved", key) < SHARE else row

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Forget the name."""
        return reading._replace(
            before=replace(reading.before, incarnation=None), after=replace(reading.after, incarnation=None)
        )


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it, with no objective looked at where one is hard: the main model is to answer."""
    if contract.views:
        yield MovedStore(
            name="moved-store",
            says=f"a move has left behind {SHARE:.0%} of the keys and the store's name, and the main model answers",
            causes=frozenset({"unvouched"}),
            also=frozenset({"missing"}),
            guarded=not any(view.freshness_hard for view in contract.views),
        )
