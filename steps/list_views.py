"""Name the feature views that a run is about, so that the DAG can fan out over them."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ListViewsInput(StepInput):
    """Which views: their names, comma-separated, or `all`."""

    views: str = "all"


class ListViewsOutput(Output):
    """The views, in the order they are declared."""

    names: list[str]


@step()
def list_views(given: ListViewsInput) -> ListViewsOutput:
    """Resolve names; an unknown one is an error that names the nearest."""
    use_case = Wiring().use_case
    if given.views == "all":
        return ListViewsOutput(names=[view.name for view in use_case.views])
    return ListViewsOutput(names=[use_case.view(name.strip()).name for name in given.views.split(",")])


if __name__ == "__main__":
    run_alone(list_views)
