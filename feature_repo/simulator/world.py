"""A finished world as Arrow tables in the order in which their rows became known, ready to be replayed."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.simulator.fraud import apply_fraud
from feature_repo.simulator.moments import DAY_SECONDS, SECOND, duration, to_microseconds
from feature_repo.simulator.on_file import OnFile, draw_customer_file, draw_terminal_file
from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.population import Population, draw_population
from feature_repo.simulator.streams import Stream, generator
from feature_repo.simulator.transactions import Payments, draw_payments

_MOMENT = pa.timestamp("us", tz="UTC")


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


SCHEMAS: dict[str, pa.Schema] = {
    "customers": _schema(
        customer_id=pa.int64(),
        home_x=pa.float64(),
        home_y=pa.float64(),
        segment=pa.string(),
        card_issued_day=pa.int64(),
        changed_at=_MOMENT,
        known_at=_MOMENT,
    ),
    "terminals": _schema(
        terminal_id=pa.int64(),
        terminal_x=pa.float64(),
        terminal_y=pa.float64(),
        category=pa.string(),
        installed_day=pa.int64(),
        changed_at=_MOMENT,
        known_at=_MOMENT,
    ),
    "transactions": _schema(
        transaction_id=pa.int64(),
        tx_datetime=_MOMENT,
        customer_id=pa.int64(),
        terminal_id=pa.int64(),
        amount_cents=pa.int64(),
        ingested_at=_MOMENT,
    ),
    "labels": _schema(
        transaction_id=pa.int64(),
        tx_datetime=_MOMENT,
        customer_id=pa.int64(),
        terminal_id=pa.int64(),
        tx_fraud=pa.int64(),
        tx_fraud_scenario=pa.int64(),
        labelled_at=_MOMENT,
    ),
}

# The column that says when a row became known.
_KNOWN_AT = {
    "customers": "known_at",
    "terminals": "known_at",
    "transactions": "ingested_at",
    "labels": "labelled_at",
}

_MAX_ARRIVAL_MILLISECONDS = 60_000
_MAX_LATE_SECONDS = 2 * DAY_SECONDS


@dataclass(frozen=True)
class World:
    """The four tables of SCHEMAS and the parameters they follow from, each in the order in which its rows became known.

    `customers` and `terminals` change slowly: a first row for each of them, known a day before the world starts, then one
    more whenever something on file changes, in order of known_at, equal times by id; card_issued_day and installed_day are
    days since 1970-01-01. `transactions` is in order of ingested_at and `labels` in order of labelled_at, equal times by
    transaction_id. The payments follow from the places and from nothing else that is on file.
    """

    parameters: SimulatorParameters
    customers: pa.Table
    terminals: pa.Table
    transactions: pa.Table
    labels: pa.Table

    def known_between(self, table: str, start: datetime | None, end: datetime) -> pa.Table:
        """The rows of `table` that became known in [start, end), without copying; start None: from the beginning.

        Raises:
            ValueError: there is no such table, a time has no time zone, or `end` is before `start`.
        """
        if table not in SCHEMAS:
            raise ValueError(f"The world has no table {table!r}. Hint: it has {', '.join(sorted(SCHEMAS))}.")
        until = to_microseconds(end, "end")
        since = None if start is None else to_microseconds(start, "start")
        if since is not None and until < since:
            raise ValueError(f"end={end.isoformat()} is before start={start}. Hint: swap them.")
        rows: pa.Table = getattr(self, table)
        known_at = rows.column(_KNOWN_AT[table])
        first = 0 if since is None else _find(known_at, since)
        return rows.slice(first, _find(known_at, until) - first)


def simulate(parameters: SimulatorParameters) -> World:
    """The world that follows from `parameters`; no clock, locale or hash seed of the machine has a part in it."""
    population = draw_population(parameters)
    payments = draw_payments(parameters, population)
    amount_cents, scenario = apply_fraud(parameters, payments)
    arrival_delay = _draw_arrival_delay(parameters, payments)
    return assemble(parameters, population, payments, amount_cents, scenario, arrival_delay)


def assemble(
    parameters: SimulatorParameters,
    population: Population,
    payments: Payments,
    amount_cents: NDArray[np.int64],
    scenario: NDArray[np.int64],
    arrival_delay: NDArray[np.int64],
) -> World:
    """The tables of `payments` with the frauds' amounts and scenarios, each row known `arrival_delay` microseconds after it."""
    start = to_microseconds(parameters.start, "start")
    common = {
        "transaction_id": np.arange(len(payments.second)),
        "tx_datetime": start + payments.second * SECOND,
        "customer_id": payments.customer_id,
        "terminal_id": payments.terminal_id,
    }
    ingested_at = common["tx_datetime"] + arrival_delay
    labelled_at = common["tx_datetime"] + _draw_label_delay(parameters, payments)
    labels = {"tx_fraud": scenario > 0, "tx_fraud_scenario": scenario, "labelled_at": labelled_at}
    return World(
        parameters=parameters,
        customers=_on_file("customers", population.customer_places, draw_customer_file(parameters)),
        terminals=_on_file("terminals", population.terminal_places, draw_terminal_file(parameters)),
        transactions=_table(
            "transactions", common | {"amount_cents": amount_cents, "ingested_at": ingested_at}, by=ingested_at
        ),
        labels=_table("labels", common | labels, by=labelled_at),
    )


def _draw_arrival_delay(parameters: SimulatorParameters, payments: Payments) -> NDArray[np.int64]:
    """Microseconds from payment to lake: lognormal, median 2 s, mean 2.8 s, at most 60 s, in whole milliseconds."""
    rng = generator(parameters.seed, Stream.ARRIVALS)
    milliseconds = rng.lognormal(np.log(2_000), 0.8, len(payments.second))
    return np.minimum(np.ceil(milliseconds), _MAX_ARRIVAL_MILLISECONDS).astype(np.int64) * 1_000


def _draw_label_delay(parameters: SimulatorParameters, payments: Payments) -> NDArray[np.int64]:
    """Microseconds from payment to label: `label_delay`, and for the late share 1 second to 2 days more."""
    rng = generator(parameters.seed, Stream.LABELS)
    delay = np.full(len(payments.second), duration(parameters.label_delay), dtype=np.int64)
    late = np.flatnonzero(rng.random(len(delay)) < parameters.late_label_share)
    delay[late] += rng.integers(1, _MAX_LATE_SECONDS, len(late), endpoint=True) * SECOND
    return delay


def _on_file(name: str, places: NDArray[np.float64], rows: OnFile) -> pa.Table:
    values = (rows.id, *places[rows.id].T, rows.kind, rows.since_day, rows.changed_at, rows.known_at)
    return _table(name, dict(zip(SCHEMAS[name].names, values, strict=True)), by=rows.known_at)


def _table(name: str, columns: Mapping[str, NDArray[np.generic]], *, by: NDArray[np.int64]) -> pa.Table:
    order = np.argsort(by, kind="stable")  # stable: equal times stay in order of the id
    schema = SCHEMAS[name]
    return pa.Table.from_arrays([_array(columns[f.name][order], f.type) for f in schema], schema=schema)


def _array(values: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    if values.dtype.kind not in "bi":
        return pa.array(values, kind)
    # Sorted as they are, widened after: half the traffic for the 4-byte ids. Viewing int64 as a timestamp is free.
    return pa.array(values.astype(np.int64, copy=False)).view(kind)


def _find(known_at: pa.ChunkedArray, microseconds: int) -> int:
    """The first position at or after `microseconds` in a sorted column."""
    return bisect_left(known_at, microseconds, key=lambda scalar: scalar.value)
