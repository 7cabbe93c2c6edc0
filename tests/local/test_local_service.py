import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.errors import Transient
from lockstep.local import LocalService
from lockstep.settings import Settings


def test_a_service_that_cannot_start_says_why_and_leaves_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    service = LocalService(settings, tmp_path / "nowhere", "fraud")

    with pytest.raises(Transient) as failed:
        service.start()

    assert "ended with 1" in str(failed.value)
    assert f"{tmp_path}/nowhere is no model directory: it has no MLmodel" in str(failed.value)
    assert service.pids == {}
    logs = sorted(path.name.rpartition("-")[0] for path in (settings.home / "logs").iterdir())
    assert logs == ["fraud-predictor", "fraud-transformer"]


def test_a_service_that_does_not_become_ready_in_time_is_ended(settings: Settings, tmp_path: Path) -> None:
    service = LocalService(settings, tmp_path, "fraud", ready_seconds=0.0)

    with pytest.raises(Transient, match="fraud was not ready within 0 s\nthe predictor of fraud:"):
        service.start()

    assert service.pids == {}


def test_the_serving_processes_import_neither_feast_nor_mlflow_and_the_transformer_no_scikit_learn() -> None:
    program = (
        "import sys, lockstep.serving.transformer, lockstep.serving.predictor\n"
        "print(sorted({'feast', 'mlflow', 'pyiceberg', 'duckdb', 'sklearn', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
