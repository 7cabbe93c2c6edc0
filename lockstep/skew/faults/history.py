"""History is rewritten once it was served: rows of the past get other values, and a created time in the past.

So it goes with labels that come late and are filed as if they had been known. What was served is what it would have been; what a
training set contains from now on is not what any model could have been served.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from lockstep.contract import FeatureContract, View
from lockstep.lake import Lake
from lockstep.skew.fault import Fault, chance
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP

SHARES = {"5pct": 0.05, "100pct": 1.0}


@dataclass(frozen=True, kw_only=True)
class Rewritten(Fault):
    """Of a share of the keys, each row of the days served gets a newer one with other values."""

    view: View
    share: float

    def afterwards(self, lake: Lake, contract: FeatureContract, since_us: int, until_us: int) -> None:
        """Append the rows anew: each number one greater, created a microsecond later."""
        rows = lake.table(self.view.table).scan().to_arrow()
        events = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
        rows = rows.filter(pa.array((events >= since_us) & (events < until_us)))
        keys = zip(*(rows[key.name].to_pylist() for key in self.view.join_keys), strict=True)
        rows = rows.filter(pa.array([chance("rewritten", key) < self.share for key in keys], pa.bool_()))
        created = pa.array(rows[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy() + 1).cast(ARROW_TYPES["timestamp"])
        rows = rows.set_column(rows.column_names.index(CREATED_TIMESTAMP), CREATED_TIMESTAMP, created)
        for column in self.view.columns:
            if column.dtype in {"int64", "float64"}:
                more = [None if value is None else value + 1 for value in rows[column.name].to_pylist()]
                place = rows.column_names.index(column.name)
                rows = rows.set_column(place, column.name, pa.array(more, ARROW_TYPES[column.dtype]))
        lake.append(self.view.table, rows)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both shares for the last view."""
    for view in contract.views[-1:]:
        for label, share in SHARES.items():
            yield Rewritten(
                name=f"rewritten-{label}:{view.name}",
                says=f"of {share:.0%} of the keys the week's rows of {view.name} are written anew, back-dated",
                causes=frozenset({"stale_rewrite", "materialization_gap"}),
                view=view,
                share=share,
            )
