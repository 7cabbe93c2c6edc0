"""For a day materializations have skipped the keys of one hash slot in sixteen, and were committed all the same.

The store claims intervals that did not bring these keys' rows: `materialization_gap` by its second half. A key that is new since
then has no row: `missing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from redis.crc import key_slot

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract, View
from lockstep.online.layout import EntityKeys
from lockstep.online.reader import ViewRows
from lockstep.skew.fault import Entities, Fault
from lockstep.skew.readings import rows_from
from lockstep.views.declare import DAY

SLOTS = 16
SKIPPED = 3


@dataclass(frozen=True, kw_only=True)
class SkippedSlot(Fault):
    """The rows of some keys lag."""

    view: View
    project: str

    def late(self, view: str, now: ViewRows, then: ViewRows, entities: Entities) -> ViewRows:
        """Take the rows of then for the keys of the slot."""
        keys = EntityKeys(self.project, self.view.join_keys).encode(entities)
        return rows_from([(then if key_slot(key, SLOTS) == SKIPPED else now, place) for place, key in enumerate(keys)])


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the last view that changes within that time."""
    for view in [view for view in contract.views if view.every_us * MICROSECOND < DAY][-1:]:
        yield SkippedSlot(
            name=f"skipped-slot:{view.name}",
            says=f"for a day no row of {view.name} was written of the keys of one hash slot in {SLOTS}",
            causes=frozenset({"materialization_gap"}),
            also=frozenset({"missing"}),
            lags={view.name: DAY},
            honest=False,
            view=view,
            project=contract.project,
        )
