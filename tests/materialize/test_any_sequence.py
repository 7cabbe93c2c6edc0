"""Whatever happens in whatever order: after the next run the store holds what the lake answers, key by key, byte for byte.

Hypothesis makes up the sequences; Redis, the ledger and Iceberg are real. The peer is a second, empty store that one unbroken run
fills with a ledger of its own.
"""

import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from lockstep.clock import to_micros
from lockstep.errors import BadInput, Terminal, Transient
from lockstep.lake import Lake
from lockstep.lake.snapshots import TICK
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer, Plan
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode
from lockstep.online.store import connect
from lockstep.retention import maintain
from lockstep.settings import Settings
from lockstep.views import UseCase
from tests.lake.compaction import compact
from tests.materialize.spend import SPEND, T, bring_back, contents, copy_of, tell_no_run

USE_CASE: Any = UseCase("test", (), (SPEND.source,), (SPEND,), (), (), None)  # pyright: ignore[reportArgumentType]
CARDS = st.integers(0, 5)
HOURS = st.integers(-3, 3)
LAGS = st.integers(1, 3)
COUNTS = st.integers(0, 9)


class Case(RuleBasedStateMachine):
    """One view, one store, and everything that can befall them."""

    store: Any
    peer: Any
    tells_its_run = True

    @initialize()
    def begin(self) -> None:
        """Start with an empty lake and an empty store."""
        self.store.flushall()
        self.folder = Path(tempfile.mkdtemp(prefix="lockstep-"))
        self.at = Settings(home=self.folder / "home").resolved()
        self.lake = Lake.open(self.at, "test")
        self.lake.ensure_table("spend", SPEND.schema, "event_timestamp")
        self.plans: list[Plan] = []
        self.remembered: Any = None
        self.copy: dict[bytes, bytes] = {}
        ledger = Ledger.open(self.at, "test")
        computed = ledger.plan_compute("spend", Mode.LIVE, T - timedelta(hours=1), T, {}, T)
        self.append([(0, 0, 1, 1)])
        ledger.commit_compute(computed, self.lake.snapshots("spend")[0].id, 1, T)

    def teardown(self) -> None:
        """Remove the lake."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def spend(self) -> Materializer:
        """A materializer as a new process has it."""
        return Materializer(self.at, self.lake, Ledger.open(self.at, "test"), self.store, "test", SPEND)

    @rule(rows=st.lists(st.tuples(CARDS, HOURS, LAGS, COUNTS), max_size=4, unique_by=lambda row: row[:3]))
    def append(self, rows: list[tuple[int, int, int, int]]) -> None:
        """Append rows: new, late, corrected (the same event, another created time), or none."""
        held = {(r["card"], r["event_timestamp"], r["created_timestamp"]) for r in self.table().to_pylist()}
        documents = [
            {
                "card": card,
                "nb_1d": nb,
                "event_timestamp": T + timedelta(hours=hour),
                "created_timestamp": T + timedelta(hours=hour, minutes=lag),
            }
            for card, hour, lag, nb in rows
        ]
        fresh = [d for d in documents if (d["card"], d["event_timestamp"], d["created_timestamp"]) not in held]
        self.lake.append("spend", pa.Table.from_pylist(fresh, SPEND.schema), {TICK: str(to_micros(T))})

    def table(self) -> pa.Table:
        """Return what the lake holds."""
        return self.lake.table("spend").scan().to_arrow()

    @rule(card=CARDS)
    def delete_card(self, card: int) -> None:
        """Delete a key."""
        self.delete(f"card = {card}")

    @rule(hour=HOURS)
    def delete_hour(self, hour: int) -> None:
        """Delete what happened at one time, as of keys that have other rows."""
        self.delete(f"event_timestamp = '{(T + timedelta(hours=hour)).isoformat()}'")

    def delete(self, where: str) -> None:
        """Delete rows, if there are any."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Delete operation did not match any records")
            self.lake.table("spend").delete(where)

    @rule(nb=COUNTS)
    def correct_in_place(self, nb: int) -> None:
        """Overwrite every value of the newest hour under the same times."""
        rows = self.table()
        found = [row | {"nb_1d": nb} for row in rows.to_pylist() if row["event_timestamp"] == T + timedelta(hours=3)]
        if found:
            late = f"event_timestamp = '{(T + timedelta(hours=3)).isoformat()}'"
            self.lake.table("spend").overwrite(pa.Table.from_pylist(found, SPEND.schema), overwrite_filter=late)

    @precondition(lambda self: self.table().num_rows > 0)
    @rule()
    def compact(self) -> None:
        """Let a compaction rewrite the table."""
        compact(self.lake.table("spend"))

    @rule(keep=st.integers(1, 3))
    def expire(self, keep: int) -> None:
        """Let all but the newest snapshots expire, and the current one, which an older one is after a rollback."""
        kept = {ref.snapshot_id for ref in self.lake.table("spend").metadata.refs.values()}
        for snapshot in self.lake.snapshots("spend")[:-keep]:
            if snapshot.id not in kept:
                self.lake.table("spend").maintenance.expire_snapshots().by_id(snapshot.id).commit()

    @rule()
    def maintain(self) -> None:
        """Let all go that nobody needs, however young it is."""
        none = dict.fromkeys(["snapshots_keep", "parity_max_age", "corrections_keep"], timedelta(0))
        maintain(self.at.model_copy(update=none), USE_CASE, self.lake, Ledger.open(self.at, "test"))

    @rule(chosen=st.integers(0, 9))
    def roll_back(self, chosen: int) -> None:
        """Make another snapshot the current one."""
        snapshots = self.lake.snapshots("spend")
        at = snapshots[chosen % len(snapshots)]
        self.lake.table("spend").manage_snapshots().set_current_snapshot(snapshot_id=at.id).commit()

    @rule(card=CARDS)
    def make_anew(self, card: int) -> None:
        """Drop the table, and begin again with one row."""
        self.lake.drop("spend")
        self.lake.ensure_table("spend", SPEND.schema, "event_timestamp")
        self.append([(card, 0, 1, 1)])

    @rule()
    def remember_table(self) -> None:
        """Remember the table as it is."""
        self.remembered = self.lake.table("spend")

    @precondition(lambda self: self.remembered is not None)
    @rule()
    def set_back(self) -> None:
        """Set the table back to older metadata, or to those of the table that had its name."""
        self.lake.drop("spend")
        self.remembered.catalog.register_table(("test", "spend"), self.remembered.metadata_location)

    @rule()
    def flush(self) -> None:
        """Lose the store."""
        self.store.flushall()

    @precondition(lambda self: not self.tells_its_run)
    @rule()
    def copy_store(self) -> None:
        """Make a copy of the store."""
        self.copy = copy_of(self.store)

    @precondition(lambda self: self.copy and not self.tells_its_run)
    @rule()
    def restore_copy(self) -> None:
        """Bring the store back as it was, as long as it is not from before it got another name."""
        known = Ledger.open(self.at, "test").incarnation()
        if known is not None and name_in(self.store, self.copy) == known.encode():
            bring_back(self.store, self.copy)

    def planned(self, chunks: int = 1) -> Plan:
        """Plan what is next; it is remembered, for a writer that does not know when to end."""
        plan = self.spend.plan(chunks)
        if plan.interval is not None:
            self.plans.append(plan)
        return plan

    @rule(chunks=st.integers(1, 3), until=st.integers(0, 3), expiring=st.booleans())
    def crash_while_writing(self, chunks: int, until: int, expiring: bool) -> None:
        """Plan, write some of the chunks, and end; history may expire between two of them."""
        plan = self.planned(chunks)
        if plan.interval is not None:
            for number, chunk in enumerate(plan.chunks[:until]):
                if number and expiring:
                    self.expire(1)
                with suppress(Transient, Terminal, BadInput):
                    self.spend.write(plan.interval, chunk)

    @precondition(lambda self: self.plans)
    @rule(chosen=st.integers(0, 9))
    def write_late(self, chosen: int) -> None:
        """Write what was planned some time ago once more, as a step does that is tried again."""
        plan = self.plans[chosen % len(self.plans)]
        assert plan.interval is not None
        for chunk in plan.chunks:
            with suppress(Transient, Terminal, BadInput):
                self.spend.write(plan.interval, chunk)

    @rule()
    def crash_before_the_commit(self) -> None:
        """Write and verify an interval, and end."""
        plan = self.planned()
        if plan.interval is not None:
            self.spend.verify(plan.interval, [self.spend.write(plan.interval, chunk) for chunk in plan.chunks])

    @rule()
    def crash_after_the_ledger(self) -> None:
        """Commit an interval to the ledger, and end before the store is told."""
        plan = self.planned()
        if plan.interval is not None:
            self.spend.verify(plan.interval, [self.spend.write(plan.interval, chunk) for chunk in plan.chunks])
            ledger = Ledger.open(self.at, "test")
            assert ledger.commit_materialize(ledger.materialization(plan.interval), self.at.clock.now())

    @rule(at=st.sampled_from(["plan", "write", "verify"]))
    def flush_while_writing(self, at: str) -> None:
        """Lose the store in the middle of a run."""
        plan = self.planned()
        if plan.interval is None:
            return
        if at == "plan":
            self.store.flushall()
        written = [self.spend.write(plan.interval, chunk) for chunk in plan.chunks]
        if at == "write":
            self.store.flushall()
        try:
            self.spend.verify(plan.interval, written)
        except Transient:
            return
        self.store.flushall()
        self.spend.commit(plan.interval)

    @rule()
    def repair(self) -> None:
        """Write everything again."""
        self.spend.run(everything=True)

    @rule()
    def run(self) -> None:
        """Run to the end: the store holds what an empty one would after an unbroken run, and nothing is found wrong."""
        while self.planned().interval is not None:  # intervals that earlier runs had planned come first
            self.spend.run()
        self.peer.flushall()
        with tempfile.TemporaryDirectory() as fresh:
            ledger = Ledger.open(self.at.model_copy(update={"ledger_url": f"sqlite:///{fresh}/peer.db"}), "test")
            tick = ledger.plan_compute("spend", Mode.LIVE, T - timedelta(hours=1), T, {}, T)
            ledger.commit_compute(tick, 0, 1, T)
            Materializer(self.at, self.lake, ledger, self.peer, "test", SPEND).run()
        assert contents(self.store) == contents(self.peer)
        assert self.spend.diagnose().problems == ()


def name_in(store: Any, copy: dict[bytes, bytes]) -> bytes | None:
    """Return the name that the store had when a copy of it was made."""
    epoch = copy.get(b"lockstep:epoch:test")
    if epoch is None:
        return None
    store.restore("copied", 0, epoch, replace=True)
    name = store.hget("copied", "incarnation")
    store.delete("copied")
    return name


@pytest.mark.parametrize("tells_its_run", [True, False])
def test_any_sequence_ends_at_what_the_lake_answers(tmp_path: Path, monkeypatch, tells_its_run: bool) -> None:
    """Once with a server that tells its run, once with one that does not and may come back from a copy of itself."""
    Case.tells_its_run = tells_its_run
    if not tells_its_run:
        tell_no_run(monkeypatch)
    at = Settings(home=tmp_path).resolved()
    with LocalRedis(tmp_path / "one") as one, LocalRedis(tmp_path / "two") as two:
        Case.store, Case.peer = connect(one.settings(at)), connect(two.settings(at))
        run_state_machine_as_test(
            Case,
            settings=settings(
                max_examples=int(os.environ.get("LOCKSTEP_SEQUENCES", "6")),
                stateful_step_count=10,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
