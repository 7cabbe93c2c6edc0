"""The whole laboratory on the tiny lake: faults that are found by their name, one that cannot be, and a state left alone."""

import asyncio
import hashlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from whole import Project, train_whole

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.skew.catalog import held_out_of
from lockstep.skew.fault import Fault, Vectors
from lockstep.skew.laboratory import CLEAN, Result, Results, Scale, Stage, predictor, run_laboratory
from lockstep.skew.page import page
from lockstep.skew.plot import plot
from lockstep.skew.replay import Replay, Service
from lockstep.skew.subject import Subject, view_rows
from lockstep.skew.table import columns, document, row, summary
from lockstep.skew.world import World, scratch_settings
from lockstep.training.registry import CHAMPION, set_alias
from lockstep.views import UseCase
from pipelines._commands.skew import HELD_OUT, skew
from pipelines._demo.home import FOLDER as DEMO

FAULTS = [
    "missing-100pct:terminal_risk",
    "wrong-column:customer_spend",
    "cents-sent",
    "retyped-column",
    "rewritten-100pct:terminal_risk",
    "stale-1h:customer_spend",
]


class Silent:
    def advance(self) -> None:
        """Tell nothing."""

    @contextmanager
    def stage(self, name: str, parts: int = 0) -> Generator[Stage]:
        yield self


def digests(folder: Path) -> Mapping[Path, str]:
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def state(new_settings: Callable[[], Settings], use_case: UseCase) -> Settings:
    project = Project.of(new_settings(), use_case)
    trained = train_whole(project.settings, use_case, project.training_set.table)
    set_alias(project.settings, use_case.model.name, CHAMPION, trained.version)
    return project.settings


@pytest.fixture(scope="module")
def results(state: Settings, use_case: UseCase, tmp_path_factory: pytest.TempPathFactory) -> Generator[Results]:
    before, scratch = digests(state.home), tmp_path_factory.mktemp("skew") / "scratch"
    scale = Scale(days=1, seeds=2, clean_seeds=2, logged=20)
    yield run_laboratory(state, use_case, scratch, FAULTS, scale, Silent())
    assert digests(state.home) == before
    assert not scratch.exists()


@pytest.fixture
def found(results: Results) -> Mapping[str, Result]:
    return {result.fault.name: result for result in results.results}


def test_without_a_fault_nothing_differs(results: Results, found: Mapping[str, Result]) -> None:
    clean = found["clean"]
    assert results.rows == 24
    assert (clean.harm.answered, clean.harm.changed, clean.harm.fell_back) == (1.0, 0.0, 0.0)
    assert (clean.detection.pool, clean.detection.mismatches, clean.detection.named) == (20, 0.0, {})
    assert [at.found for at in clean.detection.sizes] == [0, 0]


@pytest.mark.parametrize(
    ("name", "cause"), [("missing-100pct:terminal_risk", "missing"), ("wrong-column:customer_spend", "wrong_row")]
)
def test_a_fault_is_found_and_called_by_its_name(found: Mapping[str, Result], name: str, cause: str) -> None:
    fault = found[name]
    assert fault.harm.changed > 0.5
    assert set(fault.detection.named) == {cause}
    assert [(at.found, at.right) for at in fault.detection.sizes] == [(2, 2), (2, 2)]


def test_what_a_caller_sends_wrong_is_harm_that_parity_cannot_see(found: Mapping[str, Result]) -> None:
    sent = found["cents-sent"]
    assert sent.harm.changed == 1.0
    assert sent.harm.moved > 0
    assert sent.detection.mismatches == 0.0


def test_bytes_of_another_type_are_refused_by_serving(found: Mapping[str, Result]) -> None:
    retyped = found["retyped-column"]
    assert retyped.harm.answered < 1.0
    assert set(retyped.refused) == {"SchemaDrift"}


def test_history_that_is_rewritten_is_found_without_harm_to_what_was_served(found: Mapping[str, Result]) -> None:
    rewritten = found["rewritten-100pct:terminal_risk"]
    assert rewritten.harm.changed == 0.0
    assert rewritten.detection.mismatches > 0.5


def test_a_view_that_is_an_hour_late_serves_what_it_was_an_hour_before(found: Mapping[str, Result]) -> None:
    """The tables have rows of midnight alone: only that hour's request is served the day before."""
    late = found["stale-1h:customer_spend"]
    assert late.harm.changed == pytest.approx(1 / 24)
    assert late.detection.mismatches == 0.0  # it keeps the objective


def test_the_page_has_a_line_for_each_fault_and_a_plot(results: Results) -> None:
    text = page(results, "skew-lab.svg", "lockstep skew all")
    drawing = ET.fromstring(plot(results))  # noqa: S314 - our own
    labels = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    for result in results.results:
        assert text.count(f"| {result.fault.name} |") == 2
        assert result.fault.name in labels
        assert len(row(results, result)) == len(columns(results))
    assert "0 false alarms in 4 samples" in summary(results)[0]
    assert len(document(results)["faults"]) == len(FAULTS) + 1


