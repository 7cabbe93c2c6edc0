"""`lockstep submit` and `lockstep runs`: the commands that speak to Argo's server. They import it when they run."""

import click

from lockstep.errors import BadInput

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Error")

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")


@click.command()
@click.argument("name")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="A workflow parameter.")
@click.option("--watch", is_flag=True, help="Follow the workflow till it ends, and end as it does.")
@click.option("--dry-run", is_flag=True, help="Only check, and show what would be sent; no server is asked.")
@_as_json
def submit(name: str, pairs: tuple[str, ...], *, watch: bool, dry_run: bool, as_json: bool) -> int:
    """Run the workflow NAME in the cluster, from the WorkflowTemplate that is applied there.

    NAME is that of the pipeline, with or without the project's. Everything is checked before anything is sent; what is wrong
    is said, and nothing submitted.

    Settings: LOCKSTEP_ARGO_SERVER (the URL of Argo's server), LOCKSTEP_ARGO_TOKEN, LOCKSTEP_ARGO_NAMESPACE (`features` if not
    given), LOCKSTEP_ARGO_TLS_CA.
    """
    from pipelines._server.submit import submit_workflow  # noqa: PLC0415 - Hera takes a second to import

    return submit_workflow(name, pairs, watch=watch, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("name", required=False)
@click.option("--pipeline", metavar="NAME", help="Only runs of this workflow.")
@click.option("--phase", type=click.Choice(PHASES, case_sensitive=False), help="Only runs that are in this phase.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="Show so many at most.")
@click.option("--watch", is_flag=True, help="Follow the run NAME till it ends, and end as it does.")
@_as_json
def runs(name: str | None, *, pipeline: str | None, phase: str | None, limit: int, watch: bool, as_json: bool) -> int:
    """List this project's latest runs in the cluster, scheduled ones too, or show the run NAME with its nodes.

    Settings: those of `lockstep submit`.
    """
    if name is not None and (pipeline or phase):
        raise BadInput("--pipeline and --phase choose among runs, and one is named")
    if name is None and watch:
        raise BadInput("--watch is of one run", hint="`lockstep runs` lists their names")
    from pipelines._server import runs as listing  # noqa: PLC0415 - Hera takes a second to import

    if name is None:
        listing.list_runs(pipeline, phase, limit, as_json=as_json)
        return 0
    return listing.watch_run(name, as_json=as_json) if watch else listing.show_run(name, as_json=as_json)
