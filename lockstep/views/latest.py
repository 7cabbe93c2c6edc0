"""The newest attributes of a key, as a slowly changing table tells them: where a customer lives, what a shop sells."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lockstep.errors import UseCaseError, nearest
from lockstep.views.declare import (
    ARROW_TYPES,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    DataType,
    StoredView,
)


@dataclass(frozen=True, kw_only=True)
class LatestView(StoredView):
    """The attributes that a key's newest source row gives, at every tick T.

    The newest of the rows with an event time before T is the one with the greatest event time, and of those the one that
    became known last; should two still be equal, the one with the greater values, column by column, null the least. A null
    attribute is a value. Attributes hold until they are replaced: a key that was seen once lives for ever.

    A NaN is null; timestamps are whole seconds: what Feast's online layout holds.

    Attributes:
        columns: the source's columns and their types, in order; the features have the same names.

    Raises:
        UseCaseError: the declaration contradicts itself.
    """

    kind = "latest"
    columns: Mapping[str, DataType]

    @property
    def features(self) -> dict[str, DataType]:
        """The stored features in order, with their types: the columns."""
        return dict(self.columns)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns themselves."""
        return tuple(self.columns)

    @property
    def rules(self) -> dict[str, Any]:
        """The kind, and which columns."""
        return {"kind": self.kind, "columns": [[name, dtype] for name, dtype in self.columns.items()]}

    @property
    def heartbeat(self) -> int | None:
        """After how many ticks a row is written again although nothing changed; None where rows never expire."""
        return max(1, self.ttl // (2 * self.every)) if self.ttl else None

    @property
    def least_ttl(self) -> timedelta:
        """Two ticks with both lags: the heartbeat follows from the ttl."""
        return 2 * (self.every + self.compute_lag + self.visible_lag)

    def __post_init__(self) -> None:
        """Refuse columns that the table cannot have, besides what every view refuses."""
        super().__post_init__()
        if not self.columns:
            raise UseCaseError(f"view {self.name} needs at least one column")
        # Engines do not tell A from a.
        taken = {name.lower() for name in (self.entity.join_key, EVENT_TIMESTAMP, CREATED_TIMESTAMP)}
        for name, dtype in self.columns.items():
            if name.lower() in taken:
                raise UseCaseError(f"view {self.name}: its table has another column named {name!r}")
            taken.add(name.lower())
            if dtype not in ARROW_TYPES:
                raise UseCaseError(
                    f"view {self.name}: column {name} has the unknown type {dtype!r}", hint=nearest(dtype, ARROW_TYPES)
                )


latest_view = LatestView
"""What definitions call it."""
