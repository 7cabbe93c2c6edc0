"""The published data set of the Fraud Detection Handbook, row for row, from the generators its authors used.

The recipe and its two old generators (NumPy's legacy MT19937, Python's `random`) are the handbook's (Le Borgne et al.,
https://fraud-detection-handbook.github.io, chapter 3, *Transaction data simulator*); both streams are frozen by their
makers, so the rows follow from this module alone. Here the order of the draws is part of the result: nothing may be drawn
earlier, later or once more than it is. For everything but a comparison with published figures use `simulate`.
"""

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from feature_repo.simulator.fraud import (
    CUSTOMER_DAYS,
    CUSTOMER_FACTOR,
    CUSTOMER_SHARE,
    LARGE_AMOUNT_CENTS,
    TERMINAL_DAYS,
    rows_of,
)
from feature_repo.simulator.moments import DAY_SECONDS
from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.population import Population, populate
from feature_repo.simulator.transactions import Payments
from feature_repo.simulator.world import World, assemble

TERMINALS_A_DAY = 2
CUSTOMERS_A_DAY = 3

_NOON, _SPREAD = DAY_SECONDS / 2, 20_000.0


def simulate_published(
    *, customers: int = 5_000, terminals: int = 10_000, days: int = 183, radius: float = 5.0
) -> World:
    """The published data set; other sizes follow the same recipe.

    Times are declared to be UTC (the handbook's are naive) and amounts are whole cents. transaction_id is the
    rank by time, payments of the same second ranked as published (see `_published_order`). What the handbook does not have
    is added in the simplest way: a transaction is known at its own time, a label exactly 7 days later, and segment, category
    and dates on file are those of `simulate` with seed 0.

    Args:
        customers: cards, numbered from 0; at least 3.
        terminals: points of sale, numbered from 0; at least 2.
        days: days of payments, from 2018-04-01 on.
        radius: a customer pays only at terminals nearer than this, on the 100 x 100 map.

    Raises:
        ValueError: a size or the radius is out of range.
    """
    for name, size, least in (("customers", customers, CUSTOMERS_A_DAY), ("terminals", terminals, TERMINALS_A_DAY)):
        if size < least:
            raise ValueError(f"{name}={size} must be at least {least}. Hint: so many are compromised on each day.")
    parameters = SimulatorParameters(
        customers=customers,
        terminals=terminals,
        days=days,
        radius=radius,
        compromised_terminals_per_day=TERMINALS_A_DAY,
        compromised_customers_per_day=CUSTOMERS_A_DAY,
        label_delay=timedelta(days=7),
        late_label_share=0.0,
    )
    population = draw_published_population(parameters)
    payments = draw_published_payments(parameters, population)
    amount_cents, scenario = _apply_fraud(parameters, payments)
    at_once = np.zeros(len(scenario), dtype=np.int64)
    return assemble(parameters, population, payments, amount_cents, scenario, arrival_delay=at_once)


def draw_published_population(parameters: SimulatorParameters) -> Population:
    """Customers from seed 0, four draws each; terminals from seed 1, two draws each."""
    return populate(parameters, np.random.RandomState(0), np.random.RandomState(1))


def draw_published_payments(parameters: SimulatorParameters, population: Population) -> Payments:
    """All payments before any fraud: drawn customer by customer, then sorted by time.

    Terminals come from a generator of their own (Python's, seeded like the other one with the customer's id), so they are
    drawn after the customer's times and amounts.
    """
    reach = population.reach
    seconds, amounts, terminals = [], [], []
    counts = np.zeros(parameters.customers, dtype=np.int64)
    habits = zip(population.payments_per_day.tolist(), population.mean_amount.tolist(), strict=True)
    for customer, (payments_per_day, mean_amount) in enumerate(habits):
        reached = reach.terminal_id[reach.first[customer] :][: reach.size[customer]].tolist()
        if not reached:
            continue
        drawn = list(_draw_customer(customer, parameters.days, payments_per_day, mean_amount))
        choice = random.Random(customer).choice  # noqa: S311 - the handbook's generator
        counts[customer] = len(drawn)
        seconds += [second for second, _ in drawn]
        amounts += [amount for _, amount in drawn]
        terminals += map(choice, repeat(reached, len(drawn)))
    second = np.array(seconds, dtype=np.int64)
    order = _published_order(second)
    second = second[order]
    return Payments(
        day_first=np.searchsorted(second, DAY_SECONDS * np.arange(parameters.days + 1)),
        second=second,
        customer_id=np.repeat(np.arange(parameters.customers, dtype=np.int32), counts)[order],
        terminal_id=np.array(terminals, dtype=np.int32)[order],
        # The published amounts are rounded by numpy.round, which takes the nearest cent in this very way.
        amount_cents=np.rint(np.array(amounts, dtype=np.float64) * 100).astype(np.int64)[order],
    )


