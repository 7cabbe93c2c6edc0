"""Another team's use case runs the same workflows: a setting names it, and nothing in the library does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lockstep.errors import BadInput
from lockstep.local import LocalRedis
from lockstep.views import load_use_case
from pipelines._commands.progress import Lines
from pipelines._demo import run_demo

ROOT = Path(__file__).parents[1]
USE_CASES = ROOT / "tests" / "use_cases"
WORKFLOWS = "apps/base/workflows"

Environment = dict[str, str]
Document = dict[str, Any]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the other team sets; their home is not this checkout."""
    home = tmp_path_factory.mktemp("pump_care")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    return ours | {
        "PYTHONPATH": str(USE_CASES),
        "LOCKSTEP_USE_CASE": "pump_care",
        "LOCKSTEP_HOME": str(home / "home"),
        "LOCKSTEP_CLOCK_FILE": str(home / "home" / "clock"),
        "LOCKSTEP_MANIFESTS": str(home / "manifests"),
    }


def attempt(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in their folder, whatever comes of it."""
    folder = Path(environment["LOCKSTEP_MANIFESTS"]).parent
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def python(environment: Environment, *arguments: str) -> str:
    """Run Python in their folder and return what it prints."""
    done = attempt(environment, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def manifests(environment: Environment) -> Path:
    python(environment, "-m", "pipelines", "render")
    return Path(environment["LOCKSTEP_MANIFESTS"])


@pytest.fixture(scope="module")
def driven(environment: Environment, manifests: Path) -> Iterator[Document]:
    """What came of driving the rendered workflows from raw events to a champion."""
    with LocalRedis(manifests.parent) as redis:
        store = {"LOCKSTEP_REDIS_HOST": "127.0.0.1", "LOCKSTEP_REDIS_PORT": str(redis.port)}
        yield json.loads(python(environment | store, str(USE_CASES / "drive.py")).splitlines()[-1])


def workflows(root: Path) -> dict[str, str]:
    """The text of each pipeline's WorkflowTemplate."""
    return {path.parent.name: path.read_text() for path in sorted((root / WORKFLOWS).glob("*/workflowtemplate.yaml"))}


def test_resources_image_and_mutexes_are_named_after_the_project(manifests: Path) -> None:
    documents = {name: yaml.safe_load(text) for name, text in workflows(manifests).items()}
    assert {name: document["metadata"]["name"] for name, document in documents.items()} == {
        name: f"pumpcare-{name}"
        for name in (
            "apply-definitions",
            "backfill",
            "compute-and-materialize",
            "drain-served-log",
            "maintain-lake",
            "monitor",
            "promote",
            "shadow-replay",
            "train",
            "verify-parity",
        )
    }
    templates = [template for document in documents.values() for template in document["spec"]["templates"]]
    assert {template["script"]["image"] for template in templates if "script" in template} == {"pumpcare-steps"}
    mutexes = [mutex["name"] for t in templates for mutex in t.get("synchronization", {}).get("mutexes", ())]
    assert set(mutexes) == {"pumpcare-view-{{inputs.parameters.view}}"}


def test_nothing_but_the_name_differs_from_the_manifests_of_the_reference_use_case(manifests: Path) -> None:
    reference = {name: text.replace("fraud-", "pumpcare-") for name, text in workflows(ROOT / "manifests").items()}
    assert {name: yaml.safe_load(text) for name, text in workflows(manifests).items()} == {
        name: yaml.safe_load(text) for name, text in reference.items()
    }


def test_check_finds_nothing_wrong_with_them(environment: Environment, manifests: Path) -> None:
    assert manifests.is_dir()
    assert json.loads(python(environment, "-m", "pipelines", "check", "--json")) == []


# Names of the use cases that are words of the library's own: a terminal error and a screen, what was read, a model's labels.
ORDINARY = {"terminal", "labels", "reading", "readings"}
# The use case that is taken when none is named, and where somebody who lacks a module finds an example of it.
DEFAULT = {("lockstep/settings.py", "feature_repo"), ("pipelines/_use_case.py", "feature_repo")}
# Examples in docstrings, and the address of a published definition; nothing is decided by them.
EXAMPLES = {
    ("lockstep/views/exact.py", "fraud"),
    ("lockstep/skew/faults/wrong_column.py", "risk_1d"),
    ("lockstep/skew/faults/wrong_column.py", "risk_7d"),
    ("lockstep/skew/faults/wrong_column.py", "terminal_risk"),
    ("lockstep/training/registry.py", "fraud"),
    ("lockstep/views/latest.py", "customer"),
    ("lockstep/views/windowed.py", "nb_tx_7d"),
    ("steps/_alone.py", "customer_spend"),
}


def names_of(package: str) -> set[str]:
    """All that a use case gives a name to: itself, its tables, keys, views, features, services and model."""
    use_case = load_use_case(package)
    views = (*use_case.views, *use_case.on_demand)
    named = (*use_case.entities, *views, *use_case.services, use_case.model)
    return {
        package,
        use_case.project,
        *(thing.name for thing in named),
        *(source.table for source in use_case.sources),
        *(entity.join_key for entity in use_case.entities),
        *(feature for view in views for feature in view.features),
    }


@pytest.mark.parametrize("package", ["feature_repo", "pump_care"])
def test_no_line_of_the_library_knows_a_use_case(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(USE_CASES)
    names = names_of(package) - ORDINARY
    assert len(names) > 20
    files = [path for folder in ("lockstep", "steps", "pipelines") for path in (ROOT / folder).rglob("*.*")]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in files if path.suffix != ".pyc"}
    assert len(texts) > 50
    words = {(file, word) for file, text in texts.items() for word in re.findall(r"\w+", text)}
    assert sorted((file, word) for file, word in words - DEFAULT - EXAMPLES if word in names) == []


def test_a_demo_of_a_use_case_that_has_none_is_refused_in_words_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(USE_CASES)
    with pytest.raises(BadInput, match=r"'pump_care' has nothing to demonstrate: No module named 'pump_care.demo'"):
        run_demo(tmp_path / "home", "pump_care", tmp_path, Lines(print))
    assert not (tmp_path / "home").exists()


def test_its_function_compares_a_reading_with_its_pumps_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(USE_CASES)
    from pump_care.on_demand.reading import compare_reading

    # A pump that shakes at twice its mean, one that stood still for a week, and one never seen.
    found = compare_reading(
        {
            "vibration_um": np.array([3_000, 1_000, 1_000]),
            "pressure_kpa": np.array([550, 600, 600]),
            "readings_1d": np.array([4.0, 0.0, np.nan]),
            "vibration_um_1d": np.array([6_000.0, 0.0, np.nan]),
            "readings_7d": np.array([10.0, 0.0, np.nan]),
            "vibration_um_7d": np.array([12_000.0, 0.0, np.nan]),
        }
    )

    assert {name: values.tolist()[0] for name, values in found.items()} == {
        "vibration_mm": 3.0,
        "pressure_bar": 5.5,
        "vibration_over_mean_1d": 2.0,
        "vibration_over_mean_7d": 2.5,
    }
    assert [name for name, values in found.items() if np.isnan(values[1:]).all()] == [
        "vibration_over_mean_1d",
        "vibration_over_mean_7d",
    ]


def test_a_key_is_text_as_well_as_a_number(driven: Document) -> None:
    assert driven["contract"]["project"] == "pumpcare"
    assert driven["contract"]["join_keys"] == [
        {"name": "pump_id", "dtype": "string"},
        {"name": "site_id", "dtype": "int64"},
    ]


def test_the_model_ranks_far_better_than_chance(driven: Document) -> None:
    assert driven["no_skill"] < 0.2
    assert float(driven["trained"]["average_precision"]) > 0.75
    assert float(driven["trained"]["auc"]) > 0.9


def test_400_served_rows_on_both_sides_of_a_materialization_equal_the_lake_and_training(driven: Document) -> None:
    parity = driven["parity"]
    assert (parity["verdict"], parity["reasons"]) == ("pass", [])
    assert (parity["sample"]["uniform"], parity["mismatches"], parity["excused"]) == (400, 0, 0)
    assert parity["intervals"] == {"pump_vibration": 2, "site_breakdowns": 2, "pump_file": 2}
    assert min(parity["present"].values()) >= parity["sample"]["required"] == 299
    assert parity["upper_bound"] < 0.01


def test_a_site_without_a_history_is_served_without_one_as_it_would_be_trained(driven: Document) -> None:
    present = driven["parity"]["present"]
    assert present["site_breakdowns"] < present["pump_vibration"] == 400
    strata = {stratum["name"]: stratum for stratum in driven["parity"]["strata"]}
    assert strata["flag site_breakdowns:missing"] == {
        "name": "flag site_breakdowns:missing",
        "rows": 5,
        "mismatches": 0,
    }


def test_a_repair_that_was_entered_between_two_replays_is_served_after_the_run_between_them(driven: Document) -> None:
    """`pump_file` is a latest view: it is materialized, served and proven in step like the windowed ones."""
    assert driven["parity"]["present"]["pump_file"] == 400
    changed = {pump: values for pump, values in driven["repairs"].items() if len(values) > 1}
    assert len(driven["repairs"]) == 64
    assert changed == {"P-000": [6.0, 7.0], "P-040": [4.0, 5.0]}


def test_the_gate_lets_it_through_and_the_challenger_becomes_the_champion(driven: Document) -> None:
    champion, trained, promoted = driven["champion"], driven["trained"], driven["promoted"]
    assert (promoted["verdict"], promoted["champion"]) == ("pass", trained["version"])
    assert (str(champion["version"]), champion["digest"]) == (trained["version"], trained["digest"])
    assert champion["tags"]["lockstep.parity"] == "passed"
    assert champion["tags"]["lockstep.parity-report"] == promoted["report"] == driven["report"]


def test_nothing_of_the_reference_use_case_was_imported_or_kept(driven: Document) -> None:
    assert driven["imported"] == ["pump_care"]
    assert [name for name in driven["tables"] if not name.startswith("training_")] == [
        "evaluations",
        "outcomes",
        "parity_reports",
        "pump_file",
        "pump_vibration",
        "pumps",
        "readings",
        "served_log",
        "site_breakdowns",
    ]
