"""Why something that was served differs: the names, written before the rules that give them (`explain.py`)."""

import enum


class Cause(enum.StrEnum):
    """Why something differs.

    A cause is its own text, so that the words of a report can be looked up here.

    EARLY: the served row is the one the store had to answer with, but its created time + visible_lag is after the request time.
        Excused.
    LATE: training's row came with an interval newer than the logged epoch's, and the first row that the store lacked was made
        within the freshness objective. Excused.
    ERASED: a receipt of an erasure names the key, and the row was not read after it was done. Excused.
    MATERIALIZATION_GAP: training's row came with a newer interval than the logged one, beyond the objective; or an older row was
        served than the interval that the store claims brought.
    UNVOUCHED: a reading of the epoch hash names no store, so whatever was read beside it may have been lost or moved.
    IN_FLIGHT: the epoch readings differ or say writing, and no allowed snapshot contains the row as newest.
    STALE_REWRITE: the same event time was written again, and the older row was served.
    MISSING: the lake has a row inside its ttl; none was read.
    TTL: a row older than its ttl was used, or one inside it was not.
    SCHEMA_DRIFT: a column, a type or the definition of the table or view is not the contract's, or the store has no such column.
    TYPE: the value is the right one but for a conversion: precision, a unit, null.
    TRANSFORM: the stored parts are equal and what the on-demand function made of them is not, or the function is another one.
    WRONG_ROW: the values are another key's, another view's or another column's.
    CLOCK_SKEW: the clock of the process that served was apart from the ledger's, by one difference for all of its rows.
    VERSION_MIX: the vector follows another version's contract, or another version scored it.
    CORRUPTION: the values match no row ever written.
    UNEXPLAINED: none of these.
    """

    EARLY = "early"
    LATE = "late"
    ERASED = "erased"
    MATERIALIZATION_GAP = "materialization_gap"
    UNVOUCHED = "unvouched"
    IN_FLIGHT = "in_flight"
    STALE_REWRITE = "stale_rewrite"
    MISSING = "missing"
    TTL = "ttl"
    SCHEMA_DRIFT = "schema_drift"
    TYPE = "type"
    TRANSFORM = "transform"
    WRONG_ROW = "wrong_row"
    CLOCK_SKEW = "clock_skew"
    VERSION_MIX = "version_mix"
    CORRUPTION = "corruption"
    UNEXPLAINED = "unexplained"

    @property
    def excused(self) -> bool:
        """Whether a difference of this cause alone makes no mismatch."""
        return self in EXCUSED


EXCUSED = frozenset({Cause.EARLY, Cause.LATE, Cause.ERASED})
