"""A lake, a ledger, a model and a served log that agree, as after a day or two of hourly runs.

Each hour some keys of every view get a new row, an interval brings them online eight minutes past, and requests are answered from
what was online; while an interval is written, some see its rows already. No service ran: the log is made of the lake's rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sklearn
import skops.io
import yaml
from numpy.typing import NDArray

from benchmarks._parity.case import START, USE_CASE, Case, model_folder, settings_of
from benchmarks._parity.definitions import FLOATS, service, use_case
from lockstep.clock import to_micros
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow, Mode, Reach, Scope
from lockstep.offline.registry import apply_definitions
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.reader import Reading, Status, ViewRows
from lockstep.serving.artifact import ESTIMATOR_FILE, contract_metadata, model_digest
from lockstep.serving.drain import arrow_rows
from lockstep.serving.features import load_functions
from lockstep.serving.log_rows import PARTITION_BY, ROW_FIELD, SCHEMA, SERVED_LOG, UNIFORM, Served, encode_rows
from lockstep.serving.request import Request
from lockstep.serving.vectors import flags_of, vectors_of
from lockstep.threads import one_thread
from lockstep.training.contract import compile_contract
from lockstep.views import StoredView
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP

START_US = to_micros(START)
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
WRITING_US, COMMITTED_US = 6 * MINUTE_US, 8 * MINUTE_US
READ_US = 3_000
INCARNATION = "benchmark"
PROCESSES = 4
ROWS_A_REQUEST = 20
REQUESTS_A_PART = 250
CHANGED = 0.1
UNKNOWN = 0.01


@dataclass(frozen=True)
class History:
    """The rows of a view's table, in order of key and hour."""

    view: StoredView
    keys: NDArray[np.int64]
    hours: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, case: Case, view: StoredView, seed: int) -> "History":
        """Make a row of every key in the first hour, and of some in each other one."""
        random = np.random.default_rng(seed)
        changed = random.random((case.keys(view), case.hours)) < CHANGED
        changed[:, 0] = True
        keys, hours = np.nonzero(changed)
        values = {
            name: random.gamma(2.0, 40.0, len(keys)) if n < FLOATS else random.integers(0, 1_000, len(keys))
            for n, name in enumerate(view.features)
        }
        return cls(view, keys, hours, values)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return self.keys * 1_000 + self.hours

    def rows(self, hour: int) -> pa.Table:
        """Return the rows of an hour as the table has them."""
        found = np.flatnonzero(self.hours == hour)
        tick = START + timedelta(hours=hour)
        times = {EVENT_TIMESTAMP: tick, CREATED_TIMESTAMP: tick + self.view.compute_lag}
        columns: dict[str, Any] = {self.view.entity.join_key: self.keys[found]}
        columns |= {name: values[found] for name, values in self.values.items()}
        columns |= {name: [time] * len(found) for name, time in times.items()}
        return pa.table(columns, schema=self.view.schema)

    def read(self, keys: NDArray[np.int64], hours: NDArray[np.int64], times_us: NDArray[np.int64]) -> ViewRows:
        """Return what the store answers for keys, where all up to an hour is online."""
        at = np.searchsorted(self._order, keys * 1_000 + hours, side="right") - 1
        there = (at >= 0) & (self.keys[at] == keys)
        events = START_US + self.hours[at] * HOUR_US
        stale = times_us - events > self.view.ttl / timedelta(microseconds=1)
        status: list[Status] = [
            "missing" if not t else "stale" if s else "present" for t, s in zip(there, stale, strict=True)
        ]
        created = events + self.view.compute_lag // timedelta(microseconds=1)
        values = {name: _where(there, of[at]) for name, of in self.values.items()}
        return ViewRows(status, _where(there, events), _where(there, created), values)


def _where(there: NDArray[np.bool_], values: NDArray[Any]) -> list[Any]:
    return [value if is_there else None for value, is_there in zip(values.tolist(), there.tolist(), strict=True)]


def run(case: Case, home: Path) -> dict[str, int]:
    """Make the world of a case; return how many rows were served."""
    settings = settings_of(home)
    settings.clock.advance_to(case.until)
    lake, ledger = Lake.open(settings, use_case.project), Ledger.open(settings, use_case.project)
    apply_definitions(settings, use_case)
    histories = {view.name: History.of(case, view, seed) for seed, view in enumerate(use_case.views)}
    ledger.adopt_incarnation(INCARNATION, START)
    marks = {name: list(_brought_online(case, lake, ledger, history)) for name, history in histories.items()}
    contract = compile_contract(
        use_case, service.name, TrainingCut(tables=(), spine_hash="0" * 64, known_at=case.until)
    )
    estimator = _write_model(model_folder(home), contract)
    lake.ensure_table(SERVED_LOG, SCHEMA, partition_by=PARTITION_BY)
    serving = _Serving(case, contract, estimator, model_digest(model_folder(home)), histories, marks)
    lake.append_parts(SERVED_LOG, serving.log())
    return {"served": 2 * case.rows}


def _brought_online(case: Case, lake: Lake, ledger: Ledger, history: History) -> Iterator[Mark]:
    """Append a view's rows an hour at a time, and yield the interval that brings each hour online."""
    view, sequence, interval, last = history.view, 0, 0, None
    lake.ensure_table(view.table, view.schema)
    for hour in range(case.hours):
        tick, rows = START + timedelta(hours=hour), history.rows(hour)
        snapshot = lake.append(view.table, rows, {TICK: str(to_micros(tick))})
        reach = Reach(lake.table_uuid(view.table), snapshot.sequence, snapshot.id, tick)
        at = [tick + timedelta(microseconds=after) for after in (WRITING_US, COMMITTED_US)]
        planned = _ours(ledger.plan_materialize(view.name, Mode.INTERVAL, sequence, reach, at[0], newest=interval))
        writing = _ours(
            ledger.start_writing(planned, "here", writes_from=sequence, writes_after_id=last, scope=Scope.ADDED)
        )
        ledger.verify(writing, rows.num_rows, 0, "digest")
        ledger.commit_materialize(writing, at[1])
        sequence, interval, last = snapshot.sequence, writing.id, snapshot.id
        yield Mark(interval, snapshot.id, snapshot.sequence, to_micros(tick))


