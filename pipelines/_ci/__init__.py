"""`lockstep ci`: a view's whole life on this machine, in minutes: rendered, planned, back-filled, served, compared."""

from pipelines._ci.command import prove_changed, prove_view, show_proofs
from pipelines._ci.life import Sample

__all__ = ["Sample", "prove_changed", "prove_view", "show_proofs"]
