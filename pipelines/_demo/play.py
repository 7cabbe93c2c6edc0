"""Play the loop: history, three trained models, some days of real requests in simulated time, two attempts at promotion.

Everything that happens to the data is a rendered workflow, run as `lockstep run` would. The demo itself only plays the world:
it delivers the raw events as the source systems would, sends the requests as they happen, moves the clock, and keeps Redis and
the served processes up.
"""

import math
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from lockstep.errors import Terminal
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.parity import kept
from lockstep.parity.signature import make_keys
from lockstep.settings import Settings
from lockstep.training.registry import CHAMPION, find_model, require_model
from lockstep.training.span import Span
from lockstep.views import load_use_case
from pipelines._commands.progress import Reporter, Stage
from pipelines._demo.candidate import SECONDS, Candidate
from pipelines._demo.summary import Attempt, make_report, write_page, write_training_page
from pipelines._demo.world import Requests, Scenario, World
from pipelines._run.rendered import run_rendered
from pipelines.local import Run

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
REPLAYED = 400


@dataclass(frozen=True)
class Scale:
    """How large a world the demo plays.

    Attributes:
        size: of the world, as the use case counts it (cards, for the reference one).
        history: what is there before the live days.
        days: how many days are lived through, hour by hour.
        cadence: hours from one run of `compute-and-materialize` to the next. Each is about the views that would else pass
            their freshness objective before the next one, and computes all of their ticks since their last one.
        replayed: rows that the shadow replay sends at noon and at the end of each day, to the model and to its fallback.
    """

    size: int = 2_700
    history: timedelta = timedelta(days=90)
    days: int = 7
    cadence: int = 3

    @property
    def replayed(self) -> int:
        """So many that those that the fallback model answers are evidence enough."""
        return math.ceil(REPLAYED / (2 * self.days))