def _draw_customer(
    customer: int, days: int, payments_per_day: float, mean_amount: float
) -> Iterator[tuple[int, float]]:
    """(second since the start of the world, amount) of one customer's payments, in the order they are drawn.

    A second outside the day loses its payment, and no amount is drawn for it.
    """
    rng = np.random.RandomState(customer)
    # normal(m, s) is m + s * standard_normal(), and costs twice as much.
    poisson, standard_normal, deviation = rng.poisson, rng.standard_normal, mean_amount / 2
    for midnight in range(0, days * DAY_SECONDS, DAY_SECONDS):
        for _ in range(poisson(payments_per_day)):
            second = int(_NOON + _SPREAD * standard_normal())
            if 0 < second < DAY_SECONDS:
                amount = mean_amount + deviation * standard_normal()
                yield midnight + second, amount if amount >= 0 else rng.uniform(0, mean_amount * 2)


def _published_order(second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order by time, in which payments of one second lie as the handbook's unstable sort left them.

    It sorted times of type datetime64, which NumPy still does with the introsort of that day. Sorting the integers would
    not do: vector instructions sort those, and leave ties in another order. That is no promise of NumPy's, so a test
    compares a digest of all rows.
    """
    return np.argsort(second.astype("datetime64[s]"), kind="quicksort")


def _apply_fraud(parameters: SimulatorParameters, payments: Payments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(amount_cents, scenario) with the frauds in place: the rules of `apply_fraud`, with the published draws."""
    amount_cents = payments.amount_cents.copy()
    scenario = np.where(amount_cents > LARGE_AMOUNT_CENTS, 1, 0).astype(np.int64)
    for rows in payments_at_compromised_terminals(parameters, payments):
        scenario[rows] = 2
    for rows in misused_payments(parameters, payments):
        # Exact. The handbook multiplies floats: 1,214 of its amounts differ from cents / 100 in the last bits.
        amount_cents[rows] *= CUSTOMER_FACTOR
        scenario[rows] = 3
    return amount_cents, scenario


def payments_at_compromised_terminals(
    parameters: SimulatorParameters, payments: Payments
) -> Iterator[NDArray[np.int64]]:
    """For each day but the last, the rows that scenario 2 of that day makes frauds."""
    for day in range(parameters.days - 1):
        chosen = np.random.RandomState(day).choice(parameters.terminals, TERMINALS_A_DAY, replace=False)
        yield rows_of(chosen, payments.terminal_id, payments.days(day, TERMINAL_DAYS))


def misused_payments(parameters: SimulatorParameters, payments: Payments) -> Iterator[NDArray[np.int64]]:
    """For each day but the last, the distinct rows that scenario 3 of that day takes, in the order drawn."""
    for day in range(parameters.days - 1):
        chosen = np.random.RandomState(day).choice(parameters.customers, CUSTOMERS_A_DAY, replace=False)
        pool = rows_of(chosen, payments.customer_id, payments.days(day, CUSTOMER_DAYS)).tolist()
        rng = random.Random(day)  # noqa: S311 - the handbook's generator
        yield np.array(rng.sample(pool, len(pool) // CUSTOMER_SHARE), dtype=np.int64)
