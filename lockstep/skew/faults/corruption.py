"""Bits flip: what the store gives back is what nobody wrote."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lockstep.contract import FeatureContract
from lockstep.online.reader import Reading
from lockstep.skew.fault import Fault, Moment

SHARES = {"0.1pct": 0.001, "5pct": 0.05}
_BIT = 1 << 50  # of a double: its value changes by up to half, and it stays a number
_DOUBLE = struct.Struct("<d")
_WORD = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class Corruption(Fault):
    """In a share of the rows one stored number is another."""

    share: float

    def read(self, reading: Reading, moment: Moment) -> Reading:
        """Flip a bit of one number in some rows."""
        views = dict(reading.views)
        names = sorted((view, column) for view, rows in views.items() for column in rows.values)
        rows = len(next(iter(views.values())).status) if names else 0
        hit = [
            (row, int(moment.draw.integers(len(names)))) for row in range(rows) if moment.draw.random() < self.share
        ]
        for row, place in hit:
            view, column = names[place]
            values = list(views[view].values[column])
            values[row] = flipped(values[row])
            views[view] = views[view]._replace(values={**views[view].values, column: values})
        return reading._replace(views=views)


def flipped(value: Any) -> Any:
    """Return a number with one bit flipped, anything else as it is."""
    if type(value) is int:
        return value ^ 64
    if type(value) is float:
        (word,) = _WORD.unpack(_DOUBLE.pack(value))
        return _DOUBLE.unpack(_WORD.pack(word ^ _BIT))[0]
    return value


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield it for few rows and for some."""
    if contract.views:
        for label, share in SHARES.items():
            yield Corruption(
                name=f"corruption-{label}",
                says=f"in {share:.1%} of the rows a bit of one stored number has flipped",
                causes=frozenset({"corruption"}),
                share=share,
            )
