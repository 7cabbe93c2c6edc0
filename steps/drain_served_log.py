"""Move the served log from the Redis Stream to the lake, exactly once."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class DrainServedLogInput(StepInput):
    """Nothing: what is in the stream is moved."""


class DrainServedLogOutput(Output):
    """How many rows were appended."""

    rows: int


@step(service_account="materializer")
def drain_served_log(given: DrainServedLogInput) -> DrainServedLogOutput:
    """Drain the stream."""
    from lockstep.serving.drain import drain  # noqa: PLC0415

    del given
    wiring = Wiring()
    done = drain(wiring.lake, wiring.log_store, wiring.use_case.project)
    return DrainServedLogOutput(rows=done.rows)


if __name__ == "__main__":
    run_alone(drain_served_log)
