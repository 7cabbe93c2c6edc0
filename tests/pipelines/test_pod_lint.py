"""A pod of this project runs its own image, as nobody, within limits; it is retried by exit code and told no secrets."""

from typing import Any

import pytest

from tests.pipelines.checking import Manifest, check_after, findings_after, template_of


def script(document: Manifest) -> Manifest:
    return template_of(document, "double")["script"]


def context(document: Manifest) -> Manifest:
    return script(document)["securityContext"]


PART = "of which a value in {{…}} would become part, which is outside the rendered subset"
INLINE = "uses command '{}', " + PART.replace("{", "{{").replace("}", "}}")
RIGHTS = "the container's {} is not {}"
CAPABILITIES = ("double", "the container keeps capabilities that no step needs")
WRONG: dict[str, tuple[Any, tuple[str, str]]] = {
    "image": (
        lambda d: script(d).update(image="python:3.10"),
        ("double", "image 'python:3.10' is not a logical image of this project"),
    ),
    "latest": (
        lambda d: script(d).update(image="lab-steps:latest"),
        ("double", "image 'lab-steps:latest' is not a logical image of this project"),
    ),
    "function": (
        lambda d: script(d)["args"].__setitem__(-1, "lab_steps.echo:double"),
        ("double", "lab_steps.echo has no step 'double'"),
    ),
    "value in args": (
        lambda d: script(d)["args"].append("{{inputs.parameters.n}}"),
        (
            "double",
            INLINE.format("python -m hera.workflows.runner -e lab_steps.double:double {{inputs.parameters.n}}"),
        ),
    ),
    "shell": (
        lambda d: script(d).update(command=["sh", "-c"]),
        ("double", INLINE.format("sh -c -m hera.workflows.runner -e lab_steps.double:double")),
    ),
    "script": (
        lambda d: script(d).update(source="print({{inputs.parameters.n}})"),
        ("double", f"uses an inline script, {PART}"),
    ),
    "no context": (
        lambda d: script(d).pop("securityContext"),
        ("double", RIGHTS.format("allowPrivilegeEscalation", "false")),
    ),
    "escalation": (
        lambda d: context(d).update(allowPrivilegeEscalation=True),
        ("double", RIGHTS.format("allowPrivilegeEscalation", "false")),
    ),
    "writable root": (
        lambda d: context(d).pop("readOnlyRootFilesystem"),
        ("double", RIGHTS.format("readOnlyRootFilesystem", "true")),
    ),
    "capabilities": (lambda d: context(d).update(capabilities={"drop": ["NET_RAW"]}), CAPABILITIES),
    "added capability": (lambda d: context(d)["capabilities"].update(add=["SYS_PTRACE"]), CAPABILITIES),
    "privileged": (lambda d: context(d).update(privileged=True), CAPABILITIES),
    "root": (lambda d: context(d).update(runAsUser=0), ("double", "the container runs as root")),
    "root of the pod": (
        lambda d: template_of(d, "double").update(securityContext={"runAsNonRoot": False}),
        ("double", "the container runs as root"),
    ),
    "root of the workflow": (
        lambda d: d["spec"]["securityContext"].pop("runAsNonRoot"),
        ("spec.securityContext", "the pods may run as root"),
    ),
    "seccomp": (
        lambda d: d["spec"]["securityContext"].pop("seccompProfile"),
        ("spec.securityContext", "the pods may call anything of the kernel: there is no seccomp profile"),
    ),
    "account": (
        lambda d: d["spec"].pop("serviceAccountName"),
        ("spec.serviceAccountName", "the pods run as the service account `default`, whose rights are anybody's"),
    ),
    "account of a step": (
        lambda d: template_of(d, "double").update(serviceAccountName="default"),
        ("double", "the pod runs as the service account `default`, whose rights are anybody's"),
    ),
    "request": (
        lambda d: script(d)["resources"]["requests"].pop("cpu"),
        ("double", "resources.requests.cpu is not set: the pod is placed, or evicted, by chance"),
    ),
    "limit": (
        lambda d: script(d)["resources"].pop("limits"),
        ("double", "resources.limits.memory is not set: the pod is placed, or evicted, by chance"),
    ),
    "deadline": (
        lambda d: d["spec"].pop("activeDeadlineSeconds"),
        ("spec.activeDeadlineSeconds", "activeDeadlineSeconds is not set: a run that hangs is never ended"),
    ),
    "pods": (
        lambda d: d["spec"].pop("podGC"),
        ("spec.podGC", "podGC is not set: the pods of finished steps are never removed"),
    ),
    "workflows": (
        lambda d: d["spec"].pop("ttlStrategy"),
        ("spec.ttlStrategy", "ttlStrategy is not set: finished workflows are never removed"),
    ),
    "exit": (
        lambda d: d["spec"].pop("onExit"),
        ("spec.onExit", "onExit is not set: nobody is told of a run that failed"),
    ),
    "metrics": (
        lambda d: d["spec"].pop("metrics"),
        ("spec.metrics.prometheus", "metrics.prometheus is not set: nothing counts its runs"),
    ),
    "no labels": (
        lambda d: d["metadata"].pop("labels"),
        (
            "metadata.labels.app.kubernetes.io/part-of",
            "app.kubernetes.io/part-of is not set: it cannot be told from what is not ours",
        ),
    ),
    "label": (
        lambda d: d["metadata"]["labels"].pop("lockstep.dev/pipeline"),
        (
            "metadata.labels.lockstep.dev/pipeline",
            "lockstep.dev/pipeline is not set: it is not found by its pipeline",
        ),
    ),
    "labels of runs": (
        lambda d: d["spec"].pop("workflowMetadata"),
        (
            "spec.workflowMetadata.labels.lockstep.dev/pipeline",
            "workflowMetadata.labels.lockstep.dev/pipeline is not set: its runs are not found by their pipeline",
        ),
    ),
    "unknown account": (
        lambda d: d["spec"].update(serviceAccountName="feature-pipeline"),
        ("spec.serviceAccountName", "there is no service account 'feature-pipeline'"),
    ),
    "unknown account of a step": (
        lambda d: template_of(d, "double").update(serviceAccountName="promotor"),
        ("double", "there is no service account 'promotor'"),
    ),
    "volume": (
        lambda d: template_of(d, "double")["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
        ("double/h", "the volume 'h' is a hostPath, which no step needs"),
    ),
    "volume of all": (
        lambda d: d["spec"].update(volumes=[{"name": "h", "hostPath": {"path": "/"}}]),
        ("spec.volumes.h.hostPath", "the volume 'h' is a hostPath, which no step needs"),
    ),
    "pods of a strategy that is none": (
        lambda d: d["spec"].update(podGC={"strategy": "OnPodSucces"}),
        ("spec.podGC.strategy", "there is no podGC strategy 'OnPodSucces'"),
    ),
    "nowhere to write": (
        lambda d: script(d).pop("volumeMounts"),
        (
            "double",
            "the root is read-only and nothing writable is mounted at /tmp: the step could not write its outputs",
        ),
    ),
    "mount of no volume": (
        lambda d: script(d)["volumeMounts"][0].update(name="temp"),
        ("double/temp", "mounts 'temp', which is no volume"),
    ),
    "no retries": (
        lambda d: template_of(d, "double").pop("retryStrategy"),
        (
            "double",
            "no retryStrategy.expression: an exit that cannot get better (2, 3) is tried again, or none ever is",
        ),
    ),
    "retries for ever": (
        lambda d: template_of(d, "double")["retryStrategy"].pop("limit"),
        ("double", "retryStrategy has no limit: Argo retries for ever"),
    ),
    "retries of a DAG": (
        lambda d: template_of(d, "each").update(retryStrategy={"limit": 2}),
        (
            "each",
            "a DAG is retried as a whole, and every step in it again by its own retryStrategy: they multiply",
        ),
    ),
    "retries of everything": (
        lambda d: d["spec"].update(templateDefaults={"retryStrategy": {"limit": 2}}),
        (
            "spec.templateDefaults.retryStrategy",
            "a retryStrategy among the defaults is merged into DAGs too: it retries them around the retries of their steps",
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_pod_that_is_not_as_it_should_be_is_found(name: str):
    change, found = WRONG[name]
    assert found in check_after(change)


# -- secrets -----------------------------------------------------------------------------------------------------------


def variable(**given: Any) -> Any:
    return lambda document: script(document)["env"].append(given)


def parameter(**given: Any) -> Any:
    return lambda document: document["spec"]["arguments"]["parameters"].append(given)


SECRETS: dict[str, tuple[Any, str]] = {
    "variable": (
        variable(name="REDIS_PASSWORD", value="hunter2"),
        "the variable 'REDIS_PASSWORD' holds a secret that is not from a Secret",
    ),
    "config map": (
        variable(name="apiKey", valueFrom={"configMapKeyRef": {"name": "a", "key": "b"}}),
        "the variable 'apiKey' holds a secret that is not from a Secret",
    ),
    "parameter": (
        parameter(name="access_key", value="x"),
        "the parameter 'access_key' is a secret: parameters are stored with every run, for all to read",
    ),
    "parameter without a value": (
        parameter(name="token"),
        "the parameter 'token' is a secret: parameters are stored with every run, for all to read",
    ),
    "URL": (parameter(name="ledger", value="postgresql://me:hunter2@db/l"), "a URL with a password in it"),
    "access key": (variable(name="ID", value="AKIA" + "ABCDEFGH" * 2), "an access key"),
    "temporary access key": (variable(name="ID", value="ASIA" + "ABCDEFGH" * 2), "an access key"),
    "GitHub": (variable(name="ID", value="ghp" + "_" + "a1" * 18), "an access key"),
    "GitLab": (variable(name="ID", value="glpat" + "-" + "a1" * 10), "an access key"),
    "Slack": (variable(name="ID", value="xoxb" + "-1234567890"), "an access key"),
    "webhook": (
        variable(name="ID", value="https://hooks.slack" + ".com/services/T000/B000/x"),
        "a webhook, whose URL is its password",
    ),
    "JWT": (variable(name="ID", value="Bearer eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.dozjgNry"), "a signed token"),
    "private key": (
        lambda d: d["metadata"].update(annotations={"a": "-----BEGIN RSA " + "PRIVATE KEY-----"}),
        "a private key",
    ),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_found(name: str):
    change, what = SECRETS[name]
    hints = {finding.what: finding.hint for finding in findings_after(change)}
    assert hints[what]


@pytest.mark.parametrize(
    "change",
    [
        variable(name="REDIS_PASSWORD", valueFrom={"secretKeyRef": {"name": "redis", "key": "password"}}),
        variable(name="TOKEN_FILE", value="/var/run/token"),
        variable(name="LEDGER", value="postgresql://db:5432/ledger"),
        parameter(name="hook", value="https://chat.example.com/services/a"),
        variable(name="ID", value="eyJhbGciOiJIUzI1NiJ9"),
        parameter(name="join_key", value="customer_id"),
        parameter(name="key", value="a"),
        parameter(name="secret_name", value="redis"),
    ],
)
def test_what_only_sounds_like_a_secret_is_none(change):
    assert findings_after(change) == []