def test_a_home_without_a_finished_state_is_refused(use_case: UseCase, tmp_path: Path) -> None:
    nothing = Settings(home=tmp_path / "demo").resolved()
    with pytest.raises(BadInput, match="lockstep demo"):
        run_laboratory(nothing, use_case, tmp_path / "skew", [], Scale(), Silent())


@dataclass(frozen=True, kw_only=True)
class Nothing(Fault):
    """The predictor is posted nothing but nulls."""

    def posted(self, contract: FeatureContract, vectors: Vectors) -> Vectors:
        return np.full_like(vectors, np.nan)


HOOKS = ("asked", "plan", "stored", "late", "read", "functions", "vectors", "posted", "by_fallback", "sent")
NAMED = {"restored-backup-12h", "function-milliseconds", "function-zone+5.5h"}


def one_of_each(faults: Mapping[str, Fault]) -> list[Fault]:
    """Return the faults that a test is about, and of all others one for each set of hooks that they override."""
    overridden = {
        fault.name: tuple(hook for hook in HOOKS if getattr(type(fault), hook) is not getattr(Fault, hook))
        for fault in faults.values()
    }
    firsts = {hooks: name for name, hooks in reversed(overridden.items())}
    return [fault for fault in faults.values() if fault.name in NAMED | set(firsts.values())]


@pytest.fixture(scope="module")
def replayed(
    state: Settings, use_case: UseCase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Mapping[str, Service], pa.Table]:
    """Faults held out with what became of a day's requests, and the served log; parity is not asked."""
    with scratch_settings(tmp_path_factory.mktemp("held-out") / "scratch", state) as scratch:
        settings = scratch.model_copy(update={"request_time_limit": timedelta(hours=1)})
        subject = Subject.of(state, use_case, settings, 1)
        world = World(settings, use_case, subject.views, view_rows(subject, settings))
        nothing = Nothing(name="nothing-posted", says="the predictor is posted nulls")
        faults = [CLEAN, nothing, *one_of_each(held_out_of(subject.contract))]
        with predictor(settings, subject) as address:
            replay = Replay(subject, world, address, faults, logged=20, seed=0)
            services = asyncio.run(replay.run(Silent().advance))
        log = world.lake.table(SERVED_LOG).scan().to_arrow().sort_by("request_time")
        return {service.fault.name: service for service in services}, log


def test_faults_held_out_of_each_kind_are_answered_by_the_main_model(
    replayed: tuple[Mapping[str, Service], pa.Table],
) -> None:
    services, log = replayed
    assert {name for name, service in services.items() if service.refused or service.fell_back.any()} == set()
    assert log.num_rows == 20 * len(services)


def test_what_is_posted_is_scored_and_what_was_prepared_is_logged(
    replayed: tuple[Mapping[str, Service], pa.Table],
) -> None:
    services, log = replayed
    clean, nothing = (log.filter(pc.field("process") == name) for name in ("clean", "nothing-posted"))
    assert clean["vector"].to_pylist() == nothing["vector"].to_pylist()
    assert len(set(nothing["score"].to_pylist())) == 1 < len(set(clean["score"].to_pylist()))
    assert not services["nothing-posted"].changed.any()


def test_rows_are_behind_beside_the_epochs_of_now(replayed: tuple[Mapping[str, Service], pa.Table]) -> None:
    services, log = replayed
    clean, behind = (log.filter(pc.field("process") == name) for name in ("clean", "restored-backup-12h"))
    assert clean["epoch_before"].to_pylist() == behind["epoch_before"].to_pylist()
    pairs = zip(chain(*clean["views"].to_pylist()), chain(*behind["views"].to_pylist()), strict=True)
    ages = {
        now["event_timestamp"] - then["event_timestamp"]
        for now, then in pairs
        if now["event_timestamp"] and then["event_timestamp"]
    }
    assert max(ages) >= timedelta(hours=12)
    assert services["restored-backup-12h"].changed.any()


def test_functions_that_are_given_another_time_make_other_vectors(
    replayed: tuple[Mapping[str, Service], pa.Table],
) -> None:
    services, _ = replayed
    assert services["function-milliseconds"].changed.all()
    assert 0 < services["function-zone+5.5h"].changed.mean() < 1


def test_they_are_listed_under_a_heading_of_their_own(
    state: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DEMO).symlink_to(state.home)
    monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
    told = CliRunner().invoke(skew, ["list"], catch_exceptions=False).output
    known, held_out = told.split(HELD_OUT)
    assert "cents-sent" in known
    assert "next-score" not in known
    assert "next-score" in held_out
    assert "→ wrong_row" in held_out
