"""Which payments are frauds, and what the frauds do to them: the three scenarios, applied in order.

A later scenario overwrites the number of an earlier one; nobody is compromised on the last day.
"""

import numpy as np
from numpy.typing import NDArray

from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.streams import Stream, generator
from feature_repo.simulator.transactions import Payments

LARGE_AMOUNT_CENTS = 220_00
TERMINAL_DAYS = 28
CUSTOMER_DAYS = 14
CUSTOMER_SHARE = 3  # one payment in three of the pool
CUSTOMER_FACTOR = 5


def apply_fraud(parameters: SimulatorParameters, payments: Payments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(amount_cents, scenario) of every payment with the frauds in place; scenario 0 is genuine.

    1. A payment above 220.00 is a fraud, judged before scenario 3 touches the amount.
    2. Every payment at a compromised terminal is a fraud for 28 days; the amounts stay.
    3. Of all payments of the day's compromised customers in the next 14 days, taken as one pool, a third (rounded
       down) is a fraud with five times the amount. A payment taken on two days is multiplied twice.
    """
    amount_cents = payments.amount_cents.copy()
    scenario = np.where(amount_cents > LARGE_AMOUNT_CENTS, 1, 0).astype(np.int64)
    for day in range(parameters.days - 1):
        window = payments.days(day, TERMINAL_DAYS)
        scenario[rows_of(compromised_terminals(parameters, day), payments.terminal_id, window)] = 2
    # A second loop: scenario 3 overwrites scenario 2 of every day, not only of the days before.
    for day in range(parameters.days - 1):
        window = payments.days(day, CUSTOMER_DAYS)
        pool = rows_of(compromised_customers(parameters, day), payments.customer_id, window)
        rng = generator(parameters.seed, Stream.MISUSED_PAYMENTS, day)
        misused = rng.choice(pool, len(pool) // CUSTOMER_SHARE, replace=False)
        amount_cents[misused] *= CUSTOMER_FACTOR
        scenario[misused] = 3
    return amount_cents, scenario


def compromised_terminals(parameters: SimulatorParameters, day: int) -> NDArray[np.int64]:
    """The distinct terminals whose payments are frauds from `day` on, for 28 days."""
    rng = generator(parameters.seed, Stream.COMPROMISED_TERMINALS, day)
    return _draw_distinct(rng, parameters.terminals, parameters.terminal_compromises_per_day)


def compromised_customers(parameters: SimulatorParameters, day: int) -> NDArray[np.int64]:
    """The distinct customers whose card details leak on `day`, and are misused for 14 days."""
    rng = generator(parameters.seed, Stream.COMPROMISED_CUSTOMERS, day)
    return _draw_distinct(rng, parameters.customers, parameters.customer_compromises_per_day)


def _draw_distinct(rng: np.random.Generator, population: int, mean: float) -> NDArray[np.int64]:
    whole, fraction = divmod(mean, 1)
    return rng.choice(population, int(whole) + int(rng.random() < fraction), replace=False)


def rows_of(chosen: NDArray[np.int64], ids: NDArray[np.int32], window: slice) -> NDArray[np.int64]:
    """The rows in `window` whose id is among the few `chosen`, ascending."""
    if not len(chosen):
        return np.empty(0, dtype=np.int64)
    return window.start + np.flatnonzero(np.isin(ids[window], chosen))
