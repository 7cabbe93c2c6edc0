"""`lockstep demo`: the whole loop on this machine, from raw events to a gated promotion, in simulated time.

Everything that happens to the data is a rendered workflow, run as `lockstep run` would. The demo itself only plays the world:
it delivers the raw events as the source systems would, moves the clock, and keeps Redis and the served processes up.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lockstep.errors import BadInput, Terminal, Transient
from lockstep.lake import Lake
from lockstep.lake.engine import connect
from lockstep.local.redis import LocalRedis
from lockstep.local.serving import LocalService
from lockstep.materialize.ledger import Ledger, State
from lockstep.online import store
from lockstep.parity import report as parity_report
from lockstep.settings import Settings
from lockstep.training.registry import CHALLENGER, CHAMPION, by_alias, challenger
from lockstep.views import UseCase, load_use_case
from pipelines.local import Run, load_template, run_workflow


@dataclass(frozen=True)
class Scale:
    """How large a world the demo plays.

    Attributes:
        customers: cards in it; twice as many terminals.
        radius: how far a card goes for a terminal, on the simulator's 100 x 100 grid.
        history: what is there before the live stretch.
        ticks: hours lived through.
        rows: events a replay sends; there are two replays an hour.
    """

    customers: int = 1_000
    radius: float = 11.0
    history: timedelta = timedelta(days=90)
    ticks: int = 24
    rows: int = 20


EVENT_PREFIX = b"_ts:"
"""Feast's own: the field that says which event a view's stored values belong to."""

Say = Callable[[str], None]


@dataclass
class Demo:
    """One run of the demo, in a home of its own that starts empty.

    Args:
        settings: of the demo's home, with its clock and its store.
        manifests: the root of the rendered manifests.
        say: told what is going on, a line at a time.
        scale: how large a world.
    """

    settings: Settings
    manifests: Path
    say: Say
    scale: Scale = Scale()
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Run the loop; return what `report.json` holds.

        Raises:
            LockstepError: a step failed; the message names it and its log.
        """
        started = time.monotonic()
        use_case = load_use_case(self.settings.use_case)
        lake = Lake.open(self.settings, use_case.project)
        with self._stage("simulate"):
            world = self._simulate()
            begin, now = world.parameters.start, world.parameters.start + self.scale.history
            simulator = import_module(f"{self.settings.use_case}.simulator")
            delivered = simulator.append_slice(lake, world, None, now)
            self.settings.clock.advance_to(now)
            self.say(f"{delivered['transactions']:,} payments and {delivered['labels']:,} labels in the lake")
        with self._stage("apply-definitions"):
            self._workflow("apply-definitions")
        with self._stage("backfill"):
            self._workflow("backfill", start=begin.isoformat(), end=now.isoformat())
        with self._stage("train"):
            trained = self._workflow("train", known_at=now.isoformat()).outputs
            self.say(
                f"challenger: version {trained['version']}, average precision {float(trained['average_precision']):.3f}, "
                f"AUC {float(trained['auc']):.3f}"
            )
        candidate = challenger(self.settings, use_case.model.name)
        with ExitStack() as running:
            with self._stage("serve"):
                service = LocalService(self.settings, candidate.model_dir, use_case.model.name, shadow=True)
                dark = running.enter_context(service)
                os.environ["LOCKSTEP_SHADOW_URL"] = dark.predict_url
            with self._stage("live"):
                since = now
                now = self._live(lake, simulator, world, since)
        with self._stage("promote"):
            promotion = self._workflow(
                "promote", since=since.isoformat(), until=now.isoformat(), tolerate_refusal=True
            )
        self.seconds["total"] = round(time.monotonic() - started, 1)
        return self._report(use_case, lake, trained, promotion)

    def _simulate(self) -> Any:
        try:
            simulator = import_module(f"{self.settings.use_case}.simulator")
        except ModuleNotFoundError as missing:
            raise BadInput(
                f"the use case {self.settings.use_case!r} has no simulator to demonstrate with: {missing}"
            ) from missing
        parameters = simulator.SimulatorParameters(
            customers=self.scale.customers,
            terminals=2 * self.scale.customers,
            radius=self.scale.radius,
            days=self.scale.history.days + self.scale.ticks // 24 + 1,
            seed=7,
        )
        return simulator.simulate(parameters)

    def _live(self, lake: Lake, simulator: Any, world: Any, since: datetime) -> datetime:
        """Live through the ticks: replay inside the lags, deliver, compute and materialize, replay again."""
        clock, delivered = self.settings.clock, since
        for tick in range(1, self.scale.ticks + 1):
            at = since + timedelta(hours=tick)
            clock.advance_to(at + timedelta(minutes=2))
            self._replay()
            arrived = at + timedelta(minutes=5)
            clock.advance_to(arrived)
            simulator.append_slice(lake, world, delivered, arrived)
            delivered = arrived
            self._workflow("compute-and-materialize", window_end=at.isoformat())
            clock.advance_to(at + timedelta(minutes=20))
            self._replay()
            if tick % 6 == 0:
                self.say(f"{tick} of {self.scale.ticks} ticks lived through")
        return clock.now()

    def _replay(self) -> None:
        self._workflow("shadow-replay", rows=str(self.scale.rows), batch=str(self.scale.rows // 2))

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Run:
        manifest = load_template(self.manifests, name)
        run = run_workflow(manifest, parameters, logs_dir=self.settings.home / "runs" / _unique(name))
        refused = tolerate_refusal and run.exit_code == 3
        if run.succeeded or refused:
            return run
        failed = run.failed
        words = failed.log.read_text().strip() if failed and failed.log else ""
        kind = Transient if run.exit_code == 1 else Terminal
        raise kind(
            f"workflow {name} failed at {failed.name if failed else '?'} (exit {run.exit_code})\n{words[-2000:]}",
            hint=f"its log: {failed.log}" if failed else "",
        )

    def _report(self, use_case: UseCase, lake: Lake, trained: dict[str, str], promotion: Run) -> dict[str, Any]:
        name = promotion.outputs.get("report") or next(
            n.outputs["report"] for n in promotion.nodes if "report" in n.outputs
        )
        parity = parity_report.load(self.settings, lake, name)
        champion = by_alias(self.settings, use_case.model.name, CHAMPION)
        candidate = by_alias(self.settings, use_case.model.name, CHALLENGER)
        views = _views(self.settings, use_case, lake)
        return {
            "views": views,
            "online_rows": sum(view["online_rows"] for view in views.values()),
            "training_rows": int(trained["rows"]),
            "model": {
                "version": int(trained["version"]),
                "digest": trained["digest"],
                "contract": trained["contract"],
                "average_precision": float(trained["average_precision"]),
                "auc": float(trained["auc"]),
            },
            "parity": {
                "sampled": parity.sample.uniform,
                "compared_values": parity.sample.compared_values,
                "mismatches": parity.mismatches,
                "upper_bound": parity.upper_bound,
                "verdict": parity.verdict.value,
            },
            "promoted": champion is not None and candidate is not None and champion.version == candidate.version,
            "skew": None,
            "seconds": self.seconds,
        }

    @contextmanager
    def _stage(self, name: str) -> Generator[None]:
        self.say(f"{name} ...")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        self.say(f"{name} done in {self.seconds[name]:.1f} s")


def run_demo(
    home: Path, use_case: str, manifests: Path, say: Say, demo: Callable[[Settings, Path, Say], Demo] = Demo
) -> dict[str, Any]:
    """Run the demo in `home`/demo, which is emptied first, and write `report.json` there.

    Raises:
        BadInput: another demo runs in the same home.
        LockstepError: a step failed.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / "demo.lock")
    try:
        with lock.acquire(timeout=0):
            folder = home / "demo"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with LocalRedis(folder) as redis, _environment_kept():
                settings = redis.settings(_settings(folder, use_case))
                os.environ.update(settings.environment())
                report = demo(settings, manifests, say).run()
            (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
            return report
    except Timeout:
        raise BadInput(
            f"another demo is running in {home}", hint="wait for it, or name another LOCKSTEP_HOME"
        ) from None


def summary(report: dict[str, Any]) -> str:
    """Return what a person wants to know of the report, as a table of plain text."""
    model, parity = report["model"], report["parity"]
    lines = [f"{'view':<18}{'rows in the lake':>18}{'keys online':>14}  watermark"]
    lines += [
        f"{name:<18}{view['rows']:>18,}{view['online_rows']:>14,}  {view['watermark']}"
        for name, view in report["views"].items()
    ]
    lines += [
        "",
        (
            f"model     version {model['version']}, {model['average_precision']:.3f} average precision, {model['auc']:.3f} AUC, "
            f"from {report['training_rows']:,} payments"
        ),
        (
            f"parity    {parity['verdict']}: {parity['mismatches']} mismatches in {parity['sampled']} sampled served rows, "
            f"{parity['compared_values']:,} values; {parity['upper_bound']:.2%} bounds the rate of mismatches"
        ),
        f"promoted  {'yes: the challenger is now the champion' if report['promoted'] else 'no: the gate refused'}",
        f"took      {report['seconds']['total']:.0f} s",
    ]
    return "\n".join(lines)


def _settings(folder: Path, use_case: str) -> Settings:
    given = Settings(
        home=folder,
        use_case=use_case,
        clock_file=folder / "clock",
        request_time_limit=timedelta(hours=1),  # one tick: the demo moves the clock between a batch's rows
    )
    return given.resolved()


@contextmanager
def _environment_kept() -> Generator[None]:
    """Give the variables back as they were; a variable of the caller's may not steer the demo."""
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith("LOCKSTEP_")]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _views(settings: Settings, use_case: UseCase, lake: Lake) -> dict[str, dict[str, Any]]:
    """Return, per view, its rows in the lake, the keys the online store has a row for, and its watermark online."""
    ledger = Ledger.open(settings, use_case.project)
    online = _online_rows(settings)
    views: dict[str, dict[str, Any]] = {}
    for view in use_case.views:
        committed = [r for r in ledger.materializations(view.name) if r.state is State.COMMITTED]
        with connect(settings) as connection:
            lake.register(connection, "rows", view.table, columns=[view.entity.join_key])
            (rows,) = connection.execute("SELECT count(*) FROM rows").fetchall()[0]
        views[view.name] = {
            "rows": rows,
            "online_rows": online.get(view.name, 0),
            "watermark": committed[-1].watermark.isoformat() if committed else None,
        }
    return views


def _online_rows(settings: Settings) -> Counter[str]:
    """Count, per view, the keys that the online store really has a row for."""
    found: Counter[str] = Counter()
    with store.connect(settings) as redis:
        for key in redis.scan_iter(count=1_000, _type="hash"):
            fields = [field for field in redis.hkeys(key) if field.startswith(EVENT_PREFIX)]
            found.update(field.removeprefix(EVENT_PREFIX).decode() for field in fields)
    return found


def _unique(name: str) -> str:
    return f"{time.time_ns()}-{name}"
