"""Compute one feature view's ticks up to a time, from what its sources hold now."""

from hera.workflows.io import Output

from lockstep.clock import parse_time
from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ComputeViewInput(StepInput):
    """The view, and the end of the window (RFC 3339 with zone)."""

    view: str
    window_end: str


class ComputeViewOutput(Output):
    """The view's watermark, and the rows appended."""

    tick: str
    rows: int


@step(service_account="materializer", memory="2Gi")
def compute_view(given: ComputeViewInput) -> ComputeViewOutput:
    """Compute every tick up to the window's end that is not computed yet."""
    from lockstep.views.compute import compute  # noqa: PLC0415 - ibis and DuckDB

    wiring = Wiring()
    view = wiring.use_case.view(given.view)
    window_end = parse_time(given.window_end, "window_end")
    done = compute(wiring.settings, wiring.lake, wiring.ledger, view, window_end)
    return ComputeViewOutput(tick=done.tick.isoformat(), rows=done.rows)


if __name__ == "__main__":
    run_alone(compute_view)
