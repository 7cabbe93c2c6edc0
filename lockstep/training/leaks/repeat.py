"""A training set read again at the same cut: the same rows, or it is not what a model can be reproduced from."""

import pyarrow as pa

from lockstep.training.leaks.alarm import Alarm
from lockstep.training.spine import table_digest


def not_repeatable(there: pa.Table, again: pa.Table) -> list[Alarm]:
    """Return an alarm if two retrievals of one training set differ, naming the columns that do.

    Args:
        there: the rows of the set.
        again: the same, retrieved again, in the same order.
    """
    if table_digest(there) == table_digest(again):
        return []
    if there.column_names != again.column_names:
        differing = sorted(set(there.column_names) ^ set(again.column_names)) or ["order"]
    elif there.num_rows != again.num_rows:
        differing = ["rows"]
    else:
        names = there.column_names
        differing = [n for n in names if table_digest(there.select([n])) != table_digest(again.select([n]))]
    evidence = (
        f"retrieved again at the same cut, {', '.join(differing)} differ: {there.num_rows} rows hash to "
        f"{table_digest(there)[:12]}, then {again.num_rows} to {table_digest(again)[:12]}"
    )
    return [Alarm("not_repeatable", ", ".join(differing), evidence)]
