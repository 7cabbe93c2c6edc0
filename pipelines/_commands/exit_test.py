"""`lockstep exit-test`: something went wrong, and somebody new finds out what; or declares a view, and proves it."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import click

from lockstep.errors import BadInput, Refused

EXERCISES = ("view", "first", "second", "third")
SEED = "seed"
_exercise = click.argument("name", type=click.Choice(EXERCISES))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")


@click.group("exit-test")
def exit_test() -> None:
    """Show that you can work with Lockstep: declare a view, and find out what went wrong in three incidents.

    See docs/exit-test.md. It works on what `lockstep demo` left in $LOCKSTEP_HOME/demo, and changes nothing there.
    """


@exit_test.command()
@click.argument("names", nargs=-1, type=click.Choice(EXERCISES), metavar="[view|first|second|third]...")
@click.option("--seed", type=click.IntRange(0), help="Of all chance; the one used last, or another one each time.")
@_as_json
def begin(names: tuple[str, ...], *, seed: int | None, as_json: bool) -> None:
    """Prepare the exercises of these names, or all, and print what is to be known at the beginning.

    Each gets a home below $LOCKSTEP_HOME/exit-test; what an earlier one left there goes.
    """
    from lockstep.local.lock import hold  # noqa: PLC0415 - all of these take their time to import
    from lockstep.local.signals import ending_on_signals  # noqa: PLC0415
    from lockstep.settings import Settings  # noqa: PLC0415
    from lockstep.views import load_use_case  # noqa: PLC0415
    from pipelines._commands.progress import reporter  # noqa: PLC0415
    from pipelines._commands.skew import state_of  # noqa: PLC0415
    from pipelines._exit_test.begin import begin as begin_incidents  # noqa: PLC0415
    from pipelines._exit_test.home import FOLDER  # noqa: PLC0415
    from pipelines._exit_test.new_view import NAME, prepare  # noqa: PLC0415
    from pipelines._exit_test.words import exercise_lines, incident_lines  # noqa: PLC0415
    from pipelines._project import manifests_root  # noqa: PLC0415

    settings = Settings.load()
    use_case, folder = load_use_case(settings.use_case), settings.home / FOLDER
    wanted, progress = names or EXERCISES, reporter(sys.stderr if as_json else sys.stdout)
    lines, documents = list[str](), list[dict[str, object]]()
    with hold(settings.home, "lockstep exit-test"), ending_on_signals():
        if NAME in wanted:
            with progress.stage(NAME):
                exercise = prepare(settings, use_case, folder / NAME, manifests_root())
            documents.append({"exercise": NAME, **exercise.model_dump(mode="json")})
            lines += ["", *exercise_lines(exercise, folder / NAME)]
        if incidents := [name for name in wanted if name != NAME]:
            chance = _seed(folder, seed, again=bool(names))
            for told in begin_incidents(state_of(settings), use_case, folder, incidents, chance, progress):
                documents.append({"exercise": told.incident, **told.model_dump(mode="json"), "lost": told.lost})
                lines += ["", *incident_lines(told, use_case.model.words, folder / told.incident)]
    click.echo(json.dumps(documents, indent=2) if as_json else "\n".join(lines))


@exit_test.command("open", context_settings={"ignore_unknown_options": True})
@_exercise
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def open_home(name: str, command: tuple[str, ...]) -> int:
    """Run COMMAND, or a shell, in the home of an exercise, while its online store runs and its clock says what it said."""
    from pipelines._exit_test.begin import Told  # noqa: PLC0415 - all of these take their time to import
    from pipelines._exit_test.home import opened  # noqa: PLC0415
    from pipelines._exit_test.new_view import NAME, Exercise  # noqa: PLC0415

    folder = _folder(name)
    now = Exercise.read(folder).ready if name == NAME else Told.read(folder).now
    with opened(folder, now):
        paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        if name == NAME:
            paths["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        wanted = command or (os.environ.get("SHELL", "/bin/sh"),)
        cwd = folder if name == NAME else None
        return subprocess.run(wanted, env=os.environ | paths, cwd=cwd, check=False).returncode


@exit_test.command()
@_exercise
@click.option("--cause", default="", help="Of an incident: as parity names causes.")
@click.option("--view", default="", help="Whose fault it is; or the new view.")
@click.option("--hours", type=int, help="How far a clock is ahead; behind, if negative.")
@click.option(
    "--bound", type=float, help="Of the new view: the per cent of mismatches that 50 equal rows leave possible."
)
def check(name: str, *, cause: str, view: str, hours: int | None, bound: float | None) -> None:
    """Say whether an answer is right, and if it is not (exit 3) what to look at."""
    from lockstep.parity.cause import Cause  # noqa: PLC0415 - all of these take their time to import
    from pipelines._exit_test.sealed import Answer, Sealed  # noqa: PLC0415
    from pipelines._exit_test.words import HINTS  # noqa: PLC0415

    folder = _folder(name)
    if name == "view":
        if not view or bound is None:
            raise BadInput("say which --view, and which --bound 50 served rows leave possible")
        _check_view(folder, view, bound / 100)
        return
    if cause not in set(Cause):
        raise BadInput(f"--cause {cause!r} is none of {', '.join(Cause)}")
    if wrong := Sealed.read(folder).wrong(Answer(cause, view, hours)):
        raise Refused(f"{name}: not right yet: {', '.join(wrong)}", hint=" ".join(HINTS[part] for part in wrong))
    click.echo(f"{name}: that is it")


def _check_view(folder: Path, view: str, bound: float) -> None:
    from pipelines._exit_test import new_view  # noqa: PLC0415 - all of these take their time to import
    from pipelines._exit_test.home import opened  # noqa: PLC0415
    from pipelines._exit_test.words import checked_line  # noqa: PLC0415

    exercise = new_view.Exercise.read(folder)
    with opened(folder, exercise.ready) as settings:
        checked = new_view.check(settings, exercise, view, bound)
    if checked.wrong:
        raise Refused(f"view: not right yet: {'; '.join(checked.wrong)}")
    click.echo(checked_line(view, checked))


def _seed(folder: Path, given: int | None, *, again: bool) -> int:
    """Return the seed given, or where single incidents are prepared again the one used last, or a new one; and keep it."""
    file = folder / SEED
    kept = int(file.read_text()) if again and given is None and file.exists() else secrets.randbelow(2**32)
    seed = kept if given is None else given
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{seed}\n")
    return seed


def _folder(name: str) -> Path:
    from lockstep.settings import Settings  # noqa: PLC0415 - pydantic takes its time to import
    from pipelines._exit_test.home import FOLDER  # noqa: PLC0415

    return Settings.load().home / FOLDER / name
