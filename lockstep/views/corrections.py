"""Which rows correct what a view's table answers at ticks that are computed already.

A table's answers change only where it has a row, a view's values only where its query says so. So both are looked at where
either has a row: between two such ticks nothing happens, and whatever the table answers at one of them is right up to the next.
Seen in order, the answer just before such a tick is already the corrected one; at the first tick of the range it is the
table's own.
"""
# ibis gives a column its kind (integer, string) at run time only, so arithmetic on columns cannot be checked before.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from lockstep.views.declare import DataType, StoredView
from lockstep.views.ticks import KEY, TICK, answered_table, span, written_table

NEEDED_SINCE = "needed_since"
"""The column that names the tick from which on some row must say so, however old the value: a heartbeat, the first of a life."""


def touched(view: StoredView, columns: Mapping[str, DataType]) -> ir.Table:
    """Return the keys and ticks at which the table's own answers begin to count: its rows in the range, and the first tick."""
    first, _ = span()
    written, answered = written_table(view, columns), answered_table(view, {TICK: "int64", **columns})
    at_first = answered.select(KEY, **{TICK: ibis.greatest(answered[TICK], first)})
    return ibis.union(written.select(KEY, TICK), at_first, distinct=True)


def last_beat(phase: ir.Value, period: int) -> ir.Value:
    """Return a key's last heartbeat at or before the range's first tick."""
    first, _ = span()
    return first - ((first - phase) % period + period) % period


def corrections(
    view: StoredView, states: ir.Table, columns: Mapping[str, DataType], empty: Mapping[str, ir.Value]
) -> ir.Table:
    """Return the states that are to be written.

    Args:
        view: whose they are.
        states: one row a key and tick that is looked at: key, tick, `needed_since` (null: no row is needed) and the columns.
        columns: what is compared, with the types.
        empty: for each column what it is where nobody has to have a row; then no row says the same.
    """
    first, _ = span()
    by_tick = ibis.window(group_by=KEY, order_by=TICK)
    states = states.mutate(
        **{f"{c}_before": states[c].lag().over(by_tick) for c in columns},
        is_first=ibis.row_number().over(by_tick) == 0,
    )
    written = written_table(view, columns).rename({"written_key": KEY, "written_tick": TICK})
    written = written.rename({f"{c}_written": c for c in columns})
    answered = answered_table(view, {TICK: "int64", **columns}).rename({"answered_key": KEY, "answered_tick": TICK})
    answered = answered.rename({f"{c}_answered": c for c in columns})
    joined = states.left_join(
        written, [states[KEY] == written["written_key"], states[TICK] == written["written_tick"]]
    )
    joined = joined.left_join(answered, joined[KEY] == answered["answered_key"])

    def before(column: str) -> ir.Value:
        started = ibis.ifelse(joined["answered_key"].isnull(), empty[column], joined[f"{column}_answered"])
        return ibis.ifelse(joined["is_first"], started, joined[f"{column}_before"])

    differs = [
        ~joined[c].identical_to(ibis.ifelse(joined["written_key"].isnull(), before(c), joined[f"{c}_written"]))
        for c in columns
    ]
    at_first = ibis.ifelse(joined[TICK] == first, joined["answered_tick"], ibis.null("int64"))
    row_at = ibis.coalesce(joined["written_tick"], at_first)
    missing = ibis.and_(
        joined[NEEDED_SINCE].notnull(), ibis.or_(row_at.isnull(), row_at < joined[NEEDED_SINCE]).fill_null(True)
    )
    return joined.filter(ibis.or_(missing, *differs)).select(KEY, TICK, *columns)
