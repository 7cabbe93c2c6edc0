"""Features are kept by the name of their column alone, and where two views have a column of one name, the later view's wins.

The values are another view's: `wrong_row`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment


@dataclass(frozen=True, kw_only=True)
class NameClash(Fault):
    """A view's columns have another one's values, where that one has any."""

    view: str
    later: str
    columns: tuple[str, ...]

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Take the later view's values."""
        rows, others = reading.views[self.view], reading.views[self.later]
        taken = {
            column: [
                other if other is not None else own
                for own, other in zip(rows.values[column], others.usable(column), strict=True)
            ]
            for column in self.columns
        }
        return reading._replace(views={**reading.views, self.view: rows._replace(values={**rows.values, **taken})})


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the first two views that have a column of one name and type."""
    for place, view in enumerate(contract.views):
        for later in contract.views[place + 1 :]:
            shared = tuple(column.name for column in view.columns if column in later.columns)
            if shared:
                yield NameClash(
                    name=f"name-clash:{view.name}",
                    says=f"{', '.join(shared)} of {view.name} are those of {later.name}, which has columns of that name",
                    causes=frozenset({"wrong_row"}),
                    view=view.name,
                    later=later.name,
                    columns=shared,
                )
                return
