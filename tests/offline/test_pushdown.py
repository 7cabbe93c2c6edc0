"""What retrieval reads of a table, in bytes and files, and what memory it takes."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lockstep.lake import Lake
from lockstep.offline.duckdb import DuckDBEngine
from lockstep.offline.semantics import ViewRead
from lockstep.settings import Settings

T = datetime(2018, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
US = timedelta(microseconds=1)
UTC_US = pa.timestamp("us", tz="UTC")
DAYS, A_DAY, WIDTH = 10, 2_000, 8
FEATURES = [f"f{number}" for number in range(WIDTH)]
SCHEMA = pa.schema(
    [pa.field("card", pa.int64()), *(pa.field(name, pa.float64()) for name in FEATURES)]
    + [pa.field(name, UTC_US) for name in ("event_timestamp", "created_timestamp")]
)
# What a process has read by itself, its threads included: https://man7.org/linux/man-pages/man5/proc_pid_io.5.html
IO = Path("/proc/self/io")


def feature_table(days: int, a_day: int) -> pa.Table:
    """Return values that do not compress, a row a card, so many a day."""
    random = np.random.default_rng(1)
    count = days * a_day
    step = DAY // US // a_day
    times = pa.array(np.arange(count) * step + int(T.timestamp() * 1e6)).cast(UTC_US)
    values = [pa.array(random.random(count)) for _ in FEATURES]
    return pa.table([pa.array(np.arange(count)), *values, times, times], schema=SCHEMA)


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = Lake.open(Settings(home=tmp_path_factory.mktemp("home")).resolved(), "test")
    lake.ensure_table("wide", SCHEMA, "event_timestamp")
    lake.append("wide", feature_table(DAYS, A_DAY))
    return lake


def spine_of(*times: datetime) -> pa.Table:
    return pa.table({"card": range(len(times)), "event_timestamp": pa.array(times, UTC_US)})


def bytes_read(settings: Settings, lake: Lake, spine: pa.Table, read: ViewRead) -> int:
    """Return how many bytes the process read while it answered, the catalog's pages and the manifests included."""
    engine = DuckDBEngine(settings, lake)

    def run() -> None:
        list(engine.retrieve(spine, [read], time_column="event_timestamp", known_at=None))

    run()  # manifests are read once a process
    before = int(IO.read_text().split()[1])
    run()
    return int(IO.read_text().split()[1]) - before


@pytest.mark.skipif(not IO.exists(), reason="bytes are counted by Linux's /proc/self/io")
def test_only_the_asked_columns_of_the_days_that_can_answer_are_read(settings, lake) -> None:
    files = [Path(task.file.file_path.removeprefix("file://")) for task in lake.table("wide").scan().plan_files()]
    assert len(files) == DAYS
    whole = sum(file.stat().st_size for file in files)
    assert whole > 8 * DAYS * A_DAY * WIDTH
    everybody = spine_of(*[T + DAYS * DAY] * DAYS * A_DAY)
    spine = spine_of(*[T + 4 * DAY + DAY / 2] * DAYS * A_DAY)
    every = bytes_read(settings, lake, everybody, ViewRead("wide", {"card": "card"}, {f: f for f in FEATURES}))
    one = bytes_read(settings, lake, spine, ViewRead("wide", {"card": "card"}, {"f3": "f3"}, ttl_us=DAY // US))
    assert every > 0.9 * whole
    # 2 of 10 days can answer, and of these 4 of 11 columns are needed: 7 %, the keys and times of which are read several times.
    assert one < 0.25 * every


def test_files_of_other_days_are_not_opened(settings, tmp_path) -> None:
    lake = Lake.open(settings, "test")
    lake.ensure_table("wide", SCHEMA, "event_timestamp")
    lake.append("wide", feature_table(3, 10))
    spine, engine = spine_of(T + DAY + DAY / 2), DuckDBEngine(settings, lake)
    files = {task.file.file_path for task in lake.table("wide").scan().plan_files()}
    (other,) = [path for path in files if "event_timestamp_day=2018-06-03" in path]
    Path(other.removeprefix("file://")).unlink()
    read = ViewRead("wide", {"card": "card"}, {"f0": "f0"}, ttl_us=DAY // US)
    (found,) = engine.retrieve(spine, [read], time_column="event_timestamp", known_at=None)
    assert found.num_rows == 1
    with pytest.raises(Exception, match="event_timestamp_day=2018-06-03"):
        list(engine.retrieve(spine_of(T + 3 * DAY), [read], time_column="event_timestamp", known_at=None))


SMALL = """
import sys, threading, time
from pathlib import Path
from lockstep.lake import Lake
from lockstep.offline.duckdb import DuckDBEngine
from lockstep.offline.semantics import ViewRead
from lockstep.settings import Settings

settings = Settings(home=sys.argv[1], duckdb_memory_limit=sys.argv[2], retrieval_rows=int(sys.argv[3])).resolved()
lake = Lake.open(settings, "test")
spine = lake.table("wide").scan(selected_fields=("card", "event_timestamp")).to_arrow()
spilled, done = 0, False

def watch():
    global spilled
    while not done:
        spilled = max(spilled, sum(f.stat().st_size for f in Path(settings.home, "spill").glob("duckdb_temp*")))
        time.sleep(0.01)

def highest():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)

watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten: a child begins with its parent's
before, rows = highest(), 0
read = ViewRead("wide", {"card": "card"}, {f"f{n}": f"f{n}" for n in range(8)})
for part in DuckDBEngine(settings, lake).retrieve(spine, [read], time_column="event_timestamp", known_at=None):
    assert part["f0"].null_count == 0
    rows += part.num_rows
done = True
watcher.join()
print(rows, spilled, highest() - before)
"""


def retrieved(settings: Settings, memory_limit: str, part_rows: int) -> tuple[int, int, int]:
    """Retrieve in a process of its own: rows, the most bytes spilled at once, and by how many KiB the process grew."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(settings.home), memory_limit, str(part_rows)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, spilled, grown = map(int, done.stdout.split())
    return rows, spilled, grown


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
def test_a_table_larger_than_the_memory_limit_spills_and_a_spine_in_parts_takes_less_memory(settings) -> None:
    lake = Lake.open(settings, "test")
    lake.ensure_table("wide", SCHEMA, "event_timestamp")
    rows = 400_000
    lake.append("wide", feature_table(2, rows // 2))
    everything = retrieved(settings, "8GB", rows)
    little = retrieved(settings, "32MB", rows // 8)
    assert everything[:2] == (rows, 0)
    assert little[0] == rows
    assert little[1] > 2**20
    assert little[2] < everything[2] * 0.6
