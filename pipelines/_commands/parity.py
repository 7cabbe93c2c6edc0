"""`lockstep parity`: verify what was served, show a kept report, make the keys that sign one. They import when they run."""

from pathlib import Path

import click

_as_json = click.option("--json", "as_json", is_flag=True, help="Print the report's JSON instead of lines.")


@click.group()
def parity() -> None:
    """Hold what was served against the lake and against training."""


@parity.command()
@click.option("--model", default="champion", show_default=True, help="Whose rows: an alias or a version.")
@click.option("--shadow", is_flag=True, help="The rows of its shadow replay, instead of live ones.")
@click.option("--fallback", is_flag=True, help="The rows that its fallback model answered.")
@click.option("--since", metavar="TIME", help="The first request time (ISO 8601 with zone); instead of --hours.")
@click.option("--until", metavar="TIME", help="The end of the request times; now, if not given.")
@click.option("--hours", type=click.IntRange(1), default=24, show_default=True, help="How long the window is.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Compare so many; more if the limit needs it.",
)
@_as_json
def verify(
    model: str,
    since: str | None,
    until: str | None,
    *,
    shadow: bool,
    fallback: bool,
    hours: int,
    rows: int,
    as_json: bool,
) -> int:
    """Hold a sample of what a model served against the lake and against training, and say what differs and what to do.

    The report is signed and kept, its page is written to $LOCKSTEP_HOME/parity and both are logged to MLflow. It looks at the
    rows that are in the lake: `lockstep run drain-served-log` brings the latest ones there. It ends with 0 if the verdict is
    pass, else with 3.
    """
    from pipelines._commands.verdicts import verify_now  # noqa: PLC0415 - Feast and MLflow take seconds to import

    return verify_now(
        model,
        shadow=shadow,
        fallback=fallback,
        since=since,
        until=until,
        hours=hours,
        rows=rows,
        as_json=as_json,
    )


@parity.command()
@click.argument("name", default="newest")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write its page there.")
@_as_json
def report(name: str, *, page: Path | None, as_json: bool) -> None:
    """Show a report that is kept again: the NEWEST, or the one whose name begins with NAME.

    It says whether the report would be believed here: whether it is signed, and by our key.
    """
    from pipelines._commands.verdicts import show_report  # noqa: PLC0415 - Feast and MLflow take seconds to import

    show_report(name, page=page, as_json=as_json)


@parity.command()
def keys() -> None:
    """Make the pair of keys that parity reports are signed and verified with.

    They go where the settings parity_signing_key and parity_verify_key say, else into $LOCKSTEP_HOME/keys. What is there
    already stays as it is.
    """
    from lockstep.parity.signature import make_keys  # noqa: PLC0415 - cryptography
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import

    files = make_keys(Settings.load())
    click.echo(f"private key, for who verifies parity alone: {files.private}")
    click.echo(f"public key, for the gate: {files.public}")


@parity.command()
def schema() -> None:
    """Print the JSON Schema of a report, which docs/schemas/parity_report.schema.json has to be."""
    from lockstep.parity.schema import schema_text  # noqa: PLC0415 - pydantic takes its time to import

    click.echo(schema_text(), nl=False)
