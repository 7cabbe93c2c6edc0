"""The transformer keeps what it has read of a key for six hours, and reads the epoch hash anew each time.

So it says that it read what the last interval brought, and serves what an earlier one did: `materialization_gap` by its second
half, an older row than the interval that the store claims brought. That a key has no row is kept as well: `missing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract, View
from lockstep.online.reader import Reading, ViewRows
from lockstep.skew.fault import Fault, Moment
from lockstep.skew.readings import rows_from

KEPT = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class RowCache(Fault):
    """A row that was read less than six hours ago is not read again."""

    views: tuple[View, ...]

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Take what is kept, and keep what is not."""
        return reading._replace(
            views={view.name: _kept(view, reading.views[view.name], moment) for view in self.views}
        )


def _kept(view: View, rows: ViewRows, moment: Moment) -> ViewRows:
    keys = zip(*(moment.entities[key.name] for key in view.join_keys), strict=True)
    taken: list[tuple[ViewRows, int]] = []
    for place, (key, time_us) in enumerate(zip(keys, moment.times_us, strict=True)):
        kept = moment.memory.get((view.name, key))
        if kept is None or time_us - kept[0] >= KEPT // MICROSECOND:
            kept = moment.memory[view.name, key] = (time_us, rows, place)
        taken.append(kept[1:])
    return rows_from(taken)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for all views, if one of them changes within that time."""
    if any(view.every_us * MICROSECOND < KEPT for view in contract.views):
        yield RowCache(
            name="row-cache-6h",
            says="what was read of a key is kept for 6 h by the transformer, and its epoch is not",
            causes=frozenset({"materialization_gap"}),
            also=frozenset({"missing"}),
            views=contract.views,
        )
