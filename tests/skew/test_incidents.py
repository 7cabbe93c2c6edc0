"""What an incident of the exit test is made of: whom a deployment reaches, what is drawn, and a registry of its own."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from small_contract import CONTRACT

from lockstep.clock import MICROSECOND, to_micros
from lockstep.errors import BadInput
from lockstep.local.lock import hold
from lockstep.online.store import connect
from lockstep.parity.cause import Cause
from lockstep.settings import Settings
from lockstep.skew.fault import Fault
from lockstep.skew.faults.columns import Renamed
from pipelines._exit_test.home import copy_registry, new_home, opened
from pipelines._exit_test.incident import Incident, choose, tried_faults
from pipelines._exit_test.measure import Measured

START = datetime(2018, 6, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIMES = to_micros(START) + np.arange(72 * 60) * 60_000_000


class Known(Measured):
    """Measures in which each row that a fault answers costs the same."""

    def lost(self, scores: np.ndarray) -> float:
        return float(scores.mean())


def measured(faults: list[Fault], **costs: float) -> Measured:
    subject: Any = SimpleNamespace(contract=CONTRACT, start=START, times_us=TIMES)
    clean = np.zeros(len(TIMES))
    return Known(subject, clean, faults, {f.name: np.full(len(TIMES), costs.get(f.name, 0.0)) for f in faults})


def test_a_deployment_reaches_nobody_before_it_is_out_and_one_node_of_so_many_after() -> None:
    everywhere = Incident(Cause.SCHEMA_DRIFT, "risk", Fault(name="f", says=""), START + 24 * HOUR)
    reached = everywhere.reached(TIMES, seed=0)
    assert not reached[: 24 * 60].any()
    assert reached[24 * 60 :].all()
    third = Incident(Cause.CLOCK_SKEW, "", Fault(name="f", says="", clock=7 * HOUR), START + 24 * HOUR, nodes=3)
    assert third.reached(TIMES, seed=0)[24 * 60 :].mean() == pytest.approx(1 / 3, abs=0.03)
    assert third.hours == 7


def test_of_a_view_that_stops_nothing_is_noticed_while_it_keeps_its_objective() -> None:
    stopped = Incident(Cause.MATERIALIZATION_GAP, "risk", Fault(name="f", says=""), START + 24 * HOUR, 6 * HOUR)
    harmed = stopped.harmed(TIMES, seed=0)
    assert np.flatnonzero(harmed)[0] == 30 * 60


def test_a_clock_that_is_tried_is_further_ahead_than_a_hard_objective_allows() -> None:
    hours = {
        fault.clock / HOUR
        for seed in range(40)
        for fault in tried_faults(CONTRACT, np.random.default_rng(seed))
        if fault.clock
    }
    assert hours == {7, 8, 9, 10, 11}


def test_what_costs_a_fifth_is_chosen_and_which_is_drawn() -> None:
    faults = tried_faults(CONTRACT, np.random.default_rng(0))
    drifted = [fault.name for fault in faults if isinstance(fault, Renamed)]
    # A third of the time of the one is a fifth; of the second no time is; the third costs it as soon as it is there.
    known = measured(faults, **{drifted[0]: 0.6, drifted[1]: 0.05, drifted[2]: 0.24})
    chosen = {
        (of.fault.name, (of.deployed - START) / HOUR)
        for seed in range(20)
        for of in [choose(Cause.SCHEMA_DRIFT, known, np.random.default_rng(seed), seed)]
    }
    assert chosen == {(drifted[0], 48.0), (drifted[2], 12.0)}
    with pytest.raises(BadInput, match="no clock_skew costs between 14% and 30%"):
        choose(Cause.CLOCK_SKEW, known, np.random.default_rng(0), 0)


def test_a_copied_registry_names_its_own_artifacts_and_the_state_keeps_its_own(tmp_path: Path) -> None:
    state, folder = Settings(home=tmp_path / "demo").resolved(), tmp_path / "home"
    (state.home / "mlartifacts" / "m-1").mkdir(parents=True)
    (state.home / "mlartifacts" / "m-1" / "MLmodel").write_text("it")
    folder.mkdir()
    there = f"file://{state.home}/mlartifacts/m-1"
    with closing(sqlite3.connect(state.home / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE versions (version INTEGER, place VARCHAR(500), said TEXT)")
        database.execute("INSERT INTO versions VALUES (1, ?, ?)", (there, f"see {there}"))
    copy_registry(state, folder)
    assert (folder / "mlartifacts" / "m-1" / "MLmodel").read_text() == "it"
    for home, place in ((state.home, there), (folder, f"file://{folder}/mlartifacts/m-1")):
        with closing(sqlite3.connect(home / "mlflow.db")) as database:
            assert cast("Any", database.execute("SELECT * FROM versions").fetchall()) == [(1, place, f"see {there}")]
    with pytest.raises(BadInput, match="the demo keeps them in its home"):
        copy_registry(state.model_copy(update={"tracking_url": "postgresql://db/mlflow"}), folder)


def test_a_home_that_is_closed_keeps_what_its_store_holds_and_its_clock_stands(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    with new_home(folder, "feature_repo") as settings:
        connect(settings).set("kept", "it")
    with opened(folder, START) as settings:
        assert connect(settings).get("kept") == b"it"
        assert START <= settings.clock.now() < START + timedelta(minutes=1)
        (folder / "clock").write_text(str((START + HOUR - datetime.now(UTC)) // MICROSECOND))
        with (
            hold(folder, "a run"),
            pytest.raises(BadInput, match=r"`lockstep exit-test` of .* has held"),
            opened(folder),
        ):
            pass
    with opened(folder, START) as settings:
        assert START + HOUR <= settings.clock.now() < START + HOUR + timedelta(minutes=1)
