"""Compute a range of one feature view's ticks, each in the way that is right for it."""

from hera.workflows.io import Output

from lockstep.clock import parse_time
from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class BootstrapViewInput(StepInput):
    """The view, and the ticks `start < T <= end` (RFC 3339 with zone)."""

    view: str
    start: str
    end: str


class BootstrapViewOutput(Output):
    """The view's watermark, and the rows appended."""

    tick: str
    rows: int


@step(service_account="materializer", memory="4Gi")
def bootstrap_view(given: BootstrapViewInput) -> BootstrapViewOutput:
    """Bootstrap the ticks before the first computed one, correct computed ones, compute missing ones live."""
    from lockstep.views.compute import backfill  # noqa: PLC0415 - ibis and DuckDB

    wiring = Wiring()
    view = wiring.use_case.view(given.view)
    start, end = parse_time(given.start, "start"), parse_time(given.end, "end")
    done = backfill(wiring.settings, wiring.lake, wiring.ledger, view, start, end)
    return BootstrapViewOutput(tick=done.tick.isoformat(), rows=done.rows)


if __name__ == "__main__":
    run_alone(bootstrap_view)
