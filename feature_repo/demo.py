"""What `lockstep demo` plays with this use case: its world, the model without feature views, and the skew that is injected."""

from feature_repo.services import payment_only
from feature_repo.simulator import SimulatorParameters, World, append_slice, simulate

BASELINE = payment_only.name

# One slip in a mapping of columns: the risk of the last week, served from the field of the last day's.
SKEW = {"view": "terminal_risk", "column": "risk_7d", "read": "risk_1d"}

POSITIVES = "frauds"


def make_world(size: int, days: int) -> World:
    """Return a world of `size` cards and twice as many terminals, in which a card reaches as many as in the published one.

    Args:
        size: cards.
        days: days of payments.
    """
    terminals = 2 * size
    radius = 5.0 * (10_000 / terminals) ** 0.5
    return simulate(SimulatorParameters(customers=size, terminals=terminals, radius=radius, days=days, seed=7))


__all__ = ["BASELINE", "POSITIVES", "SKEW", "append_slice", "make_world"]
