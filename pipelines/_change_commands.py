"""The commands about a change of the definitions: `plan` says what it takes, `ci` lives through the life of a view."""

import click

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
    from pipelines._plan import show_plan  # noqa: PLC0415

    return show_plan(Settings.load(), since, until, as_json=as_json, detailed_exitcode=detailed_exitcode)
