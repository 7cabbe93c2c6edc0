"""What docs/reruns.md promises, held against the committed workflows of the reference use case."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep.clock import parse_time
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.snapshots import Snapshot
from lockstep.local.redis import LocalRedis
from lockstep.materialize.ledger import Ledger
from lockstep.online.store import connect
from lockstep.settings import Settings
from pipelines.local import Run, load_template, run_workflow
from tests.erasure_world import SPEND, payments
from tests.interrupted import interrupted

MANIFESTS = Path(__file__).parents[2] / "manifests"
NOON = parse_time("2018-06-01T12:00:00Z")
HOUR = timedelta(hours=1)

State = tuple[list[Any], list[Any], list[Snapshot], dict[bytes, Any]]


class Cluster:
    """The project as its pods see it, a schedule's times, and everything a run could have changed."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings, self.logs, self.runs = settings, logs, 0
        self.lake, self.ledger = Lake.open(settings, "fraud"), Ledger.open(settings, "fraud")
        self.store: Any = connect(settings)

    def submit(self, name: str, **parameters: str) -> Run:
        self.runs += 1
        parameters = {"views": SPEND.name} | parameters
        return run_workflow(load_template(MANIFESTS, name), parameters, logs_dir=self.logs / f"{self.runs}")

    def tick(self, time: datetime) -> Run:
        """Run the schedule's tick of a time, a little after it."""
        self.settings.clock.advance_to(time + timedelta(seconds=20))
        return self.submit("compute-and-materialize", window_end=time.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def state(self) -> State:
        keys = [key for key in self.store.scan_iter() if self.store.type(key) == b"hash"]
        rows = [self.ledger.computes(SPEND.name), self.ledger.materializations(SPEND.name)]
        return *rows, self.lake.snapshots(SPEND.table), {key: self.store.hgetall(key) for key in keys}

    def ticks(self) -> list[tuple[str, str, str]]:
        return [
            (row.mode.value, f"{row.tick_from:%H}", f"{row.tick_to:%H}") for row in self.ledger.computes(SPEND.name)
        ]


@pytest.fixture
def cluster(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with LocalRedis(settings.home) as server:
        online = server.settings(settings.model_copy(update={"use_case": "feature_repo"}))
        for name, value in online.environment().items():
            monkeypatch.setenv(name, value)
        made = Cluster(online, tmp_path / "runs")
        made.lake.ensure_table("transactions", payments(0, 1).schema, "tx_datetime")
        for hour in range(-3, 9):
            made.lake.append("transactions", payments(hour, 1, 2))
        yield made
        made.store.close()


def test_a_window_that_was_done_is_done(cluster: Cluster) -> None:
    assert cluster.tick(NOON + timedelta(minutes=4)).succeeded
    before = cluster.state()
    again = cluster.tick(NOON + timedelta(minutes=4))
    assert again.succeeded
    assert {n.outputs.get("rows") for n in again.nodes if n.template == "compute-view"} == {"0"}
    assert cluster.state() == before


def test_an_old_window_after_newer_ones_changes_nothing(cluster: Cluster) -> None:
    for hour in range(3):
        cluster.tick(NOON + hour * HOUR + timedelta(minutes=4))
    before = cluster.state()
    assert cluster.submit("compute-and-materialize", window_end="2018-06-01T12:04:00Z").succeeded
    assert cluster.state() == before


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (Lake, "append_parts"),
        (Ledger, "commit_compute"),
        (Ledger, "start_writing"),
        (Ledger, "verify"),
        (Ledger, "commit_materialize"),
    ],
)
def test_a_run_that_ended_in_the_middle_is_finished_by_the_same_run_again(
    cluster: Cluster, monkeypatch, owner: type, step: str
) -> None:
    cluster.tick(NOON + timedelta(minutes=4))
    time = NOON + HOUR + timedelta(minutes=4)
    interrupted(monkeypatch, owner, step, lambda: cluster.tick(time))
    assert cluster.tick(time).succeeded
    assert cluster.ticks() == [("live", "11", "12"), ("live", "12", "13")]
    assert [row.state.value for row in cluster.ledger.materializations(SPEND.name)] == ["committed"] * 2
    before = cluster.state()
    cluster.tick(time)
    assert cluster.state() == before


