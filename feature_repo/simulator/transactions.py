"""What everyone pays before any fraud: genuine payments, day by day, in order of time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.simulator.moments import DAY_SECONDS
from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.population import Population
from feature_repo.simulator.streams import Stream, generator


@dataclass(frozen=True)
class Payments:
    """Payments in order of time: equally long columns, in which the position of a row is its transaction id.

    `second` counts from the start of the world; day d is rows day_first[d] up to day_first[d + 1].
    """

    day_first: NDArray[np.int64]
    second: NDArray[np.int64]
    customer_id: NDArray[np.int32]
    terminal_id: NDArray[np.int32]
    amount_cents: NDArray[np.int64]

    def days(self, first: int, length: int) -> slice:
        """The rows of the days [first, first + length), cut off where the world ends."""
        last = min(first + length, len(self.day_first) - 1)
        return slice(int(self.day_first[first]), int(self.day_first[last]))


def draw_payments(parameters: SimulatorParameters, population: Population) -> Payments:
    """All payments of the world; a customer without a terminal in reach makes none."""
    days = [_draw_day(parameters, population, day) for day in range(parameters.days)]
    counts = [len(day.second) for day in days]
    return Payments(
        day_first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        second=np.concatenate([day.second for day in days]),
        customer_id=np.concatenate([day.customer_id for day in days]),
        terminal_id=np.concatenate([day.terminal_id for day in days]),
        amount_cents=np.concatenate([day.amount_cents for day in days]),
    )


def _draw_day(parameters: SimulatorParameters, population: Population, day: int) -> Payments:
    """One day: n ~ Poisson(lambda) per customer, second ~ N(noon, 20,000), amount ~ N(mu, mu / 2).

    A second outside the day loses its payment (3.1 % of them); a negative amount is drawn again from U(0, 2 mu).
    """
    rng = generator(parameters.seed, Stream.PAYMENTS, day)
    customer = np.repeat(np.arange(parameters.customers, dtype=np.int32), rng.poisson(population.payments_per_day))
    second = rng.normal(DAY_SECONDS / 2, 20_000, customer.size).astype(
        np.int64
    )  # truncates towards zero, as specified
    kept = (second > 0) & (second < DAY_SECONDS) & (population.reach.size[customer] > 0)
    customer, second = customer[kept], second[kept]

    mean = population.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    negative = amount < 0
    amount[negative] = rng.uniform(0, 2 * mean[negative])

    terminal = population.reach.draw(rng, customer)
    order = np.argsort(second, kind="stable")  # payments of one second: by customer
    return Payments(
        day_first=np.array([0, len(order)]),
        second=day * DAY_SECONDS + second[order],
        customer_id=customer[order],
        terminal_id=terminal[order],
        amount_cents=np.rint(amount[order] * 100).astype(np.int64),
    )
