"""A lake, a ledger and a served log of one latest view, with what a transformer logs of rows that were read from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression

from feature_repo.definitions import use_case as fraud
from lockstep.clock import parse_time, to_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, Reach, Scope
from lockstep.offline.registry import apply_definitions
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.reader import Reading, Status, ViewRows
from lockstep.parity.signature import make_keys
from lockstep.serving.drain import arrow_rows
from lockstep.serving.features import Function
from lockstep.serving.log_rows import PARTITION_BY, ROW_FIELD, SCHEMA, SERVED_LOG, UNIFORM, Served, encode_rows
from lockstep.serving.request import Request
from lockstep.serving.vectors import flags_of, vectors_of
from lockstep.settings import Settings
from lockstep.views import FeatureService, UseCase, default, reject
from lockstep.views.declare import DAY

PROFILE = fraud.view("customer_profile")
FEATURES = (PROFILE, "home_x"), (PROFILE, "home_y"), (PROFILE, "card_issued_day")
SERVICES = {
    "defaults": {"home_x": default(0.0), "home_y": default(7.0), "card_issued_day": default(-1.0)},
    "rejects": {"home_x": default(0.0), "home_y": default(7.0), "card_issued_day": reject()},
}
# One view alone: Feast takes its time for each.
USE_CASE = replace(
    fraud,
    views=(PROFILE,),
    on_demand=(),
    services=tuple(FeatureService(name, FEATURES, "o", policy=of) for name, of in SERVICES.items()),
)
TICK = parse_time("2018-05-01T00:00:00Z")
NOON = TICK + DAY / 2
# Neither takes a null; it raises on NaN.
MODEL = LogisticRegression().fit(np.eye(4, 3), [0, 1, 0, 1])
FALLBACK_MODEL = LogisticRegression().fit(np.eye(4, 3), [1, 1, 0, 0])
NO_FUNCTIONS: Mapping[str, Function] = {}
NOTHING: Mapping[str, Any] = dict.fromkeys(PROFILE.features)


def score_of(model: LogisticRegression, vector: Sequence[float]) -> float:
    return float(model.predict_proba([list(vector)])[0, 1])


def tick_of(number: int) -> datetime:
    """The time of a tick, which also is when its snapshot came; the first one is number 1."""
    return TICK + DAY * (number - 1)


def created_of(number: int) -> datetime:
    return tick_of(number) + PROFILE.compute_lag


@dataclass(frozen=True)
class Read:
    """What the store answered for a customer; the lake's own row, unless values are given, and the model's score.

    Attributes:
        rejected: for want of what the row has no score.
    """

    customer: int
    status: Status = "present"
    at: datetime = NOON
    values: Mapping[str, Any] | None = None
    score: float | None = None
    tick: int = 1
    rejected: str | None = None


@dataclass(frozen=True)
class World:
    """Attributes:
    stored: what the lake holds of each customer, the same at each tick.
    """

    settings: Settings
    lake: Lake
    ledger: Ledger
    stored: Mapping[int, Mapping[str, Any]]

    def bring(self, number: int) -> None:
        """Compute a tick of the view, and note that it came online."""
        tick, created = tick_of(number), created_of(number)
        times = {"event_timestamp": tick, "created_timestamp": created}
        rows = [{"customer_id": customer, **values, **times} for customer, values in self.stored.items()]
        computed = self.ledger.plan_compute(PROFILE.name, Mode.LIVE, tick - DAY, tick, {}, tick)
        snapshot = self.lake.append(PROFILE.table, pa.Table.from_pylist(rows, PROFILE.schema))
        self.ledger.commit_compute(computed, snapshot.id, len(rows), created)
        reach = Reach("t", snapshot.sequence, snapshot.id, tick)
        planned = self.ledger.plan_materialize(
            PROFILE.name, Mode.INTERVAL, snapshot.sequence - 1, reach, created, newest=number - 1
        )
        assert planned is not None
        writing = self.ledger.start_writing(planned, "run", writes_from=0, writes_after_id=None, scope=Scope.WHOLE)
        assert writing is not None
        assert self.ledger.verify(writing, len(rows), 0, "d")
        assert self.ledger.commit_materialize(writing, created + timedelta(seconds=1))

    def epochs(self, number: int) -> Epochs:
        snapshot = self.lake.snapshots(PROFILE.table)[number - 1]
        mark = Mark(number, snapshot.id, snapshot.sequence, to_micros(tick_of(number)))
        return Epochs("i", {PROFILE.name: ViewEpoch(committed=mark)})

    def log(
        self,
        contract: FeatureContract,
        digest: str,
        reads: Sequence[Read],
        first: int = 1,
        model: LogisticRegression = MODEL,
        functions: Mapping[str, Function] = NO_FUNCTIONS,
    ) -> None:
        """Put what a transformer would log into the lake; the vectors are made by these on-demand functions."""
        epochs = {tick: self.epochs(tick) for tick in {it.tick for it in reads}}
        rows = [
            (b"%d" % n, {ROW_FIELD: self._encoded(contract, digest, n, it, model, epochs[it.tick], functions)})
            for n, it in enumerate(reads, first)
        ]
        self.lake.append(SERVED_LOG, arrow_rows(rows))

    def _encoded(
        self,
        contract: FeatureContract,
        digest: str,
        number: int,
        it: Read,
        model: LogisticRegression,
        epochs: Epochs,
        functions: Mapping[str, Function],
    ) -> bytes:
        values = it.values or (NOTHING if it.status == "missing" else self.stored[it.customer])
        event, created = (
            (None, None) if it.status == "missing" else (to_micros(tick_of(it.tick)), to_micros(created_of(it.tick)))
        )
        columns = {column.name: [values[column.name]] for column in contract.views[0].columns}
        views = {PROFILE.name: ViewRows([it.status], [event], [created], columns)}
        request = Request("r", [to_micros(it.at)], {"customer_id": [it.customer]}, [{"amount_cents": 1250}])
        reading = Reading(epochs, epochs, views)
        vectors = vectors_of(contract, functions, request, reading).vectors
        served = Served(
            request=request,
            read_time_us=to_micros(it.at),
            reading=reading,
            vectors=vectors,
            scores=[_score(it, model, vectors[0])],
            flags=flags_of(views, 1),
            contract=contract.hash,
            shadow=True,
            rejected={0: it.rejected} if it.rejected else {},
        )
        return next(encode_rows(served, [(0, UNIFORM)], digest, f"process of {digest}", number))


def _score(it: Read, model: LogisticRegression, vector: Sequence[float]) -> float | None:
    if it.rejected:
        return None
    return score_of(model, vector) if it.score is None else it.score


def open_world(
    home: Path, now: datetime, stored: Mapping[int, Mapping[str, Any]], use_case: UseCase, **settings: Any
) -> World:
    """Open a home with a view of which nothing is computed, an empty served log and keys to sign with."""
    opened = Settings(home=home, clock_file=home / "clock", **settings).resolved()
    opened.clock.advance_to(now)
    make_keys(opened)
    lake, ledger = Lake.open(opened, fraud.project), Ledger.open(opened, fraud.project)
    lake.ensure_table(PROFILE.table, PROFILE.schema)
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    apply_definitions(opened, use_case)
    ledger.adopt_incarnation("i", TICK)
    return World(opened, lake, ledger, stored)
