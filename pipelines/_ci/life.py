"""Live through the life of one view in a home that starts empty, by the rendered workflows, and hold what came of it."""

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lockstep.clock import MICROSECOND, to_micros
from lockstep.lake import Lake
from lockstep.local.serving import LocalService
from lockstep.materialize.ledger import Ledger
from lockstep.offline.registry import apply_definitions
from lockstep.parity import kept, one_view
from lockstep.parity.one_view import Alone, Held
from lockstep.parity.recompute import Recomputed, joined, keys_that_change, recompute, ticks_between
from lockstep.parity.report import ParityReport
from lockstep.parity.sample import Window, read_served
from lockstep.parity.signature import make_keys
from lockstep.serving.rehearse import rehearse
from lockstep.settings import Settings
from lockstep.training.registry import require_model
from lockstep.views import UseCase
from lockstep.views.declare import OnDemandView, StoredView
from lockstep.views.windowed import WindowedView
from pipelines._commands.progress import Reporter, Stage
from pipelines._demo.world import Simulator, World
from pipelines._run.rendered import run_rendered

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
# Beyond the promised lags: a run plans when its clock has moved on a little, and until created + visible lag training may not see
# what is served already.
SLACK = 5 * MINUTE
LIVE_RUNS = 2
ASKED = 100
REPLAYED = 200
HISTORY_ROWS = 1_000
# Ticks of history, and live ones, whose values are worked out again from the raw source.
WORKED_OUT = 24
# Of the keys that are asked for, how many have to hold a value at some moment.
EVIDENCE = 0.1


@dataclass(frozen=True)
class Sample:
    """How much of a life is lived.

    Attributes:
        size: of the world, as the use case counts it.
        days: days of ticks that are back-filled; more where a model is trained, which needs as many as its recipe says.
        with_model: train and serve the model, if its service reads the view.
    """

    size: int
    days: int
    with_model: bool = True


