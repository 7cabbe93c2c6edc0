"""Whatever the schedule, the outages, the crashes and the back-fills: each tick is computed once, and none is left out.

The controller is Argo's as its documentation and source have it: while it is down nothing runs; when it is back it runs the last
tick that it missed, if that is no older than `startingDeadlineSeconds` (workflow/cron/operator.go). Concurrency is `Allow`.
"""

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from cronsim import CronSim
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.snapshots import COMPUTE_ID
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import Mode, State
from lockstep.settings import Settings
from lockstep.views.compute import backfill, compute
from tests.views.test_compute import PAYMENTS, SPEND, pay

BEGIN = datetime(2018, 6, 1, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEDULES = st.sampled_from(
    ["4 * * * *", "*/20 * * * *", "10 */3 * * *", "0,59 5-20 * * *", "30 2 * * *", "0 0 * * *"]
)
CRASHES = st.sampled_from([None, None, None, "planned", "appended"])


class Schedule(RuleBasedStateMachine):
    """One view's schedule, and what can befall it."""

    @initialize(cron=SCHEDULES, deadline=st.sampled_from([timedelta(minutes=5), timedelta(minutes=50), 30 * HOUR]))
    def begin(self, cron: str, deadline: timedelta) -> None:
        """Start with a source of two rows and a clock that the rules move."""
        self.folder = Path(tempfile.mkdtemp(prefix="lockstep-tiles-"))
        self.settings = Settings(home=self.folder, clock_file=self.folder / "clock").resolved()
        self.lake, self.ledger = Lake.open(self.settings, "test"), Ledger.open(self.settings, "test")
        self.lake.ensure_table("payments", PAYMENTS, "at")
        pay(self.lake, ("2018-06-01T10:30:00Z", 1, 500, "2018-06-01T10:30:01Z"))
        self.cron, self.deadline, self.asked = cron, deadline, [BEGIN]
        self.now = BEGIN
        self.move_to(BEGIN)

    def teardown(self) -> None:
        """Let the next run compute what is left, then look at what there is."""
        self.move_to(self.now + HOUR)
        self.run(self.now)
        tiles = [row for row in self.ledger.computes("spend") if row.mode is not Mode.CORRECT]
        assert all(row.state is State.COMMITTED for row in tiles)
        for earlier, later in itertools.pairwise(tiles):
            assert earlier.tick_to == later.tick_from, "a gap or an overlap"
        assert all(row.tick_from < row.tick_to for row in tiles)
        assert tiles[-1].tick_to == self.now.replace(minute=0, second=0, microsecond=0)
        written = Counter(s.properties[COMPUTE_ID] for s in self.lake.snapshots("spend"))
        assert written == Counter(str(row.id) for row in self.ledger.computes("spend"))
        rows = self.lake.table("spend").scan().to_arrow().to_pylist()
        assert set(Counter((r["card"], r["event_timestamp"], r["created_timestamp"]) for r in rows).values()) <= {1}
        shutil.rmtree(self.folder)

    def move_to(self, time: datetime) -> None:
        self.now = time
        # The clock never goes back, and runs on while a rule runs.
        self.settings.clock.advance_to(time)

    def ticks_until(self, end: datetime) -> list[datetime]:
        """Return the schedule's times after now, up to a time."""
        found: list[datetime] = []
        for tick in CronSim(self.cron, self.now):
            if tick > end:
                return found
            found.append(tick)
        return found

    def run(self, window_end: datetime, crash: str | None = None) -> None:
        """Start a run, which may end in the middle, and is retried at once if it lost a race."""
        self.asked.append(window_end)
        self.ending(crash, lambda: compute(self.settings, self.lake, self.ledger, SPEND, window_end))

    def ending(self, crash: str | None, run: Callable[[], object]) -> None:
        if crash is None:
            run()
            return
        owner, step = (Lake, "append_parts") if crash == "planned" else (Ledger, "commit_compute")
        with patch.object(owner, step, side_effect=KeyboardInterrupt), suppress(KeyboardInterrupt):
            run()

    @rule(hours=st.integers(1, 7), crash=CRASHES)
    def live(self, hours: int, crash: str | None) -> None:
        """Let the controller run each tick of some hours; the last run may end in the middle."""
        end = self.now + hours * HOUR
        ticks = self.ticks_until(end)
        for tick in ticks:
            self.move_to(tick + timedelta(seconds=20))
            self.run(tick, crash if tick == ticks[-1] else None)
        self.move_to(max(end, self.now))

    @rule(hours=st.integers(1, 40))
    def outage(self, hours: int) -> None:
        """Let the controller be away, and do what Argo does when it is back."""
        end = self.now + hours * HOUR
        missed = self.ticks_until(end)
        self.move_to(end)
        if missed and end <= missed[-1] + self.deadline:
            self.run(missed[-1])

    @rule(chosen=st.integers(0, 9), crash=CRASHES)
    def resubmit(self, chosen: int, crash: str | None) -> None:
        """Run a window again that was asked for before."""
        self.run(self.asked[chosen % len(self.asked)], crash)

    @rule()
    def submit_by_hand(self) -> None:
        """Submit the schedule between two ticks: its time is now."""
        self.run(self.now)

    @rule(back=st.integers(-2, 12), length=st.integers(1, 10), crash=CRASHES)
    def back_fill(self, back: int, length: int, crash: str | None) -> None:
        """Ask for a range, of which some may be computed, some missed and some not due yet."""
        start = self.now.replace(minute=0) - back * HOUR
        with suppress(BadInput):  # it would leave a hole, or has no tick yet
            self.ending(
                crash, lambda: backfill(self.settings, self.lake, self.ledger, SPEND, start, start + length * HOUR)
            )

    @rule(hour=st.integers(0, 5))
    def pay_late(self, hour: int) -> None:
        """Let a row become known that happened some hours ago."""
        at = self.now - hour * HOUR
        pay(self.lake, (at.isoformat(), 1, 500, self.now.isoformat()))


def test_ticks_tile_time_whatever_befalls_their_schedule() -> None:
    few = hypothesis_settings(max_examples=8, stateful_step_count=10)
    run_state_machine_as_test(Schedule, settings=few)
