"""The `lockstep` command: where everything is put together.

A command imports what it needs when it runs, so that `lockstep --help` answers at once. A module with more commands is
registered below, with `cli.add_command`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata

import click

from lockstep.errors import BadInput, LockstepError, Refused, Terminal
from pipelines._commands import changes
from pipelines._commands.exit_test import exit_test
from pipelines._commands.parity import parity
from pipelines._commands.server import runs, submit
from pipelines._commands.skew import skew

_package = click.option("--package", default="pipelines", show_default=True, help="Whose modules to render.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("lockstep"), prog_name="lockstep")
def cli() -> None:
    """Keep what a model is trained on and what it is served in lockstep.

    Exit codes: 0 done, 1 failed and may succeed when tried again, 2 bad input, 3 refused.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors are worded for the person who can fix them."""
    try:
        code = cli.main(args=list(args) if args is not None else None, prog_name="lockstep", standalone_mode=False)
    except LockstepError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as misuse:
        misuse.show()
        return misuse.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    return code if isinstance(code, int) else 0


@cli.command()
@_package
def render(*, package: str) -> None:
    """Write the pipelines as YAML below the manifests' root.

    The root is $LOCKSTEP_MANIFESTS, or ./manifests.
    """
    from pipelines import render as rendering  # noqa: PLC0415 - Hera takes a second to import
    from pipelines._project import manifests_root  # noqa: PLC0415

    root = manifests_root()
    changed = rendering.write(root, package)
    for path in changed:
        click.echo(f"{'wrote' if (root / path).exists() else 'removed'} {root / path}")
    if not changed:
        click.echo(f"{root} is what the code renders")


@cli.command()
@_package
@_as_json
def check(*, package: str, as_json: bool) -> None:
    """Check that the committed YAML is what the code renders, and that a cluster would run it as it is meant."""
    from pipelines import check as checking  # noqa: PLC0415 - Hera takes a second to import
    from pipelines._project import manifests_root  # noqa: PLC0415

    findings = checking.run_checks(manifests_root(), package)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            source = f"\n  Source: {finding.source}" if finding.source else ""
            hint = f"\n  Hint: {finding.hint}" if finding.hint else ""
            click.echo(f"{finding.file}:{finding.line}: {finding.where}: {finding.what}{source}{hint}")
        if not findings:
            click.echo("the committed pipelines are what the code renders, and nothing is wrong with them")
    if findings:
        raise Refused(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")


@cli.command()
@click.argument("name")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="A workflow parameter.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Pods at a time, in N warm processes.",
)
@click.option(
    "--isolate", is_flag=True, help="Give each pod a process of its own, which runs what its container would."
)
@click.option(
    "--retry-wait",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a retry waits at most, whatever its back-off is.",
)
@click.option(
    "--approve",
    "approvals",
    multiple=True,
    metavar="NODE=VALUE",
    help="What a suspended node waits for; NODE.PARAMETER=VALUE if it waits for more.",
)
@_as_json
def run(
    name: str,
    pairs: tuple[str, ...],
    approvals: tuple[str, ...],
    *,
    jobs: int,
    isolate: bool,
    retry_wait: float,
    as_json: bool,
) -> int:
    """Run the committed workflow NAME on this machine, without a cluster.

    NAME is that of the pipeline, with or without the project's. Each step's output goes to a file of its own in
    $LOCKSTEP_HOME/runs. One job runs in this process. A node that waits for an approval asks for it on a terminal.
    """
    from pipelines._commands.running import run_committed  # noqa: PLC0415 - Hera takes a second to import
    from pipelines._manifest.parameters import parse_pairs  # noqa: PLC0415 - pydantic takes its time to import

    return run_committed(
        name,
        parse_pairs(pairs),
        parse_pairs(approvals, option="--approve"),
        jobs=jobs,
        isolate=isolate,
        retry_wait=retry_wait,
        as_json=as_json,
    )


@cli.command()
@click.option("--size", type=click.IntRange(100), default=2_700, show_default=True, help="Of the world: cards.")
@click.option("--days", type=click.IntRange(1), default=7, show_default=True, help="Days that are lived through.")
@_as_json
def demo(*, size: int, days: int, as_json: bool) -> None:
    """Run the whole loop on this machine: raw events, features, a model, served, proven, promoted; and one refused.

    It lives in $LOCKSTEP_HOME/demo, which is emptied first, and leaves report.json, parity.html and evaluation.html there.
    """
    from lockstep.local.signals import ending_on_signals  # noqa: PLC0415
    from lockstep.settings import Settings  # noqa: PLC0415 - the demo imports everything there is
    from pipelines import _demo  # noqa: PLC0415
    from pipelines._commands.progress import reporter  # noqa: PLC0415
    from pipelines._project import manifests_root  # noqa: PLC0415

    settings = Settings.load()
    progress = reporter(sys.stderr if as_json else sys.stdout)
    with ending_on_signals():
        scale = _demo.Scale(size=size, days=days)
        report = _demo.run_demo(settings.home, settings.use_case, manifests_root().resolve(), progress, scale)
    click.echo(json.dumps(report, indent=2) if as_json else f"\n{_demo.summary(report)}")
    if not as_json:
        click.echo(f"numbers:   {settings.home / _demo.FOLDER / _demo.REPORT}")
        click.echo(f"open this: {report['page']}")
        click.echo(f"and this:  {settings.home / _demo.FOLDER / _demo.TRAINING_PAGE}")
    if not report["promoted"]:
        raise Refused("the gate refused the model", hint="the parity section of the report says what was found")
    if not _demo.caught(report):
        raise Terminal("the injected skew was not refused by its name", hint="see the skew section of the report")


@cli.command()
@_as_json
def reproduce(*, as_json: bool) -> None:
    """Make the published results that the use case is held against again, and set ours beside them.

    It needs no home and no store. It ends with 3 if a figure is farther from the published one than is tolerated.
    """
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from pipelines._commands.reproduce import reproduce_results  # noqa: PLC0415 - scikit-learn takes 2 s to import

    reproduce_results(Settings.load().use_case, as_json=as_json)


@cli.command()
@click.argument("name", required=False)
@_as_json
def views(name: str | None, *, as_json: bool) -> None:
    """Show every feature view, or the view NAME whole: owner, objective, ttl, services, consumers, rows, watermark."""
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from pipelines._commands.views import show_views  # noqa: PLC0415 - imports MLflow, 2 s

    show_views(Settings.load(), name, as_json=as_json)


@cli.command()
@click.argument("names", nargs=-1, metavar="[VIEW]...")
@_as_json
def materialize(names: tuple[str, ...], *, as_json: bool) -> None:
    """Bring online what is new in each VIEW's table, or finish what was begun; all views if none is named.

    It is safe at any time, also beside the workflow that does the same.
    """
    from pipelines._commands.online_store import bring_online  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

    bring_online(names, as_json=as_json, everything=False)


@cli.command()
@click.argument("view")
@click.option("--from", "start", required=True, metavar="TIME", help="The ticks after this time (RFC 3339 with zone),")
@click.option("--to", "end", required=True, metavar="TIME", help="up to this one.")
@click.option("--dry-run", is_flag=True, help="Only show which ticks would be computed how.")
@_as_json
def backfill(view: str, start: str, end: str, *, dry_run: bool, as_json: bool) -> None:
    """Compute a range of VIEW's ticks and bring it online: computed ones are corrected, earlier ones bootstrapped.

    What is missing after the last computed tick is computed live. It is safe to run again.
    """
    from pipelines._commands.backfill import compute_and_bring_online  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

    compute_and_bring_online(view, start, end, dry_run=dry_run, as_json=as_json)


@cli.command()
@click.argument("names", nargs=-1, required=True, metavar="VIEW...")
@_as_json
def repair(names: tuple[str, ...], *, as_json: bool) -> None:
    """Write the newest row of every key of each VIEW again, whatever the store holds; a row newer than the lake's stays."""
    from pipelines._commands.online_store import bring_online  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

    bring_online(names, as_json=as_json, everything=True)


