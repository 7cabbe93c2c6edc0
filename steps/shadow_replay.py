"""Send recent events to the dark service that the settings name, at the current time."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ShadowReplayInput(StepInput):
    """Which model (an alias or a version) the dark service must be serving, how many events, and how many a request carries.

    With `fallback` its fallback model has to answer; where it has none, nothing is sent.
    """

    model: str = "challenger"

    rows: int = 40
    batch: int = 20
    fallback: bool = False


class ShadowReplayOutput(Output):
    """How many rows were scored, and how many the model's contract rejects: they have no score."""

    scored: int
    rejected: int


@step(service_account="promoter")
def shadow_replay(given: ShadowReplayInput) -> ShadowReplayOutput:
    """Replay the newest events of the lake; where the service rejects more than half of them, end as a gate that said no."""
    from lockstep.serving.shadow import replay  # noqa: PLC0415
    from lockstep.training.registry import require_model  # noqa: PLC0415 - imports MLflow, 2 s

    wiring = Wiring()
    model = require_model(wiring.settings, wiring.use_case.model.name, given.model)
    done = replay(
        wiring.settings,
        wiring.use_case,
        wiring.lake,
        model.contract,
        model.digest,
        given.rows,
        given.batch,
        fallback=given.fallback,
    )
    return ShadowReplayOutput(scored=done.scored, rejected=done.rejected)


if __name__ == "__main__":
    run_alone(shadow_replay)
