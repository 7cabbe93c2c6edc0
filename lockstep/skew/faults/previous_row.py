"""A row gets what was read for the row before it, as from a buffer that is used again."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment
from lockstep.skew.readings import take_rows

SHARES = {"": 1.0, "-5pct": 0.05}


@dataclass(frozen=True, kw_only=True)
class PreviousRow(Fault):
    """A share of the rows has the values of the row before; a request's first row, those of the last request's last one."""

    share: float

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Put the rows before in place of some."""
        rows = len(next(iter(reading.views.values())).status) if reading.views else 0
        wrong = moment.draw.random(rows) < self.share
        earlier = moment.previous or reading
        order = np.where(wrong, np.arange(rows) - 1, np.arange(rows)).tolist()
        return take_rows(reading, earlier, order)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for all rows and for a few, if there is anything to read."""
    if contract.views:
        for label, share in SHARES.items():
            yield PreviousRow(
                name=f"previous-row{label}",
                says=f"{share:.0%} of the rows get what was read for the row before",
                causes=frozenset({"wrong_row"}),
                share=share,
            )
