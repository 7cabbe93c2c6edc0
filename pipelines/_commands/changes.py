"""The commands about a change of the definitions: `plan` says what it takes, `ci` lives through the life of a view."""

import sys

import click

from lockstep.errors import BadInput

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")


@click.command()
@click.option("--from", "since", metavar="REV", help="What is live: a git revision or a folder.")
@click.option("--to", "until", metavar="REV", help="What is to be; the work tree if not given.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 4 if something is to be done, and nothing is refused."
)
@_as_json
def plan(since: str | None, until: str | None, *, detailed_exitcode: bool, as_json: bool) -> int:
    """Say what a change of the definitions touches, and what it takes.

    It compares the work tree with where the current branch left the main branch. What cannot be done under the name it has, or
    would break what is in use, is refused (exit 3). All else ends with 0: what is left to do is printed.
    """
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from pipelines._commands.plan import show_plan  # noqa: PLC0415

    return show_plan(Settings.load(), since, until, as_json=as_json, detailed_exitcode=detailed_exitcode)


@click.command()
@click.argument("view", required=False)
@click.option("--changed", is_flag=True, help="Each view that `plan` says is changed, instead of one.")
@click.option("--from", "since", metavar="REV", help="What is live, for the plan: a git revision or a folder.")
@click.option("--size", type=click.IntRange(10), default=400, show_default=True, help="Of the world: cards.")
@click.option(
    "--days", type=click.IntRange(1), default=3, show_default=True, help="Days that are back-filled at least."
)
@click.option("--quick", is_flag=True, help="Train no model, also if its service reads the view.")
@click.option("--keep", is_flag=True, help="Keep the home of the trial also if nothing is wrong.")
@_as_json
def ci(
    view: str | None,
    since: str | None,
    size: int,
    days: int,
    *,
    changed: bool,
    quick: bool,
    keep: bool,
    as_json: bool,
) -> None:
    """Live through the whole life of VIEW in a temporary home: render, plan, back-fill a sample, serve it, compare.

    Rows are served before and after runs and past the ttl, and held against the lake and training to the last bit; rows of
    the past are held against the definition of a value. If the model's service reads the view, the model is trained, served in
    the dark and verified too. It ends with 3 if anything differs, and keeps the home for a look.
    """
    if bool(view) == changed:
        raise BadInput("name one VIEW, or ask for --changed", hint="`lockstep views` lists them")
    from lockstep.local.signals import ending_on_signals  # noqa: PLC0415
    from lockstep.settings import Settings  # noqa: PLC0415 - a trial imports everything there is
    from pipelines import _ci  # noqa: PLC0415
    from pipelines._commands.progress import reporter  # noqa: PLC0415
    from pipelines._project import manifests_root  # noqa: PLC0415

    settings, manifests = Settings.load(), manifests_root().resolve()
    progress = reporter(sys.stderr if as_json else sys.stdout)
    sample = _ci.Sample(size=size, days=days, with_model=not quick)
    with ending_on_signals():
        if view:
            proofs = [_ci.prove_view(settings, view, manifests, progress, sample, since=since, keep=keep)]
        else:
            proofs = _ci.prove_changed(settings, manifests, progress, sample, since=since, keep=keep)
    if not proofs and not as_json:
        click.echo("no view changed")
    _ci.show_proofs(proofs, as_json=as_json)
