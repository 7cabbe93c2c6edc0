"""The store was restored from a backup of twelve hours ago, and its epoch hash from one of now.

Rows are older than those that the intervals brought that the store claims to have: `materialization_gap` by its second half. A
key that is new since the backup has none: `missing`.
"""

from collections.abc import Iterator
from datetime import timedelta

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract
from lockstep.skew.fault import Fault

AGE = timedelta(hours=12)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it if a view changes within that time."""
    if any(view.every_us * MICROSECOND < AGE for view in contract.views):
        yield Fault(
            name="restored-backup-12h",
            says="the store's rows are those of a backup of 12 h ago, its epoch hash is the current one",
            causes=frozenset({"materialization_gap"}),
            also=frozenset({"missing"}),
            lags={view.name: AGE for view in contract.views},
            honest=False,
        )
