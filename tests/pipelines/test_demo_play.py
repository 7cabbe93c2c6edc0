"""What the demo does with time, and how it tells what it found; the whole of it is played in tests/demo/."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import invalidate_caches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from lockstep.errors import BadInput, Terminal
from lockstep.lake import Lake
from lockstep.serving.log_rows import SCHEMA, SERVED_LOG
from lockstep.settings import Settings
from lockstep.views import UseCase, hard, load_use_case, soft
from pipelines._commands.progress import Lines
from pipelines._demo.play import Demo, Scale
from pipelines._demo.summary import _parity, _served
from pipelines._demo.world import Scenario, World, load_scenario
from pipelines.local import Run

SINCE = datetime(2018, 6, 1, tzinfo=UTC)
VERSION: Any = SimpleNamespace(model=SimpleNamespace(version=2))


class Told(Demo):
    """Runs no workflow and asks no model: it writes down what would be done, and at what time of the demo."""

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Run:
        self._note(f"{name} {parameters.get('window_end', '')[11:16]} {parameters.get('views', '')}".rstrip())
        return Run("run", succeeded=False, exit_code=3, nodes=[], outputs={}, failed=None)

    def _ask(self, client: Any, candidates: Any, requests: Any) -> None:
        self._note(f"ask {requests}")

    def _note(self, what: str) -> None:
        self.seconds[f"{self.settings.clock.now():%H:%M} {what}"] = 0.0


@pytest.fixture
def demo(settings: Settings) -> Told:
    return Told(settings, Path("manifests"), Lines(lambda _: None), cast("Scenario", None), Scale(days=1, cadence=2))


@pytest.fixture
def laggards() -> UseCase:
    """The reference use case with two views that take their time: one to be computed, the other to be seen."""
    use_case = load_use_case("feature_repo")
    first, second, *others = use_case.views
    slow = replace(first, compute_lag=timedelta(minutes=12)), replace(second, visible_lag=timedelta(minutes=20))
    return replace(use_case, views=(*slow, *others))


def test_the_demo_waits_for_the_slowest_view(demo: Told, laggards: UseCase) -> None:
    delivered: list[datetime] = []
    scenario: Any = SimpleNamespace(
        make_world=lambda *_: SimpleNamespace(parameters=SimpleNamespace(start=SINCE)),
        append_slice=lambda *given: delivered.append(given[-1]),
    )
    world = World(Lake.open(demo.settings, "fraud"), laggards, scenario, 1, 1)
    requests: Any = SimpleNamespace(between=lambda start, end: f"{start:%H:%M}-{end:%H:%M}")
    with demo.reporter.stage("live") as stage:
        demo._live(stage, world, SINCE, requests, [], VERSION)
    everything = ",".join(view.name for view in laggards.views)
    assert list(demo.seconds)[:5] == [
        "00:11 ask 00:00-00:25",
        f"00:12 compute-and-materialize 00:00 {everything}",
        "00:59 ask 00:25-01:00",
        "01:59 ask 01:00-02:00",
        "02:11 ask 02:00-02:25",
    ]
    assert delivered[:2] == [SINCE + timedelta(minutes=12), SINCE + timedelta(hours=2, minutes=12)]


def test_the_demo_runs_each_view_as_often_as_its_objective_asks(demo: Told) -> None:
    use_case = load_use_case("feature_repo")
    spend, risk = use_case.view("customer_spend"), use_case.view("terminal_risk")
    quick = replace(spend, freshness=soft(timedelta(hours=3))), replace(risk, freshness=hard(timedelta(hours=7)))
    scenario: Any = SimpleNamespace(
        make_world=lambda *_: SimpleNamespace(parameters=SimpleNamespace(start=SINCE)), append_slice=lambda *_: {}
    )
    world = World(Lake.open(demo.settings, "fraud"), replace(use_case, views=quick), scenario, 1, 1)
    requests: Any = SimpleNamespace(between=lambda *_: "")
    with demo.reporter.stage("live") as stage:
        demo._live(stage, world, SINCE, requests, [], VERSION)
    runs = [what.split()[-2:] for what in demo.seconds if "compute" in what]
    assert runs == [
        [f"{hour:02}:00", "customer_spend,terminal_risk" if hour % 6 == 0 else "customer_spend"]
        for hour in range(0, 24, 2)
    ]


def test_a_promotion_that_leaves_no_parity_report_is_told_in_words(demo: Told) -> None:
    lake = Lake.open(demo.settings, "fraud")
    with pytest.raises(Terminal, match="workflow promote wrote no parity report of version 2") as failed:
        demo._promote(lake, "fraud", VERSION, SINCE, SINCE)
    assert failed.value.hint == f"its logs: {demo.settings.home}/runs/run"


def test_a_feature_is_named_with_its_most_frequent_cause_that_excuses_nothing() -> None:
    causes = {
        "late_and_wrong": {"late": 9, "corruption": 1, "wrong_row": 3},
        "late": {"late": 9, "early": 2},
        "same": {},
    }
    report: Any = SimpleNamespace(
        features=[SimpleNamespace(name=name, causes=found) for name, found in causes.items()],
        sample=SimpleNamespace(uniform=100, compared_values=900),
        intervals={},
        verdict=SimpleNamespace(value="fail"),
        **dict.fromkeys(("hash", "mismatches", "excused", "upper_bound", "causes")),
    )
    assert _parity(report)["differing"] == {"late_and_wrong": "wrong_row"}


def test_a_scenario_that_lacks_something_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bare_case"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match="'bare_case' has nothing to demonstrate"):
        load_scenario("bare_case")
    (package / "demo.py").write_text("BASELINE = 'v1'\nSKEW = {}\n")
    invalidate_caches()
    with pytest.raises(BadInput, match=r"bare_case/demo.py lacks POSITIVES, make_world, append_slice"):
        load_scenario("bare_case")
    assert load_scenario("feature_repo").POSITIVES == "frauds"


def test_a_row_that_was_rejected_is_none_of_what_the_demo_counts_as_served(settings: Settings) -> None:
    lake = Lake.open(settings, "fraud")
    lake.ensure_table(SERVED_LOG, SCHEMA)
    of_model = {"model": "m", "contract": "main", "flags": [], "rejected": None}
    odd = {"flags": ["profile:missing"]}, {"contract": "fallback"}, {"flags": ["rejected"], "rejected": "profile:day"}
    lake.append(SERVED_LOG, pa.Table.from_pylist([of_model, *(of_model | other for other in odd)], SCHEMA))
    model: Any = SimpleNamespace(digest="m", contract=SimpleNamespace(hash="main"))

    assert _served(lake, model) == {
        "rows": 3,
        "fresh": 1,
        "flagged": 1,
        "fallback": 1,
        "flags": {"profile:missing": 1},
    }