def _ours(row: MaterializeRow | None) -> MaterializeRow:
    if row is None:
        raise RuntimeError("somebody else writes to this ledger")
    return row


def _write_model(folder: Path, contract: FeatureContract) -> Any:
    """Fit a model to noise and write what MLflow's `log_model` writes, as far as anyone reads it."""
    random = np.random.default_rng(99)
    rows = random.gamma(2.0, 40.0, (4_000, len(contract.features)))
    with one_thread():
        estimator = use_case.model.estimator().fit(rows, rows[:, :3].sum(axis=1) > 240)
    folder.mkdir()
    flavor = {"pickled_model": ESTIMATOR_FILE, "sklearn_version": sklearn.__version__}
    description = {"flavors": {"sklearn": flavor}, "metadata": contract_metadata(contract)}
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    skops.io.dump(estimator, folder / ESTIMATOR_FILE)
    return estimator


@dataclass(frozen=True)
class _Serving:
    """Answers requests from the histories, and logs them."""

    case: Case
    contract: FeatureContract
    estimator: Any
    model: str
    histories: Mapping[str, History]
    marks: Mapping[str, list[Mark]]

    def log(self) -> Iterator[pa.Table]:
        """Yield the rows of the served log, in order of time."""
        random = np.random.default_rng(7)
        requests = 2 * self.case.rows // ROWS_A_REQUEST
        # The first hour's rows are online in the second one.
        times = np.sort(START_US + random.integers(HOUR_US, self.case.hours * HOUR_US, requests))
        counters = dict.fromkeys(range(PROCESSES), 1)
        for first in range(0, requests, REQUESTS_A_PART):
            entries = [
                row
                for n, served in enumerate(self._part(random, times[first : first + REQUESTS_A_PART]))
                for row in self._encoded(served, n % PROCESSES, counters)
            ]
            yield arrow_rows([(b"%d" % n, {ROW_FIELD: row}) for n, row in enumerate(entries)])

    def _encoded(self, served: Served, process: int, counters: dict[int, int]) -> Iterator[bytes]:
        chosen = [(row, UNIFORM) for row in range(ROWS_A_REQUEST)]
        yield from encode_rows(served, chosen, self.model, f"process-{process}", counters[process])
        counters[process] += ROWS_A_REQUEST

    def _part(self, random: np.random.Generator, asked_us: NDArray[np.int64]) -> Iterator[Served]:
        """Answer requests all at once, and yield them one by one."""
        since_hour = (asked_us + READ_US - START_US) % HOUR_US
        hours = (asked_us + READ_US - START_US - COMMITTED_US) // HOUR_US
        writing = (since_hour >= WRITING_US) & (since_hour < COMMITTED_US)
        ahead = writing & (random.random(len(asked_us)) < 0.5)
        times, read_up_to = np.repeat(asked_us, ROWS_A_REQUEST), np.repeat(hours + ahead, ROWS_A_REQUEST)
        asked = {
            key: random.integers(0, int(known * (1 + UNKNOWN)), len(times))
            for key, known in (("card_id", self.case.cards), ("shop_id", self.case.shops))
        }
        wrong = random.random(len(times)) < self.case.wrong
        read = asked | {"card_id": np.where(wrong, (asked["card_id"] + 1) % self.case.cards, asked["card_id"])}
        views = {
            name: history.read(read[history.view.entity.join_key], read_up_to, times)
            for name, history in self.histories.items()
        }
        entities = {key: values.tolist() for key, values in asked.items()}
        inputs = [{"amount_cents": amount} for amount in random.integers(1, 100_000, len(times)).tolist()]
        everything = Request("", times.tolist(), entities, inputs)
        nobody = Epochs(INCARNATION, {})
        functions = load_functions(self.contract, USE_CASE)
        vectors = vectors_of(self.contract, functions, everything, Reading(nobody, nobody, views)).vectors
        with one_thread():
            scores = self.estimator.predict_proba(vectors)[:, 1].tolist()
        flags = flags_of(views, len(times))
        for n, at in enumerate(asked_us.tolist()):
            rows = slice(n * ROWS_A_REQUEST, (n + 1) * ROWS_A_REQUEST)
            epochs = self._epochs(int(hours[n]), writing=bool(writing[n]))
            request = Request(
                f"request-{at}", everything.times_us[rows], {k: of[rows] for k, of in entities.items()}, inputs[rows]
            )
            reading = Reading(epochs, epochs, {name: _sliced(of, rows) for name, of in views.items()})
            yield Served(
                request,
                at + READ_US,
                reading,
                vectors[rows],
                scores[rows],
                flags[rows],
                self.contract.hash,
                shadow=False,
            )

    def _epochs(self, hour: int, *, writing: bool) -> Epochs:
        """Return the epoch hash when an hour is online, and the next one perhaps being written."""
        views = {
            name: ViewEpoch(marks[hour], marks[hour + 1] if writing else None) for name, marks in self.marks.items()
        }
        return Epochs(INCARNATION, views)


def _sliced(of: ViewRows, rows: slice) -> ViewRows:
    values = {name: column[rows] for name, column in of.values.items()}
    return ViewRows(of.status[rows], of.event_us[rows], of.created_us[rows], values)
