"""Prepare incidents: draw them, live through them in a home of their own, and say what somebody on call would be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from lockstep.clock import to_micros
from lockstep.errors import BadInput
from lockstep.parity.signature import make_keys
from lockstep.settings import Settings
from lockstep.skew.fault import Fault
from lockstep.skew.laboratory import predictor
from lockstep.skew.subject import Subject, view_rows
from lockstep.skew.world import World, scratch_settings
from lockstep.views.use_case import UseCase
from pipelines._commands.progress import Reporter
from pipelines._exit_test.home import APART, copy_registry, new_home
from pipelines._exit_test.incident import CAUSES, Incident, choose, tried_faults
from pipelines._exit_test.measure import Measured, Rollout, average_precision, measure, replayed
from pipelines._exit_test.sealed import Answer, Sealed

INCIDENTS = ("first", "second", "third")
DAYS = 3
TOLD = "told.json"
_LOGGED = 6_000


class Told(BaseModel, frozen=True):
    """What somebody on call is told, measured.

    Attributes:
        incident: which one.
        deployed: when the deployment went out.
        now: what the clock says.
        days: how long the window is that is judged.
        requests: in it.
        positives: of these, by the labels that have come meanwhile.
        before: the average precision that the model as it was has on these requests.
        since: the one that was served.
        by_fallback: the share of the requests that the fallback model answered.
    """

    incident: str
    deployed: datetime
    now: datetime
    days: int
    requests: int
    positives: int
    before: float
    since: float
    by_fallback: float

    @property
    def lost(self) -> float:
        """Which share of the average precision is lost."""
        return 1 - self.since / self.before

    @classmethod
    def read(cls, folder: Path) -> "Told":
        """Read it from the home of an incident.

        Raises:
            BadInput: nothing was begun there.
        """
        try:
            return cls.model_validate_json((folder / TOLD).read_bytes())
        except FileNotFoundError:
            raise BadInput(f"{folder} holds no incident", hint="`lockstep exit-test begin` prepares it") from None


@dataclass
class StoppedWorld(World):
    """A world in which one view is computed and, from some tick on, not brought online any more."""

    stopped: str = ""
    since: datetime | None = None

    def bring_online(self, view: str, tick: datetime) -> None:
        """Bring online what was computed, unless that has stopped."""
        if view != self.stopped or self.since is None or tick < self.since:
            super().bring_online(view, tick)


def begin(
    state: Settings, use_case: UseCase, folder: Path, wanted: Sequence[str], seed: int, reporter: Reporter
) -> list[Told]:
    """Prepare incidents.

    Args:
        state: the settings of a finished state, of which nothing is changed.
        use_case: its definitions.
        folder: below which each incident gets its home; what an earlier one left there goes.
        wanted: which incidents.
        seed: of all chance: which cause is behind which incident, of what, and from when on.
        reporter: told what is going on.

    Raises:
        BadInput: there is no such state, or nothing in it costs as much as is wanted.
    """
    draw = np.random.default_rng(seed)
    causes = [CAUSES[place] for place in draw.permutation(len(CAUSES)).tolist()]
    with scratch_settings(folder / "scratch", state) as scratch:
        with reporter.stage("look"):
            subject = Subject.of(state, use_case, scratch, DAYS)
            rows = view_rows(subject, scratch)
        with predictor(scratch, subject) as address:
            faults = tried_faults(subject.contract, draw)
            with reporter.stage("measure"):
                world = World(scratch.model_copy(update={"request_time_limit": APART}), use_case, subject.views, rows)
                measured = measure(subject, world, address, faults)
            told: list[Told] = []
            for name, cause in zip(INCIDENTS, causes, strict=True):
                incident = choose(cause, measured, np.random.default_rng([seed, *name.encode()]), seed)
                if name in wanted:
                    with reporter.stage(name):
                        told.append(_live(name, incident, measured, rows, address, folder / name, seed))
    return told


def _live(
    name: str,
    incident: Incident,
    measured: Measured,
    rows: Mapping[str, pa.Table],
    address: str,
    folder: Path,
    seed: int,
) -> Told:
    """Live through an incident in its home."""
    subject = measured.subject
    with new_home(folder, subject.settings.use_case) as own:
        copy_registry(subject.settings, folder)
        make_keys(own)
        world = StoppedWorld(own, subject.use_case, subject.views, rows)
        nodes, reached = [Fault(name="node-a", says="")], incident.reached(subject.times_us, seed)
        if incident.stops:
            world.stopped, world.since = incident.view, incident.deployed
            reached = np.ones(len(reached), np.bool_)
        else:
            nodes.append(replace(incident.fault, name="node-b"))
        replay = Rollout(subject, world, address, nodes, logged=_LOGGED, seed=seed, reached=reached)
        first, last = (services := replayed(replay))[0], services[-1]
        start, end = to_micros(subject.start), to_micros(subject.end)
        incident.fault.afterwards(world.lake, subject.contract, start, end)
        own.clock.advance_to(subject.end)
    for file in folder.glob("clock?*"):
        file.unlink()  # the clock of a node, by how far it is ahead
    Sealed.of(Answer(incident.cause.value, incident.view, incident.hours or None)).write(folder)
    told = Told(
        incident=name,
        deployed=incident.deployed,
        now=subject.end,
        days=DAYS,
        requests=subject.rows.num_rows,
        positives=int(subject.labels.sum()),
        before=average_precision(subject, measured.clean),
        since=average_precision(subject, np.where(reached, last.scores, first.scores)),
        by_fallback=float(np.where(reached, last.fell_back, first.fell_back).mean()),
    )
    (folder / TOLD).write_text(told.model_dump_json(indent=2) + "\n")
    return told