@cli.command()
@click.argument("names", nargs=-1, metavar="[VIEW]...")
@click.option("--one-of", type=click.IntRange(1), default=1, show_default=True, help="Compare one key of so many.")
@click.option("--bytes", "in_bytes", is_flag=True, help="Instead, say what each entity and view takes of the memory.")
@click.option(
    "--sample", type=click.IntRange(30), default=1_000, show_default=True, help="For --bytes: keys an entity."
)
@_as_json
def doctor(names: tuple[str, ...], *, one_of: int, in_bytes: bool, sample: int, as_json: bool) -> None:
    """Compare the online store with the lake and the ledger, key by key, and say what is wrong and what mends it.

    It changes nothing, and ends with 3 if something is wrong.
    """
    if in_bytes:
        if names:
            raise BadInput("--bytes is of all views: what a hash takes is divided among those that are in it")
        from pipelines._commands.footprint import show_bytes  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

        show_bytes(sample=sample, as_json=as_json)
        return
    from pipelines._commands.online_store import diagnose  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

    diagnose(names, one_of, as_json=as_json)


@cli.command()
@click.option("--entity", required=True, metavar="NAME", help="What it is, as the use case declares it.")
@click.option("--key", required=True, metavar="VALUE", help="Which one: the value of its join key.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_as_json
def erase(*, entity: str, key: str, dry_run: bool, as_json: bool) -> None:
    """Erase one entity from every table and all its snapshots, the online store and the served log, and give a receipt.

    Tags do not keep it: what was kept for a training set goes with the snapshots that hold the entity. There is no way back.
    Run it again if it was interrupted: it goes on from there.
    """
    from pipelines._commands.erase import erase_entity  # noqa: PLC0415 - DuckDB, Iceberg and Redis take their time

    erase_entity(entity, key, dry_run=dry_run, as_json=as_json)


@cli.command()
@click.argument("names", nargs=-1, required=True, metavar="VIEW...")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@click.option("--per-second", type=click.IntRange(1), default=20_000, show_default=True, help="Look at so many keys.")
@_as_json
def sweep(names: tuple[str, ...], *, dry_run: bool, per_second: int, as_json: bool) -> None:
    """Remove from the online store what each VIEW left there that is not declared any more.

    A view that is not named stays, whoever wrote it. It is safe beside readers and writers; run it again if it was interrupted.
    """
    from pipelines._commands.sweep import sweep_views  # noqa: PLC0415 - Iceberg and Redis take their time

    sweep_views(names, dry_run=dry_run, per_second=per_second, as_json=as_json)


cli.add_command(changes.plan)
cli.add_command(changes.ci)
cli.add_command(exit_test)
cli.add_command(parity)
cli.add_command(skew)
cli.add_command(submit)
cli.add_command(runs)


if __name__ == "__main__":
    sys.exit(main())
