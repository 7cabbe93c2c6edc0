"""The exercise of a new view: a copy of the use case to work on, a world for it, and what 50 served rows of the view prove."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel

from lockstep.changes.revisions import package_folder
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.offline.registry import apply_definitions
from lockstep.online.store import connect
from lockstep.parity.one_view import alone, hold_served, rows_to_ask
from lockstep.parity.sample import Window, read_served, uniform
from lockstep.parity.signature import make_keys
from lockstep.parity.verdict import upper_bound
from lockstep.serving.drain import drain
from lockstep.serving.rehearse import rehearse
from lockstep.settings import Settings
from lockstep.views import UseCase, load_use_case
from pipelines._demo.world import World, load_simulator
from pipelines._exit_test.home import new_home
from pipelines._use_case import load_module

NAME = "view"
ROWS = 50
TASK = "task.json"
_SIZE, _DAYS = 400, 40
_BACK = timedelta(days=3)
_EVIDENCE = 0.1
_NEAR = 0.001
_MANIFESTS = "manifests"


class Exercise(BaseModel, frozen=True):
    """What is asked for.

    Attributes:
        task: in words.
        package: the copy of the use case that is worked on.
        known: the views that were there before.
        start: from which tick on the new one is to be filled,
        now: and up to which.
        ready: what the clock says when it is begun: that tick can be computed and be online.
    """

    task: str
    package: Path
    known: frozenset[str]
    start: datetime
    now: datetime
    ready: datetime

    @classmethod
    def read(cls, folder: Path) -> "Exercise":
        """Read it from the home of the exercise.

        Raises:
            BadInput: nothing was begun there.
        """
        try:
            return cls.model_validate_json((folder / TASK).read_bytes())
        except FileNotFoundError:
            raise BadInput(f"{folder} holds no exercise", hint="`lockstep exit-test begin view` prepares it") from None


class _Module(Protocol):
    TASK: str


@dataclass(frozen=True)
class Checked:
    """What became of the view.

    Attributes:
        wrong: what is not as asked for; nothing if the exercise is passed.
        rows: how many served rows were compared.
        mismatches: how many of them differ.
        bound: which rate of mismatches that leaves possible.
        confidence: how surely.
    """

    wrong: tuple[str, ...]
    rows: int = 0
    mismatches: int = 0
    bound: float = 1.0
    confidence: float = 0.0


def prepare(settings: Settings, use_case: UseCase, folder: Path, manifests: Path) -> Exercise:
    """Make the home of the exercise: a copy of the package and of the workflows, and a lake with raw events.

    Raises:
        BadInput: the use case has no world, or nothing to ask for.
    """
    module = cast("_Module", load_module(settings.use_case, "exit_test", "no view to ask for", ("TASK",)))
    package = package_folder(settings.use_case) / settings.use_case.partition(".")[0]
    simulator = load_simulator(settings.use_case)
    with new_home(folder, settings.use_case) as own:
        make_keys(own)
        copy = folder / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if manifests.exists():
            shutil.copytree(manifests, folder / _MANIFESTS)
        world = World(Lake.open(own, use_case.project), use_case, simulator, _SIZE, _DAYS)
        now = world.start + timedelta(days=_DAYS - 2)
        world.deliver(now)
        ready = now + world.both_lags + timedelta(minutes=5)
        own.clock.advance_to(ready)
        known = frozenset(view.name for view in (*use_case.views, *use_case.on_demand))
        exercise = Exercise(task=module.TASK, package=copy, known=known, start=now - _BACK, now=now, ready=ready)
    (folder / TASK).write_text(exercise.model_dump_json(indent=2) + "\n")
    return exercise


def check(settings: Settings, exercise: Exercise, name: str, bound: float) -> Checked:
    """Look whether a view is declared, computed, online, and in parity on 50 served rows.

    Args:
        settings: of the exercise's home, while its store runs.
        exercise: what was asked for.
        name: of the view.
        bound: which rate of mismatches 50 equal rows leave possible, as the trainee has it.
    """
    sys.path.insert(0, str(exercise.package.parent))
    use_case = load_use_case(settings.use_case)
    lake, ledger = Lake.open(settings, use_case.project), Ledger.open(settings, use_case.project)
    if missing := list(_missing(settings, use_case, lake, ledger, exercise, name)):
        return Checked(tuple(missing))
    it = alone(use_case, name, exercise.now)
    apply_definitions(settings, it.use_case)
    asked = rows_to_ask(settings, lake, it, ROWS - 1)  # and one that nobody has
    digest, since = f"exit-test-{it.contract.hash[:12]}", settings.clock.now()
    rehearse(settings, it.contract, asked, digest)
    drain(lake, connect(settings), use_case.project)
    window = Window(digest, it.contract, shadow=True, since=since, until=settings.clock.now() + timedelta(minutes=1))
    held = hold_served(settings, lake, ledger, it, uniform(read_served(settings, lake, window), ROWS, seed=0))
    mismatches, confidence = sum(held.differing.values()), settings.parity_confidence
    proven = upper_bound(mismatches, held.rows, confidence)
    wrong = [f"{what}: {times} of {held.rows} served rows" for what, times in held.differing.items()]
    if held.rows < ROWS:
        wrong.append(f"{held.rows} rows came through the served log, {ROWS} were asked for")
    wrong += [
        f"{some} of {of} keys of {view} had a value, so nearly nothing was compared"
        for view, (some, of) in held.with_value.items()
        if some < _EVIDENCE * of
    ]
    if abs(bound - proven) > _NEAR:
        wrong.append(
            f"{mismatches} mismatches in {held.rows} rows do not mean a rate below {bound:.1%}: see what docs/design.md says of "
            "the verdict's bound, at the confidence of the settings"
        )
    return Checked(tuple(wrong), held.rows, mismatches, proven, confidence)


def _missing(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, exercise: Exercise, name: str
) -> Iterator[str]:
    """Yield what there is not yet of a view, first things first."""
    view = next((view for view in use_case.views if view.name == name), None)
    if name in exercise.known:
        yield f"{name} was there before: a new view is asked for"
    elif view is None:
        yield f"{name} is not among the stored views of {exercise.package}: see its definitions.py"
    elif not lake.exists(view.table) or not ledger.computes(name):
        yield f"{name} was never computed: `lockstep plan` says what a new view takes"
    else:
        done = [row for row in ledger.materializations(name) if row.state is State.COMMITTED]
        if not done:
            yield f"nothing of {name} is online: see `lockstep doctor {name}`"
        elif (age := exercise.now - done[-1].watermark) > view.every:
            yield f"what is online of {name} is {age / timedelta(hours=1):.0f} h behind: see `lockstep views {name}`"
        elif (first := ledger.computes(name)[0].tick_from) > exercise.start:
            yield f"{name} has no ticks before {first.isoformat()}: {exercise.start.isoformat()} is asked for"
