"""One pod of two still has an old mapping of the fields of a view, in which columns of a type are each other's.

The other views are read right. What is served is what another column holds, of the right key at the right time: `wrong_row`. It
is no `version_mix`, for the vector has the contract's features in the contract's order.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract, View
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment


@dataclass(frozen=True, kw_only=True)
class OldMapping(Fault):
    """Half of the requests have each column of a view from the field of the one before it, of those of its type."""

    view: View

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Move the columns on by one."""
        if moment.draw.random() >= 0.5:
            return reading
        rows = reading.views[self.view.name]
        values = {column: rows.values[source] for column, source in sources(self.view).items()}
        return reading._replace(views={**reading.views, self.view.name: rows._replace(values=values)})


def sources(view: View) -> dict[str, str]:
    """Return for each column the one whose field it is read from."""
    by_type: defaultdict[str, list[str]] = defaultdict(list)
    for column in view.columns:
        by_type[column.dtype].append(column.name)
    before = {name: names[place - 1] for names in by_type.values() for place, name in enumerate(names)}
    return {column.name: before[column.name] for column in view.columns}


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the first view that has two columns of one type."""
    several = [view for view in contract.views if any(name != source for name, source in sources(view).items())]
    for view in several[:1]:
        yield OldMapping(
            name=f"old-mapping:{view.name}",
            says=f"half of the requests have the columns of {view.name} by an old mapping of fields",
            causes=frozenset({"wrong_row"}),
            view=view,
        )
