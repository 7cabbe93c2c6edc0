"""Hold what was written of an interval against the lake before anybody is told."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring
from steps.write_chunk import Written


class VerifyMaterializationInput(StepInput):
    """The view, the interval's id (0: nothing is new) and what its chunks reported."""

    view: str
    interval: int
    written: list[Written] = []


class VerifyMaterializationOutput(Output):
    """How many keys were sent."""

    keys: int


@step(service_account="materializer")
def verify_materialization(given: VerifyMaterializationInput) -> VerifyMaterializationOutput:
    """Count every key and read a sample back."""
    from lockstep.materialize.interval import ChunkWritten  # noqa: PLC0415 - PyIceberg and redis-py

    if given.interval:
        written = [ChunkWritten(**w.model_dump()) for w in given.written]
        Wiring().materializer(given.view).verify(given.interval, written)
    return VerifyMaterializationOutput(keys=sum(w.accepted + w.rejected for w in given.written))


if __name__ == "__main__":
    run_alone(verify_materialization)
