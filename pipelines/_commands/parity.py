"""`lockstep parity`: verify what was served, show a kept report, make the keys that sign one. They import when they run."""

import click


@click.group()
def parity() -> None:
    """Hold what was served against the lake and against training."""


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
