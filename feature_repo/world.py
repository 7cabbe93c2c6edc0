"""The world that `lockstep demo` and `lockstep ci` put into a lake of their own."""

from feature_repo.simulator import SimulatorParameters, World, append_slice, simulate


def make_world(size: int, days: int) -> World:
    """Return a world of `size` cards and twice as many terminals, in which a card reaches as many as in the published one.

    Args:
        size: cards.
        days: days of payments.
    """
    terminals = 2 * size
    radius = 5.0 * (10_000 / terminals) ** 0.5
    return simulate(SimulatorParameters(customers=size, terminals=terminals, radius=radius, days=days, seed=7))


__all__ = ["append_slice", "make_world"]