@dataclass
class Demo:
    """One run of the demo, in a home of its own that starts empty.

    Args:
        settings: of the demo's home, with its clock and its store.
        manifests: the root of the rendered manifests.
        reporter: told what is going on.
        scenario: the use case's `demo` module: which world, which baseline, which skew.
        scale: how large a world.
    """

    settings: Settings
    manifests: Path
    reporter: Reporter
    scenario: Scenario
    scale: Scale = Scale()
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    _computed: dict[str, datetime] = field(default_factory=dict[str, datetime], init=False)

    def run(self) -> dict[str, Any]:
        """Run the loop; return what `report.json` holds.

        Raises:
            LockstepError: a step failed; the message names it and its log.
        """
        started = time.monotonic()
        use_case = load_use_case(self.settings.use_case)
        scenario, name = self.scenario, use_case.model.name
        lake = Lake.open(self.settings, use_case.project)
        clock, length = self.settings.clock, timedelta(days=self.scale.days)
        with self._stage("simulate") as stage:
            days = (self.scale.history + length + DAY).days
            world = World(lake, use_case, scenario, self.scale.size, days)
            since = world.start + self.scale.history
            told = world.deliver(since)
            clock.advance_to(since)
            stage.say(", ".join(f"{rows:,} {table}" for table, rows in told.items()) + " in the lake")
        with self.reporter.stage("keys") as stage:
            stage.say(f"parity reports are signed by {make_keys(self.settings).private}")
        with self._stage("apply-definitions"):
            self._workflow("apply-definitions")
        with self._stage("backfill"):
            # A day before the first row to train on: by then each quiet key has had its heartbeat.
            start = max(world.start, Span.of(use_case.model, since).start - DAY)
            self._workflow("backfill", start=start.isoformat(), end=since.isoformat())
        with self._stage("train", 3) as stage:
            before = self._train(stage, name, "without feature views", since, service=scenario.BASELINE)
            after = self._train(stage, name, "with feature views", since)
            # The same rows to the last: nothing new is in the lake. Only the contract says another time.
            clock.advance_to(since + MINUTE)
            skewed = self._train(stage, name, "the same model, one column misread", since + MINUTE)
        with ExitStack() as running:
            with self._stage("serve", 3) as stage:
                for candidate in (before, after, skewed):
                    skew = scenario.SKEW if candidate is skewed else None
                    candidate.serve(self.settings, name, running, skew)
                    stage.advance()
                os.environ["LOCKSTEP_SHADOW_URL"] = after.url
            with self._stage("live", self.scale.days * 24) as stage:
                requests = world.requests(since, length)
                self._live(stage, world, since, requests, [before, after, skewed], after)
        until = clock.now()
        with self._stage("promote", 2) as stage:
            attempts = []
            for candidate in (after, skewed):
                attempts.append(self._promote(lake, name, candidate, since, until))
                stage.advance()
        self.seconds["total"] = round(time.monotonic() - started, 1)
        ledger = Ledger.open(self.settings, use_case.project)
        report = make_report(
            self.settings, use_case, lake, ledger, [before, after, skewed], attempts, scenario, requests, self.seconds
        )
        write_page(self.settings, attempts, report, scenario.POSITIVES)
        write_training_page(self.settings, use_case, lake, after.model)
        return report

    def _train(self, stage: Stage, name: str, label: str, known_at: datetime, service: str = "") -> Candidate:
        outputs = self._workflow("train", known_at=known_at.isoformat(), service=service).outputs
        model = require_model(self.settings, name, outputs["version"])
        stage.say(
            f"version {model.version}, {label}: average precision {model.metrics['average_precision']:.3f}, "
            f"AUC {model.metrics['auc']:.3f} on the days held out"
        )
        stage.advance()
        return Candidate(label, model, int(outputs["rows"]))

    def _live(
        self,
        stage: Stage,
        world: World,
        since: datetime,
        requests: Requests,
        candidates: list[Candidate],
        replayed: Candidate,
    ) -> None:
        """Live through the ticks: what happens inside the lags is asked before the tick is online, the rest after."""
        clock, end = self.settings.clock, since + timedelta(days=self.scale.days)
        with httpx.Client(timeout=SECONDS) as client:
            for number in range(self.scale.days * 24):
                tick = since + number * HOUR
                runs = number % self.scale.cadence == 0
                if runs:
                    clock.advance_to(tick + world.compute_lag - MINUTE)
                    self._ask(client, candidates, requests.between(tick, tick + world.both_lags))
                    next_run = tick + self.scale.cadence * HOUR + world.both_lags
                    self._compute(world, tick, self._due(world, next_run))
                clock.advance_to(tick + HOUR - MINUTE)
                online = tick + world.both_lags if runs else tick
                self._ask(client, candidates, requests.between(online, tick + HOUR))
                if number % 12 == 11:
                    model = str(replayed.model.version)
                    self._workflow("shadow-replay", model=model, rows=str(self.scale.replayed))
                stage.advance()
        self._compute(world, end, [view.name for view in world.views])

    def _due(self, world: World, next_run: datetime) -> list[str]:
        """Return the views that would be older than their objective when the next run is online."""
        return [
            view.name
            for view in world.views
            if (last := self._computed.get(view.name)) is None or next_run - last > view.freshness.objective
        ]

    def _compute(self, world: World, tick: datetime, views: list[str]) -> None:
        self.settings.clock.advance_to(tick + world.compute_lag)
        world.deliver(tick + world.compute_lag)
        if views:
            self._workflow("compute-and-materialize", window_end=tick.isoformat(), views=",".join(views))
            self._computed.update(dict.fromkeys(views, tick))

    @staticmethod
    def _ask(client: httpx.Client, candidates: list[Candidate], requests: Requests) -> None:
        for candidate in candidates:
            candidate.ask(client, requests)

    def _promote(self, lake: Lake, name: str, candidate: Candidate, since: datetime, until: datetime) -> Attempt:
        run = self._workflow(
            "promote",
            model=str(candidate.model.version),
            since=since.isoformat(),
            until=until.isoformat(),
            tolerate_refusal=True,
        )
        # That of the model is made first, then that of its fallback, if it has one.
        named = list(dict.fromkeys(n.outputs["report"] for n in run.nodes if n.outputs.get("report")))
        if not named:
            raise Terminal(
                f"workflow promote wrote no parity report of version {candidate.model.version}",
                hint=f"its logs: {self.settings.home / 'runs' / run.name}",
            )
        report, *of_fallback = [kept.load(self.settings, lake, name) for name in named]
        champion = find_model(self.settings, name, CHAMPION)
        promoted = champion is not None and champion.version == candidate.model.version
        return Attempt(candidate, report, of_fallback[0] if of_fallback else None, promoted)

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Run:
        return run_rendered(self.settings, self.manifests, name, parameters, tolerate_refusal=tolerate_refusal)

    @contextmanager
    def _stage(self, name: str, parts: int = 0) -> Generator[Stage]:
        started = time.monotonic()
        with self.reporter.stage(name, parts) as stage:
            yield stage
        self.seconds[name] = round(time.monotonic() - started, 1)
