"""Who pays and where: customers with habits nobody downstream may see, terminals, and who reaches which."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.streams import Stream, generator

MAP_SIDE = 100.0

# Customers whose neighbours are searched for at once: bounds the memory of the search, not its result.
_BLOCK = 2_048


@dataclass(frozen=True)
class Reach:
    """The terminals nearer to a customer than the radius, one run of `terminal_id` per customer.

    Customer c reaches terminal_id[first[c] : first[c] + size[c]], ascending; `size` may be 0.
    """

    terminal_id: NDArray[np.int32]
    first: NDArray[np.int64]
    size: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, customer_id: NDArray[np.int32]) -> NDArray[np.int32]:
        """One terminal for each row, uniform over what the row's customer reaches (which must not be nothing)."""
        return self.terminal_id[self.first[customer_id] + rng.integers(0, self.size[customer_id])]


@dataclass(frozen=True)
class Population:
    """Places of customers and terminals (rows of x, y) and each customer's habits.

    `mean_amount` is mu, in currency units; `payments_per_day` is lambda. Both stay inside the simulator.
    """

    customer_places: NDArray[np.float64]
    terminal_places: NDArray[np.float64]
    mean_amount: NDArray[np.float64]
    payments_per_day: NDArray[np.float64]
    reach: Reach


def draw_population(parameters: SimulatorParameters) -> Population:
    """x, y ~ U(0, 100) for everyone; mu ~ U(5, 100) and lambda ~ U(0, 4) for customers."""
    customers = generator(parameters.seed, Stream.CUSTOMERS)
    return populate(parameters, customers, generator(parameters.seed, Stream.TERMINALS))


def populate(
    parameters: SimulatorParameters,
    of_customers: np.random.Generator | np.random.RandomState,
    of_terminals: np.random.Generator | np.random.RandomState,
) -> Population:
    """The population that these numbers make: four draws a customer, two a terminal."""
    # A row per customer: with more customers, the first ones stay who they were.
    low, high = np.array([0.0, 0.0, 5.0, 0.0]), np.array([MAP_SIDE, MAP_SIDE, 100.0, 4.0])
    drawn = of_customers.uniform(low, high, (parameters.customers, 4))
    terminals = of_terminals.uniform(0.0, MAP_SIDE, (parameters.terminals, 2))
    customers = drawn[:, :2].copy()
    return Population(
        customer_places=customers,
        terminal_places=terminals,
        mean_amount=drawn[:, 2].copy(),
        payments_per_day=drawn[:, 3].copy(),
        reach=_find_reach(customers, terminals, parameters.radius),
    )


def _find_reach(customers: NDArray[np.float64], terminals: NDArray[np.float64], radius: float) -> Reach:
    """Which of `terminals` each of `customers` (rows of x, y) reaches: those strictly nearer than `radius`."""
    tree = KDTree(terminals)
    runs, sizes = [], []
    for block in range(0, len(customers), _BLOCK):
        places = customers[block : block + _BLOCK]
        pairs = KDTree(places).sparse_distance_matrix(tree, radius, output_type="ndarray")
        pairs = pairs[pairs["v"] < radius]  # the tree finds <= radius
        pairs = pairs[np.lexsort((pairs["j"], pairs["i"]))]  # the tree's own order is no promise
        runs.append(pairs["j"].astype(np.int32))
        sizes.append(np.bincount(pairs["i"], minlength=len(places)))
    size = np.concatenate(sizes).astype(np.int64)
    return Reach(terminal_id=np.concatenate(runs), first=np.cumsum(size) - size, size=size)
