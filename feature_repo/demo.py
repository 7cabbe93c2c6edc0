"""What `lockstep demo` plays with this use case: its world, the model without feature views, and the skew that is injected."""

from feature_repo.services import payment_only
from feature_repo.world import append_slice, make_world

BASELINE = payment_only.name

# One slip in a mapping of columns: the risk of the last week, served from the field of the last day's.
SKEW = {"view": "terminal_risk", "column": "risk_7d", "read": "risk_1d"}

POSITIVES = "frauds"

__all__ = ["BASELINE", "POSITIVES", "SKEW", "append_slice", "make_world"]
