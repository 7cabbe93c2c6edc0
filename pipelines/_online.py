"""Plan, write, verify and commit: the tasks that bring one view online, shared by every DAG that does so."""

from hera.workflows import DAG, Parameter, Task, TaskResult
from hera.workflows.models import Mutex, Synchronization

from pipelines._project import project
from steps.commit_materialization import commit_materialization
from steps.plan_materialization import plan_materialization
from steps.verify_materialization import verify_materialization
from steps.write_chunk import write_chunk


def view_dag(name: str, *inputs: str) -> DAG:
    """Return the per-view DAG template: one run a view at a time, whoever asked for it."""
    mutex = Mutex(name=f"{project()}-view-{{{{inputs.parameters.view}}}}")
    return DAG(
        name=name,
        inputs=[Parameter(name=given) for given in ("view", *inputs)],
        synchronization=Synchronization(mutexes=[mutex]),
    )


def bring_online(dag: DAG, after: Task) -> None:
    """Add the tasks to the DAG that is being defined, to run once `after` succeeded."""
    view = dag.get_parameter("view")
    plan = plan_materialization(name="plan", arguments={"view": view})
    interval = plan.get_parameter("interval")
    write = write_chunk(
        name="write",
        with_param=plan.get_parameter("chunks"),
        arguments={"view": view, "interval": interval, "index": "{{item.index}}", "of": "{{item.of}}"},
    )
    # With nothing new there is no chunk, and Argo calls the empty fan-out skipped: `written` then has its default.
    verify = verify_materialization(
        name="verify",
        arguments={"view": view, "interval": interval, "written": write.get_parameter("written")},
        depends="plan.Succeeded && (write.Succeeded || write.Skipped)",
    )
    commit = commit_materialization(name="commit", arguments={"view": view, "interval": interval})
    with Task.set_next_defaults(on=TaskResult.succeeded):
        after >> plan >> write
        verify >> commit
