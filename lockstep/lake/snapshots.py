"""An Iceberg snapshot as Lockstep sees it: ordered by sequence number, never by its timestamp."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyiceberg.table.snapshots as iceberg

COMPUTE_ID = "lockstep.compute-id"
TICK = "lockstep.tick"
DEFINITION = "lockstep.definition"
QUARANTINED = "lockstep.quarantined"
ERASURE = "lockstep.erasure"
OURS = "lockstep."
"""What the names of all properties that Lockstep gives a snapshot begin with."""

NO_SNAPSHOT = -1
"""Where a snapshot's id is asked for: the table as it was before its first one."""


@dataclass(frozen=True)
class Snapshot:
    """One committed state of a table.

    Attributes:
        id: Iceberg's snapshot id (random, not ordered).
        sequence: Iceberg's sequence number; later commits have greater ones.
        operation: append, replace, overwrite or delete.
        properties: what the writer put into the snapshot's summary.
    """

    id: int
    sequence: int
    operation: str
    properties: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, snapshot: iceberg.Snapshot) -> "Snapshot":
        """Read PyIceberg's own form."""
        summary = snapshot.summary
        return cls(
            id=snapshot.snapshot_id,
            sequence=snapshot.sequence_number or 0,
            operation=summary.operation.value if summary else "append",
            properties=dict(summary.additional_properties) if summary else {},
        )

    @property
    def tick(self) -> int | None:
        """The watermark: the last tick (microseconds since the epoch) this snapshot's writer had computed, if it said so."""
        text = self.properties.get(TICK)
        return int(text) if text is not None else None
