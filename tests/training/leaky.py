"""A use case of its own, as far as an on-demand function goes: features that hand on what the spine's SQL made."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lockstep.views import FeatureService, OnDemandView

TERMINAL = "OVER (PARTITION BY terminal_id ORDER BY tx_datetime RANGE BETWEEN {} AND {})"
LEAKS = {
    "label_without_delay": f"avg(tx_fraud) {TERMINAL.format('INTERVAL 2 DAYS PRECEDING', 'INTERVAL 1 SECOND PRECEDING')}",
    "future_window": f"count(*) {TERMINAL.format('INTERVAL 1 SECOND FOLLOWING', 'INTERVAL 1 DAY FOLLOWING')}",
    "current_row": f"sum(amount_cents) {TERMINAL.format('INTERVAL 9 DAYS PRECEDING', 'CURRENT ROW')}",
    "whole_history_rate": "avg(tx_fraud) OVER (PARTITION BY terminal_id)",
}
SPINE = f"""
    SELECT customer_id, terminal_id, tx_datetime AS event_timestamp, tx_fraud, tx_fraud_scenario, labelled_at,
        {", ".join(f"coalesce({name}::DOUBLE, 0) AS {name}_in" for name in LEAKS)}
    FROM (
        SELECT *, {", ".join(f"{sql} AS {name}" for name, sql in LEAKS.items())}
        FROM transactions JOIN labels USING (transaction_id, tx_datetime, customer_id, terminal_id)
    )
    WHERE tx_datetime >= $start AND tx_datetime < $end AND labelled_at <= $known_at
"""


def as_given(columns: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
    """Return the inputs as they are."""
    return {name: columns[f"{name}_in"].astype(np.float64) for name in LEAKS}


GIVEN = OnDemandView(
    name="given",
    function=as_given,
    inputs={f"{name}_in": "float64" for name in LEAKS},
    reads=(),
    outputs=dict.fromkeys(LEAKS, "float64"),
    owner="me",
)
SERVICE = FeatureService(name="leaky", features=tuple((GIVEN, name) for name in LEAKS), owner="me")
