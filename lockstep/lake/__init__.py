"""Iceberg tables: open, append, snapshots, and reading just the files that are needed."""

from lockstep.lake.catalog import Lake
from lockstep.lake.snapshots import Snapshot

__all__ = ["Lake", "Snapshot"]
