"""What the code renders, where it goes, and how drift is told."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lockstep.errors import BadInput, UseCaseError
from lockstep.settings import Settings
from pipelines.render import drift, render_all, write

WORKFLOWS = "apps/base/workflows"
FIXTURES = str(Path(__file__).parent / "fixtures")
PIPELINE = """
from hera.workflows import DAG, WorkflowTemplate
from lab_steps.echo import echo

def build():
    with WorkflowTemplate(name={name!r}, entrypoint="main") as template, DAG(name="main"):
        echo(name="echo", arguments={{"text": "a"}})
    return template

RESOURCES = (build,)
"""


def test_each_resource_has_one_file_and_one_kustomization_lists_them_sorted():
    files = render_all("lab_pipelines")
    assert list(files) == [
        f"{WORKFLOWS}/gated/workflowtemplate.yaml",
        f"{WORKFLOWS}/kustomization.yaml",
        f"{WORKFLOWS}/numbers/cronworkflow.yaml",
        f"{WORKFLOWS}/numbers/workflowtemplate.yaml",
        f"{WORKFLOWS}/say/workflowtemplate.yaml",
    ]
    assert yaml.safe_load(files[f"{WORKFLOWS}/kustomization.yaml"]) == {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [
            "gated/workflowtemplate.yaml",
            "numbers/cronworkflow.yaml",
            "numbers/workflowtemplate.yaml",
            "say/workflowtemplate.yaml",
        ],
    }


def test_a_file_says_which_module_and_command_made_it():
    first = render_all("lab_pipelines")[f"{WORKFLOWS}/numbers/cronworkflow.yaml"].splitlines()[0]
    assert first == "# Rendered from lab_pipelines/numbers.py by `lockstep render`. Do not edit."


def test_a_step_pod_is_locked_down_and_retries_by_exit_code():
    document = yaml.safe_load(render_all("lab_pipelines")[f"{WORKFLOWS}/numbers/workflowtemplate.yaml"])
    template = next(t for t in document["spec"]["templates"] if t["name"] == "double")
    script = template["script"]
    assert (script["image"], script["imagePullPolicy"]) == ("lab-steps", "IfNotPresent")
    assert script["args"] == ["-m", "hera.workflows.runner", "-e", "lab_steps.double:double"]
    assert script["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert script["resources"] == {
        "requests": {"cpu": "250m", "memory": "64Mi"},
        "limits": {"cpu": "2", "memory": "64Mi"},
    }
    assert template["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert template["serviceAccountName"] == "materializer"
    expression = "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) not in [2, 3]"
    assert template["retryStrategy"]["expression"] == expression


def test_only_who_signs_reports_has_the_private_key_and_only_who_decides_by_them_the_public_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "feature_repo")
    found: dict[str, tuple[str, str, str]] = {}
    for text in render_all("pipelines").values():
        for template in yaml.safe_load(text).get("spec", {}).get("templates", []):
            secrets = {v["name"]: v["secret"]["secretName"] for v in template.get("volumes", []) if "secret" in v}
            for mount in template.get("script", {}).get("volumeMounts", []):
                if mount["name"] in secrets:
                    (told,) = (
                        e for e in template["script"]["env"] if e.get("value", "").startswith(mount["mountPath"])
                    )
                    assert mount["readOnly"] is True
                    found[template["name"]] = (secrets[mount["name"]], told["name"], told["value"].rpartition("/")[2])
    public = ("fraud-parity-verify-key", "LOCKSTEP_PARITY_VERIFY_KEY", "parity.pub.pem")
    assert found == {
        "verify-parity": ("fraud-parity-signing-key", "LOCKSTEP_PARITY_SIGNING_KEY", "parity.pem"),
        "parity-gate": public,
        "promote-model": public,
    }


def test_rendering_depends_on_the_use_case_and_on_nothing_else_around_it(tmp_path: Path):
    code = "from pipelines.render import render_all\nimport hashlib, json"
    code += "\nprint(hashlib.sha256(json.dumps(render_all('lab_pipelines')).encode()).hexdigest())"
    elsewhere = {
        "LOCKSTEP_HOME": str(tmp_path / "elsewhere"),
        "LOCKSTEP_LEDGER_URL": "postgresql://db/ledger",
        "LOCKSTEP_REDIS_HOST": "redis",
        "LOCKSTEP_MANIFESTS": "/nowhere",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "COLUMNS": "20",
    }
    digests = set()
    for around in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", **elsewhere}):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), FIXTURES]), **around}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        digests.add(ran.stdout)
    here = hashlib.sha256(json.dumps(render_all("lab_pipelines")).encode()).hexdigest()
    assert digests == {f"{here}\n"}


def test_rendering_and_checking_import_neither_feast_nor_mlflow():
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipelines.check import run_checks\nrun_checks(Path('manifests'))"
    )
    code += "\nprint([name for name in ('feast', 'mlflow', 'sklearn', 'kserve') if name in sys.modules])"
    environment = {**os.environ, "LOCKSTEP_USE_CASE": Settings.model_fields["use_case"].default}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_package_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="there is no package 'no_such_pipelines'"):
        render_all("no_such_pipelines")


def test_what_was_written_does_not_drift(tmp_path: Path):
    assert len(write(tmp_path, "lab_pipelines")) == 5
    assert drift(tmp_path, "lab_pipelines") == []
    assert write(tmp_path, "lab_pipelines") == []


def test_drift_names_a_missing_a_changed_and_a_stale_file_and_what_to_do(tmp_path: Path):
    write(tmp_path, "lab_pipelines")
    folder = tmp_path / WORKFLOWS
    (folder / "gated/workflowtemplate.yaml").unlink()
    changed = folder / "say/workflowtemplate.yaml"
    changed.write_text(changed.read_text().replace("lab-say", "lab-shout"))
    (folder / "old").mkdir()
    (folder / "old/workflowtemplate.yaml").write_text("# Rendered from pipelines/old.py by `lockstep render`.\n")
    assert [(d.file.removeprefix(f"{WORKFLOWS}/"), d.what) for d in drift(tmp_path, "lab_pipelines")] == [
        ("gated/workflowtemplate.yaml", "is not there"),
        ("say/workflowtemplate.yaml", "differs from what the code renders, first in line 5"),
        ("old/workflowtemplate.yaml", "nothing renders this file any more"),
    ]
    assert {d.hint for d in drift(tmp_path, "lab_pipelines")} == {"run `lockstep render` and commit what it wrote"}


def test_writing_removes_what_was_rendered_once_and_keeps_what_was_written_by_hand(tmp_path: Path):
    folder = tmp_path / WORKFLOWS
    (folder / "old").mkdir(parents=True)
    (folder / "old/workflowtemplate.yaml").write_text("# Rendered from pipelines/old.py by `lockstep render`.\n")
    (folder / "hand").mkdir()
    (folder / "hand/kustomization.yaml").write_text("kind: Kustomization\n")
    write(tmp_path, "lab_pipelines")
    assert not (folder / "old").exists()
    assert (folder / "hand/kustomization.yaml").read_text() == "kind: Kustomization\n"


def test_a_resource_that_is_not_named_after_the_project_is_refused(package):
    with pytest.raises(BadInput, match="'other-say' is not named <project>-<pipeline>") as refused:
        render_all(package("misnamed", say=PIPELINE.format(name="other-say")))
    assert (refused.value.exit_code, refused.value.hint) == (2, "the project is 'lab'")


def test_a_name_over_52_characters_is_refused(package):
    name = "lab-" + "x" * 49
    with pytest.raises(BadInput, match="has 53 characters"):
        render_all(package("long", say=PIPELINE.format(name=name)))


def test_two_resources_for_one_file_are_refused(package):
    source = PIPELINE.format(name="lab-say")
    with pytest.raises(BadInput, match="there is already a WorkflowTemplate 'lab-say'"):
        render_all(package("twice", one=source, two=source))


def test_a_use_case_without_a_name_is_an_error_of_the_use_case(monkeypatch, package):
    monkeypatch.setenv("LOCKSTEP_USE_CASE", package("nameless"))
    with pytest.raises(UseCaseError, match="'nameless' has no PROJECT"):
        render_all("lab_pipelines")
    monkeypatch.setenv("LOCKSTEP_USE_CASE", "no_such_case")
    with pytest.raises(UseCaseError, match="'no_such_case' does not import"):
        render_all("lab_pipelines")
