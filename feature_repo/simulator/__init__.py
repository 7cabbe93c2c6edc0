"""A world of card payments to run the feature repository on: any size, any seed, with the answers attached.

The distributions and the three fraud scenarios are those of the Fraud Detection Handbook (Le Borgne et al.,
https://fraud-detection-handbook.github.io); the generator is ours, so the rows of `simulate` are not the
handbook's. Those, bit for bit, come from `simulate_published`.
"""

from feature_repo.simulator.parameters import SimulatorParameters
from feature_repo.simulator.published import simulate_published
from feature_repo.simulator.replay import append_slice
from feature_repo.simulator.world import SCHEMAS, World, simulate

__all__ = ["SCHEMAS", "SimulatorParameters", "World", "append_slice", "simulate", "simulate_published"]
