"""Hold the log against the feature tables as one would in a notebook: what training would contain, by pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from benchmarks._parity.case import Case, settings_of
from benchmarks._parity.definitions import service, use_case
from benchmarks._parity.on_demand import compare_amount
from benchmarks._process import timed
from lockstep.lake import Lake
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP


def run(case: Case, home: Path) -> dict[str, Any]:
    """Compare the rows, and say how many differ and what it took."""
    lake = Lake.open(settings_of(home), use_case.project)
    differing, took = timed(lambda: _differing(lake, case.rows))
    return {**took, "differing": differing}


def _differing(lake: Lake, rows: int) -> int:
    columns = ("request_time", "entity_keys", "inputs", "vector")
    log = lake.table(SERVED_LOG).scan(selected_fields=columns).to_pandas().sample(n=rows, random_state=0)
    log = log.sort_values("request_time", ignore_index=True)
    asked = pd.DataFrame([orjson.loads(keys) for keys in log["entity_keys"]])
    asked["request_time"] = log["request_time"]
    expected: dict[str, Any] = {}
    for view in use_case.views:
        table = lake.table(view.table).scan().to_pandas()
        # Each row is known equally long after its event, so the one that was known last is the newest.
        table["known"] = table[CREATED_TIMESTAMP] + view.visible_lag
        found = pd.merge_asof(
            asked, table.sort_values("known"), left_on="request_time", right_on="known", by=view.entity.join_key
        )
        old = found["request_time"] - found[EVENT_TIMESTAMP] > view.ttl
        expected |= {name: found[name].astype(float).mask(old).to_numpy() for name in view.features}
    amounts = np.array([orjson.loads(inputs)["amount_cents"] for inputs in log["inputs"]])
    expected |= compare_amount({**expected, "amount_cents": amounts})
    wanted = np.column_stack([expected[name] for _, name in service.features])
    served = np.array(log["vector"].tolist(), dtype=np.float64)
    equal = (served == wanted) | (np.isnan(served) & np.isnan(wanted))
    return int((~equal.all(axis=1)).sum())
