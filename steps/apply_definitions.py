"""Bring the use case's definitions into the Feast registry; nothing is ever deleted here."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ApplyDefinitionsInput(StepInput):
    """Nothing: the definitions are in the image."""


class ApplyDefinitionsOutput(Output):
    """How many objects were applied."""

    applied: int


@step()
def apply_definitions(given: ApplyDefinitionsInput) -> ApplyDefinitionsOutput:
    """Apply entities, views, sources and services."""
    from lockstep.offline.registry import apply_definitions as apply  # noqa: PLC0415 - imports Feast, 4 s

    del given
    wiring = Wiring()
    return ApplyDefinitionsOutput(applied=len(apply(wiring.settings, wiring.use_case)))


if __name__ == "__main__":
    run_alone(apply_definitions)
