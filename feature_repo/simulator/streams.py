"""One independent random stream per purpose and day, so that changing one of them leaves the others as they were.

Fewer frauds in the parameters change no payment time, and day 30 is the same whether 31 or 183 days are simulated.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purposes of random numbers. The values are part of what a seed means: append, never renumber."""

    CUSTOMERS = 0
    TERMINALS = 1
    PAYMENTS = 2
    ARRIVALS = 3
    COMPROMISED_TERMINALS = 4
    COMPROMISED_CUSTOMERS = 5
    MISUSED_PAYMENTS = 6
    LABELS = 7
    CUSTOMERS_ON_FILE = 8
    TERMINALS_ON_FILE = 9
    CUSTOMER_CHANGES = 10
    TERMINAL_CHANGES = 11


def generator(seed: int, stream: Stream, day: int = 0) -> np.random.Generator:
    """The generator for one purpose (on one day), statistically independent of all others."""
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(int(stream), day))))
