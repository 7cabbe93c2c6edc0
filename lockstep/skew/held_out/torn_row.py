"""A row is written without one of its columns, which keeps what it held a day ago.

The other columns and both times are the newest row's. Such a combination was never written as a row: `corruption`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lockstep.contract import FeatureContract
from lockstep.online.reader import ViewRows
from lockstep.skew.fault import Entities, Fault
from lockstep.views.declare import DAY


@dataclass(frozen=True, kw_only=True)
class TornRow(Fault):
    """One column lags, and the rest of the row does not."""

    column: str

    def late(self, view: str, now: ViewRows, then: ViewRows, entities: Entities) -> ViewRows:
        """Take the column's values of then, where there was a row."""
        pairs = zip(now.values[self.column], then.values[self.column], then.event_us, strict=True)
        values = [new if event is None else old for new, old, event in pairs]
        return now._replace(values={**now.values, self.column: values})


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for the first column of the first view that has several."""
    for view in [view for view in contract.views if len(view.columns) > 1][:1]:
        column = view.columns[0].name
        yield TornRow(
            name=f"torn-row:{view.name}",
            says=f"{column} of {view.name} has not been written for a day, the other columns of its rows have",
            causes=frozenset({"corruption"}),
            lags={view.name: DAY},
            honest=False,
            column=column,
        )
