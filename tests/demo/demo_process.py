"""`lockstep demo` as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"

OTHERS_WARNINGS = pytest.mark.filterwarnings(
    # Feast, MLflow and KServe are imported here in one process; their own deprecations are not ours to fix.
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def start_demo(home: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    command = [sys.executable, "-m", "pipelines", "demo", *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=kept | environment | {"LOCKSTEP_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
