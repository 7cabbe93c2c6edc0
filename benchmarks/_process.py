"""What the scripts share that measure each run in a process of its own: what it took, and medians over the runs."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

ENGINES = ("ours", "peer", "limit")

Result = TypeVar("Result")


def timed(run: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """Return what `run` gives, with the wall and CPU seconds it takes and the peak memory of the whole process in MiB."""
    used, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    result = run()
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    return result, {
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "peak_mib": _peak_kib() / 1024,
    }


def _peak_kib() -> int:
    """Return the most memory that this process has had; `ru_maxrss` begins with what the one had that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def in_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one measurement of a script as a process of its own; its last line is the JSON that is returned."""
    command = [sys.executable, "-W", "ignore", "-m", module, "--engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Return each figure of each engine as the median of its runs: `ours_cpu_s` and so on."""
    return {
        f"{engine}_{figure}": round(statistics.median(run[figure] for run in runs), 3)
        for engine, runs in measured.items()
        for figure in ("cpu_s", "wall_s", "peak_mib")
    }


def headings(figure: str, title: str) -> dict[str, str]:
    """Return the headings of one figure, an engine a column."""
    return {f"{engine}_{figure}": f"{title}: {engine}" if engine == "ours" else engine for engine in ENGINES}