@dataclass(frozen=True)
class Lived:
    """What came of a life.

    Attributes:
        told: rows in the lake's raw tables.
        filled: rows in the tables of the stored views.
        values: of the stored views' tables, held against the raw source.
        served: rows served by a contract of the view alone, held against the lake and against training.
        history: rows of the past, held against the definition.
        moments: when rows were asked for, in words.
        in_model: whether the model's service reads the view.
        asked: how many rows were asked for.
        model: the parity report of a model that was trained and served, if it reads the view.
        service: what it was trained on.
        left_out: features that were served and compared nowhere, with their types.
    """

    told: Mapping[str, int]
    filled: Mapping[str, int]
    values: Recomputed
    served: Held
    history: Held
    moments: tuple[str, ...]
    in_model: bool
    asked: int
    model: ParityReport | None = None
    service: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the view is not proven in step; none if it is."""
        found = [f"values: {told}" for told in self.values.late]
        found += [
            f"values: {what} is not what the raw source says, in {times} case{'s' * (times != 1)}"
            for what, times in self.values.differing.items()
        ]
        if self.filled and not self.values.alive:
            found.append("values: no key had a value at any tick, so nothing is proven")
        found += [f"served: {what} differs in {rows} rows" for what, rows in self.served.differing.items()]
        found += [f"history: {what} differs in {rows} rows" for what, rows in self.history.differing.items()]
        if self.served.rows != self.asked:
            found.append(
                f"served: {self.served.rows} of the {self.asked} rows that were asked for came back in the served log"
            )
        found += [
            f"served: {some} of {all_of} {'keys' if self.filled else 'rows'} of {name} had a value at some moment, "
            "so too little is proven"
            for name, (some, all_of) in self.served.with_value.items()
            if some < all_of * EVIDENCE
        ]
        if not self.served.values or not self.served.with_value:
            found.append("served: nothing was compared")
        if self.served.excused:
            found.append(
                f"served: {self.served.excused} rows differ for a reason that a replay in its own time cannot have"
            )
        if self.model is not None and self.model.verdict.value != "pass":
            found.append(f"model: parity says {self.model.verdict.value}: {'; '.join(self.model.reasons)}")
        return tuple(found)


@dataclass
class Life:
    """One life of a view.

    Args:
        settings: of the home, with its clock and its store; the environment says the same.
        manifests: the root of the rendered manifests.
        reporter: told what is going on.
        simulator: the use case's world.
        use_case: the definitions.
        view: the view's name.
        sample: how much is lived.
    """

    settings: Settings
    manifests: Path
    reporter: Reporter
    simulator: Simulator
    use_case: UseCase
    view: str
    sample: Sample
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def live(self) -> Lived:
        """Live it and compare.

        Raises:
            LockstepError: a step failed.
        """
        recipe, clock = self.use_case.model, self.settings.clock
        read_by_model = self.view in names_behind(recipe.service.features)
        model_is_tried = read_by_model and self.sample.with_model
        views = self._views(with_model=model_is_tried)
        lake, ledger = (
            Lake.open(self.settings, self.use_case.project),
            Ledger.open(self.settings, self.use_case.project),
        )
        back = timedelta(days=self.sample.days)
        if model_is_tried:
            # A day before the first row to train on: by then each quiet key has had its heartbeat.
            back = max(back, recipe.train + 2 * recipe.gap + recipe.test + 2 * DAY)
        step = step_of(self.use_case.views, views)
        with self._stage("simulate") as stage:
            before = back + _reach(views)
            days = (before + LIVE_RUNS * step + 2 * DAY).days
            world = World(lake, self.use_case, self.simulator, self.sample.size, days)
            since = world.start + before
            told = world.deliver(since)
            clock.advance_to(since)
            stage.say(", ".join(f"{rows:,} {table}" for table, rows in told.items()) + " in the lake")
        it = one_view.alone(self.use_case, self.view, since)
        with self._stage("apply-definitions"):
            self._workflow("apply-definitions")
            apply_definitions(self.settings, it.use_case)  # and the service of the view alone
        start = since - back
        with self._stage("backfill"):
            if views:
                named = ",".join(view.name for view in views)
                self._workflow("backfill", start=start.isoformat(), end=since.isoformat(), views=named)
        with self._dark(since, tried=model_is_tried) as dark:
            with self._stage("live", LIVE_RUNS) as stage:
                asked, moments, outdated = self._live(stage, world, it, views, since, step, replays=dark is not None)
            report = self._verify_model(lake, dark, since) if dark else None
        with self._stage("compare"):
            values = self._values(lake, ledger, it, asked, (start, since, since + LIVE_RUNS * step))
            values = replace(values, late=(*outdated, *values.late))
            window = Window(_digest(it), it.contract, shadow=True, since=since, until=clock.now() + MINUTE)
            served = read_served(self.settings, lake, window)
            held = one_view.hold_served(self.settings, lake, ledger, it, served)
            history = one_view.hold_history(self.settings, lake, it, past_of(it, asked, start, since))
        filled = {view.name: lake.table(view.table).scan().count() for view in it.stored}
        return Lived(
            *(told, filled, values, held, history, moments, read_by_model),
            asked=len(asked) * len(moments),
            model=report,
            service=recipe.service.name if report else "",
            left_out=tuple(f"{name} ({it.view.features[name]})" for name in it.left_out),
        )

    def _values(
        self,
        lake: Lake,
        ledger: Ledger,
        it: Alone,
        asked: Sequence[Mapping[str, Any]],
        edges: tuple[datetime, datetime, datetime],
    ) -> Recomputed:
        """Hold the tables against their sources: of the keys that were asked for, and of those that changed in the live runs."""
        start, since, last = edges
        found: list[Recomputed] = []
        for view in it.stored:
            keys = {row[view.entity.join_key] for row in asked}
            keys |= set(keys_that_change(lake, view, since, last, ASKED))
            ticks = [
                tick for span in ((start, since), (since, last)) for tick in ticks_between(view, *span, WORKED_OUT)
            ]
            found.append(recompute(lake, ledger, view, keys, ticks, ticks[-1]))
        return joined(found)

    def _views(self, *, with_model: bool) -> tuple[StoredView, ...]:
        """Return the stored views to compute: what the view is made of, and what the model reads."""
        wanted = {view.name for view in one_view.stored_behind(one_view.find_view(self.use_case, self.view))}
        if with_model:
            wanted |= names_behind(self.use_case.model.service.features)
        return tuple(view for view in self.use_case.views if view.name in wanted)

    @contextmanager
    def _dark(self, since: datetime, *, tried: bool) -> Generator[str | None]:
        """Train the model and keep it served in the dark inside the block; give what to call it, or None."""
        if not tried:
            yield None
            return
        name = self.use_case.model.name
        with self._stage("train"):
            version = self._workflow("train", known_at=since.isoformat())["version"]
        model = require_model(self.settings, name, version)
        with LocalService(self.settings, model.model_dir, name, shadow=True) as service:
            os.environ["LOCKSTEP_SHADOW_URL"] = service.predict_url
            yield version

    def _live(
        self,
        stage: Stage,
        world: World,
        it: Alone,
        views: Sequence[StoredView],
        since: datetime,
        step: timedelta,
        *,
        replays: bool,
    ) -> tuple[list[dict[str, Any]], tuple[str, ...], list[str]]:
        """Ask before and after each run, and once more when all that is stored has passed its ttl.

        Returns:
            What was asked, when, and which run did not read what its sources held by then.
        """
        clock, moments, outdated = self.settings.clock, ["after the back-fill"], list[str]()
        clock.advance_to(since + world.both_lags + SLACK)
        lake = Lake.open(self.settings, self.use_case.project)
        asked = one_view.rows_to_ask(self.settings, lake, it, ASKED)
        self._ask(it, asked, replays=replays)
        for number in range(1, LIVE_RUNS + 1):
            tick = since + number * step
            clock.advance_to(tick + world.compute_lag - MINUTE)
            self._ask(it, asked, replays=False)
            moments.append(f"before run {number}")
            clock.advance_to(tick + world.compute_lag)
            world.deliver(tick + world.compute_lag)
            if views:
                named = ",".join(view.name for view in views)
                self._workflow("compute-and-materialize", window_end=tick.isoformat(), views=named)
                outdated += [f"run {number} {told}" for told in self._outdated(lake, views)]
            clock.advance_to(tick + world.both_lags + SLACK)
            self._ask(it, asked, replays=replays)
            moments.append(f"after run {number}")
            stage.advance()
        if longest := max((view.ttl for view in it.stored if view.ttl), default=timedelta(0)):
            clock.advance_to(since + LIVE_RUNS * step + longest + MINUTE)
            self._ask(it, asked, replays=False)
            moments.append("after the ttl")
        self._workflow("drain-served-log")
        return asked, tuple(moments), outdated

    def _outdated(self, lake: Lake, views: Sequence[StoredView]) -> Iterator[str]:
        """Yield which views were computed last from something else than what their source holds now."""
        ledger = Ledger.open(self.settings, self.use_case.project)
        for view in views:
            current, rows = lake.current(view.source.table), ledger.computes(view.name)
            if current is None or not rows or rows[-1].sources != {view.source.table: current.id}:
                yield f"did not read the newest snapshot of {view.source.table} for {view.name}"

    def _ask(self, it: Alone, asked: Sequence[Mapping[str, Any]], *, replays: bool) -> None:
        rehearse(self.settings, it.contract, asked, _digest(it))
        if replays:
            self._workflow("shadow-replay", rows=str(REPLAYED), batch="100")

    def _verify_model(self, lake: Lake, version: str, since: datetime) -> ParityReport:
        with self._stage("verify-parity") as stage:
            stage.say(f"the report is signed by {make_keys(self.settings).private}")
            until = (self.settings.clock.now() + MINUTE).isoformat()
            given = {"model": version, "since": since.isoformat(), "until": until, "shadow": "true"}
            found = self._workflow("verify-parity", **given)
            return kept.load(self.settings, lake, found["report"])

    def _workflow(self, name: str, **parameters: str) -> dict[str, str]:
        return run_rendered(self.settings, self.manifests, name, parameters).outputs

    @contextmanager
    def _stage(self, name: str, parts: int = 0) -> Generator[Stage]:
        started = time.monotonic()
        with self.reporter.stage(name, parts) as stage:
            yield stage
        self.seconds[name] = round(time.monotonic() - started, 1)


def names_behind(features: Sequence[tuple[StoredView | OnDemandView, str]]) -> set[str]:
    """Return the views that a service takes, and the stored ones that its on-demand views read."""
    views = [view for view, _ in features]
    return {view.name for view in views} | {stored.name for view in views for stored in one_view.stored_behind(view)}


def _reach(views: Sequence[StoredView]) -> timedelta:
    """Return how far back the windows of a tick look, in whole days."""
    lengths = [view.windows[-1] + view.delay for view in views if isinstance(view, WindowedView)]
    return -(-max(lengths, default=timedelta(0)) // DAY) * DAY


def step_of(declared: Sequence[StoredView], views: Sequence[StoredView]) -> timedelta:
    """Return the time from one run to the next, whole ticks: what a run brought is asked for before the next one is due."""
    needed = max((view.compute_lag + view.visible_lag for view in declared), default=timedelta(0)) + SLACK
    return max((-(-needed // view.every) * view.every for view in views), default=timedelta(hours=1))


def past_of(
    it: Alone, asked: Sequence[Mapping[str, Any]], start: datetime, end: datetime
) -> list[tuple[Mapping[str, Any], int]]:
    """Return rows of the past: what was asked live, at times that cover the back-filled days evenly.

    Of three times one is the very microsecond at which the row of a tick becomes readable, and one is that before it.
    """
    first, span = to_micros(start), (end - start) // MICROSECOND
    found: list[tuple[Mapping[str, Any], int]] = []
    for n in range(HISTORY_ROWS):
        time = first + span * n // HISTORY_ROWS
        if it.stored and n % 3:
            view = it.stored[n % len(it.stored)]
            tick = time - time % (view.every // MICROSECOND)
            time = tick + (view.compute_lag + view.visible_lag) // MICROSECOND - (n % 3 == 2)
        found.append((asked[n * 31 % len(asked)], time))
    return found


def _digest(it: Alone) -> str:
    """Return what the rows of the view alone are logged under, where those of a model have its digest."""
    return f"alone-{it.contract.hash[:12]}"