def test_a_run_that_failed_since_the_store_was_away_is_finished_by_the_same_run_again(cluster: Cluster, monkeypatch):
    with monkeypatch.context() as away:
        away.setenv("LOCKSTEP_REDIS_PORT", "1")
        failed = cluster.tick(NOON + timedelta(minutes=4))
    assert (failed.succeeded, failed.exit_code) == (False, 1)
    assert cluster.ticks() == [("live", "11", "12")]
    assert cluster.tick(NOON + timedelta(minutes=4)).succeeded
    assert cluster.ticks() == [("live", "11", "12")]
    assert len(cluster.state()[3]) > 1


def test_the_tick_after_missed_ones_computes_them_all_and_brings_the_last_online(cluster: Cluster) -> None:
    cluster.tick(NOON + timedelta(minutes=4))
    assert cluster.tick(NOON + 5 * HOUR + timedelta(minutes=4)).succeeded
    assert cluster.ticks() == [("live", "11", "12"), ("live", "12", "17")]
    assert cluster.ledger.materializations(SPEND.name)[-1].watermark == NOON + 5 * HOUR


def test_a_schedule_submitted_by_hand_means_now_and_the_next_tick_goes_on_from_there(cluster: Cluster) -> None:
    cluster.tick(NOON + timedelta(minutes=4))
    cluster.tick(NOON + HOUR + timedelta(minutes=17, seconds=3))
    cluster.tick(NOON + 2 * HOUR + timedelta(minutes=4))
    assert cluster.ticks() == [("live", "11", "12"), ("live", "12", "13"), ("live", "13", "14")]


def test_a_time_with_an_offset_is_the_same_time(cluster: Cluster) -> None:
    cluster.tick(NOON + timedelta(minutes=4))
    before = cluster.state()
    assert cluster.submit("compute-and-materialize", window_end="2018-06-01T14:04:00+02:00").succeeded
    assert cluster.state() == before


def test_a_template_needs_to_be_told_how_far_to_go(cluster: Cluster) -> None:
    with pytest.raises(BadInput, match="needs a value for its parameter 'window_end'"):
        cluster.submit("compute-and-materialize")


@pytest.mark.parametrize("given", ["2018-06-01T12:04:00", "{{workflow.scheduledTime}}", "yesterday"])
def test_a_time_that_is_none_computes_nothing(cluster: Cluster, given: str) -> None:
    try:
        ended = cluster.submit("compute-and-materialize", window_end=given)
    except BadInput as refused:
        assert "window_end" in str(refused)  # noqa: PT017 - either way of refusing it is right
    else:
        assert (ended.succeeded, ended.exit_code) == (False, 2)
        assert "window_end" in str(ended.failed and ended.failed.message)
    assert cluster.ticks() == []


def test_a_back_fill_beside_the_schedule_computes_what_is_missing_once(cluster: Cluster) -> None:
    cluster.tick(NOON + 2 * HOUR + timedelta(minutes=4))
    cluster.settings.clock.advance_to(NOON + 4 * HOUR + timedelta(minutes=1))
    done = cluster.submit("backfill", start="2018-06-01T11:00:00Z", end="2018-06-01T16:00:00Z")
    assert done.succeeded
    cluster.tick(NOON + 4 * HOUR + timedelta(minutes=4))
    ticks = [times for mode, *times in cluster.ticks() if mode != "correct"]
    # The back-fill left 16:00 to the schedule, whose lag was not over yet.
    assert ticks == [["11", "13"], ["13", "14"], ["14", "15"], ["15", "16"]]
    assert [mode for mode, *_ in cluster.ticks()] == ["bootstrap", "live", "correct", "live", "live"]
    before = cluster.state()
    cluster.tick(NOON + 4 * HOUR + timedelta(minutes=4))
    assert cluster.state() == before
