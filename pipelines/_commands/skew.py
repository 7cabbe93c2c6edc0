"""`lockstep skew`: faults injected on purpose, what they do to predictions, and whether parity finds and names them."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from lockstep.settings import Settings
    from lockstep.skew.laboratory import Results, Scale

_days = click.option(
    "--days", type=click.IntRange(1), default=7, show_default=True, help="Of the held-out days, the last so many."
)
_seeds = click.option(
    "--seeds", type=click.IntRange(1), default=5, show_default=True, help="Samples of each size, of each fault."
)
_clean = click.option(
    "--clean-seeds", type=click.IntRange(1), default=20, show_default=True, help="The same, without a fault."
)
_logged = click.option(
    "--logged", type=click.IntRange(1), default=2_000, show_default=True, help="Logged rows of each fault."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
FOLDER = "skew"
HELD_OUT = "written without sight of parity's rules, which were generalised since these were first run"


@click.group()
def skew() -> None:
    """Inject faults in the path that serves, measure their harm, and score parity on them.

    It works on what `lockstep demo` left in $LOCKSTEP_HOME/demo, and changes nothing there.
    """


@skew.command("list")
@_as_json
def list_faults(*, as_json: bool) -> None:
    """List the faults there are for the champion's contract, and the causes that are right for each."""
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from lockstep.skew.catalog import faults_of, held_out_of  # noqa: PLC0415 - KServe, PyIceberg
    from lockstep.skew.subject import champion_of  # noqa: PLC0415 - MLflow
    from lockstep.views import load_use_case  # noqa: PLC0415

    settings = Settings.load()
    contract = champion_of(state_of(settings), load_use_case(settings.use_case)).contract
    known, held_out = faults_of(contract), held_out_of(contract)
    faults = known | held_out
    if as_json:
        told = [
            {"name": f.name, "says": f.says, "causes": sorted(f.causes), "held_out": f.held_out}
            for f in faults.values()
        ]
        click.echo(json.dumps(told, indent=2))
        return
    width = max(map(len, faults))
    for heading, listed in ((None, known), (HELD_OUT, held_out)):
        if heading and listed:
            click.echo(f"\n{heading}\n")
        for fault in listed.values():
            click.echo(f"{fault.name:{width}}  {fault.says}")
            click.echo(f"{'':{width}}  → {', '.join(sorted(fault.causes)) or fault.unseen}")


@skew.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_days
@_seeds
@_clean
@_logged
@_as_json
def run(names: tuple[str, ...], *, days: int, seeds: int, clean_seeds: int, logged: int, as_json: bool) -> None:
    """Inject the faults of these names, or whose names begin so."""
    _show(names, _scale(days, seeds, clean_seeds, logged), None, as_json=as_json)


@skew.command("all")
@click.option("--faults", "names", multiple=True, metavar="NAME", help="Only those whose names begin so.")
@click.option(
    "--write", "page", type=click.Path(path_type=Path), metavar="FILE.md", help="Write the page and its plot."
)
@_days
@_seeds
@_clean
@_logged
@_as_json
def all_faults(
    names: tuple[str, ...],
    *,
    page: Path | None,
    days: int,
    seeds: int,
    clean_seeds: int,
    logged: int,
    as_json: bool,
) -> None:
    """Inject every fault; the results are also left in $LOCKSTEP_HOME/skew/results.json."""
    _show(names, _scale(days, seeds, clean_seeds, logged), page, as_json=as_json)


def _scale(days: int, seeds: int, clean_seeds: int, logged: int) -> "Scale":
    from lockstep.skew.laboratory import Scale  # noqa: PLC0415 - KServe, Feast

    return Scale(days=days, seeds=seeds, clean_seeds=clean_seeds, logged=logged)


def _show(names: Sequence[str], scale: "Scale", page: Path | None, *, as_json: bool) -> None:
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from lockstep.skew.page import write_page  # noqa: PLC0415
    from lockstep.skew.table import aligned, columns, document, row, summary  # noqa: PLC0415

    settings = Settings.load()
    results = _run(settings, names, scale, as_json=as_json)
    left = settings.home / FOLDER / "results.json"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(json.dumps(document(results), indent=2) + "\n")
    if page is not None:
        write_page(results, page, given(click.get_current_context()))
    if as_json:
        click.echo(json.dumps(document(results), indent=2))
        return
    rows = [columns(results), *(row(results, result) for result in results.known)]
    lines = ["", *aligned(rows)]
    if results.held_out:
        rows = [columns(results), *(row(results, result) for result in results.held_out)]
        lines += ["", HELD_OUT, "", *aligned(rows)]
    click.echo("\n".join([*lines, "", *summary(results), "", f"numbers: {left}"]))


def _run(settings: "Settings", names: Sequence[str], scale: "Scale", *, as_json: bool) -> "Results":
    from lockstep.local.lock import hold  # noqa: PLC0415
    from lockstep.local.signals import ending_on_signals  # noqa: PLC0415
    from lockstep.skew.laboratory import run_laboratory  # noqa: PLC0415 - KServe, Feast
    from lockstep.views import load_use_case  # noqa: PLC0415
    from pipelines._commands.progress import reporter  # noqa: PLC0415

    progress = reporter(sys.stderr if as_json else sys.stdout)
    with hold(settings.home, "lockstep skew"), ending_on_signals():
        use_case = load_use_case(settings.use_case)
        folder = settings.home / FOLDER / "scratch"
        return run_laboratory(state_of(settings), use_case, folder, names, scale, progress)


def given(context: click.Context) -> str:
    """Return the command as it was given, with its options."""
    words = context.command_path.split()
    for option in context.command.params:
        if (
            not isinstance(option, click.Option)
            or context.get_parameter_source(option.name or "") is not ParameterSource.COMMANDLINE
        ):
            continue
        value = context.params[option.name or ""]
        for each in value if option.multiple else [value]:
            words += [option.opts[0]] if option.is_flag else [option.opts[0], str(each)]
    return shlex.join(words)


def state_of(settings: "Settings") -> "Settings":
    """Return the settings of the state that the demo left."""
    from lockstep.settings import Settings  # noqa: PLC0415
    from pipelines._demo.home import FOLDER as DEMO  # noqa: PLC0415

    home = settings.home / DEMO
    return Settings(home=home, use_case=settings.use_case, clock_file=home / "clock").resolved()
