"""Write one chunk of an interval to the online store; writing it again changes nothing."""

from dataclasses import asdict

from hera.workflows.io import Output
from pydantic import BaseModel

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class Written(BaseModel):
    """What the compare-and-set did with the chunk's keys, and how they were written."""

    accepted: int
    rejected: int
    digest: str
    how: str


class WriteChunkInput(StepInput):
    """The view, the interval's id, and which share of its keys."""

    view: str
    interval: int
    index: int
    of: int


class WriteChunkOutput(Output):
    """What was written."""

    written: Written


@step(service_account="materializer")
def write_chunk(given: WriteChunkInput) -> WriteChunkOutput:
    """Write the newest row per key of the chunk."""
    from lockstep.materialize.interval import Chunk  # noqa: PLC0415 - PyIceberg and redis-py

    done = Wiring().materializer(given.view).write(given.interval, Chunk(given.index, given.of))
    return WriteChunkOutput(written=Written(**asdict(done)))


if __name__ == "__main__":
    run_alone(write_chunk)
