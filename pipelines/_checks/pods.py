"""What a pod of this project must and must not be: its image, its rights, its limits, its retries; no secret, no shell.

https://argo-workflows.readthedocs.io/en/latest/workflow-pod-security-context/ ·
https://argo-workflows.readthedocs.io/en/latest/retries/
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.problem import Place, Problem, located, texts
from pipelines._checks.sources import StepFunction, readable, steps_of
from pipelines._manifest.subset import RUNNER, TMP
from pipelines._template import SERVICE_ACCOUNTS
from steps._step import steps_image

_STEP = "decorate the function with steps._step.step, which gives it"
_TEMPLATE = "make the template with pipelines._template.workflow_template, which gives it"
_CREDENTIAL = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://[^/\s:@{}]+:[^/\s@{}]+@)|(?P<hook>\bhooks\.slack\.com/(?:services|workflows)/\w)"
    r"|(?P<aws>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)|(?P<github>\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,})"
    r"|(?P<gitlab>\bglpat-[\w-]{20,})|(?P<slack>\bxox[a-z]-[\w-]{10,})"
    r"|(?P<jwt>\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
_CALLED = {
    "url": "a URL with a password in it",
    "hook": "a webhook, whose URL is its password",
    "jwt": "a signed token",
    "pem": "a private key",
}
_VOLUMES = ("configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret")
"""What a pod may mount: nothing of the node it runs on."""
_SECRET_WORDS = {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret", "token"}
_SECRET_PAIRS = {("access", "key"), ("api", "key"), ("private", "key")}
_ABOUT_A_SECRET = {"dir", "file", "name", "path", "ref", "seconds", "ttl", "url"}
"""`TOKEN_FILE` says where a secret is, not what."""


def pod_problems(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the pods of a WorkflowTemplate."""
    yield from located(manifest, _problems(manifest["spec"]))


def secret_problems(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what looks like a secret in a document: parameters are stored with every run, and shown to whoever may list them."""
    yield from located(manifest, _secrets(manifest))


def _problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _workflow(spec)
    for index, template in enumerate(spec.get("templates", [])):
        at = ("spec", "templates", index)
        if template.get("serviceAccountName") == "default":
            what = "the pod runs as the service account `default`, whose rights are anybody's"
            yield Problem((*at, "serviceAccountName"), what, "name an account of its own: @step(service_account=…)")
        else:
            yield from _account(template, at)
        yield from _volumes(template, at)
        if "script" in template:
            source, problem = _function(template, at)
            yield from ([problem] if problem else [])
            for found in (
                *_script(template["script"], (*at, "script")),
                *_rights(template, at),
                *_mounts(template, spec, at),
                *_retries(template, at),
            ):
                yield Problem(found.path, found.what, found.hint, source=source)
        elif "retryStrategy" in template:
            what = "a DAG is retried as a whole, and every step in it again by its own retryStrategy: they multiply"
            yield Problem((*at, "retryStrategy"), what, "retry steps only")


def _workflow(spec: Mapping[str, Any]) -> Iterator[Problem]:
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        what = "the pods may run as root"
        yield Problem(("spec", "securityContext"), what, f"{_TEMPLATE} securityContext.runAsNonRoot: true")
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        what = "the pods may call anything of the kernel: there is no seccomp profile"
        yield Problem(("spec", "securityContext"), what, f"{_TEMPLATE} seccompProfile RuntimeDefault")
    if spec.get("serviceAccountName", "default") == "default":
        what = "the pods run as the service account `default`, whose rights are anybody's"
        yield Problem(("spec", "serviceAccountName"), what, f"{_TEMPLATE} an account of its own")
    else:
        yield from _account(spec, ("spec",))
    yield from _volumes(spec, ("spec",))
    if "retryStrategy" in spec.get("templateDefaults", {}):
        what = "a retryStrategy among the defaults is merged into DAGs too: it retries them around the retries of their steps"
        yield Problem(("spec", "templateDefaults", "retryStrategy"), what, f"{_STEP} to each step")


def _account(holder: Mapping[str, Any], at: Place) -> Iterator[Problem]:
    account = holder.get("serviceAccountName", SERVICE_ACCOUNTS[0])
    if account not in SERVICE_ACCOUNTS:
        hint = nearest(str(account), SERVICE_ACCOUNTS)
        yield Problem((*at, "serviceAccountName"), f"there is no service account {account!r}", hint)


def _volumes(holder: Mapping[str, Any], at: Place) -> Iterator[Problem]:
    for index, volume in enumerate(holder.get("volumes", [])):
        for kind in sorted(set(volume) - {"name", *_VOLUMES}):
            what = f"the volume {volume.get('name')!r} is a {kind}, which no step needs"
            yield Problem((*at, "volumes", index, kind), what, f"one of {', '.join(_VOLUMES)}")


def _script(script: Mapping[str, Any], path: Place) -> Iterator[Problem]:
    if script.get("image") != steps_image():
        yield Problem(
            (*path, "image"),
            f"image {script.get('image')!r} is not a logical image of this project",
            f"decorate the function with steps._step.step (it gives {steps_image()!r}): Hera's own default is python:3.10",
        )
    resources = script.get("resources", {})
    for kind, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if name not in resources.get(kind, {}):
            what = f"resources.{kind}.{name} is not set: the pod is placed, or evicted, by chance"
            yield Problem((*path, "resources"), what, f"{_STEP} requests and limits")


def _rights(template: Mapping[str, Any], at: Place) -> Iterator[Problem]:
    context = template["script"].get("securityContext", {})
    path = (*at, "script", "securityContext")
    for key, wanted in (("allowPrivilegeEscalation", False), ("readOnlyRootFilesystem", True)):
        if context.get(key) is not wanted:
            what = f"the container's {key} is not {str(wanted).lower()}"
            yield Problem((*path, key), what, f"{_STEP} the project's security context")
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add") or context.get("privileged"):
        what = "the container keeps capabilities that no step needs"
        yield Problem((*path, "capabilities"), what, f"{_STEP} drop: [ALL]")
    for each in (context, template.get("securityContext", {})):
        if each.get("runAsUser") == 0 or each.get("runAsNonRoot") is False:
            yield Problem(path, "the container runs as root", "leave the user to the workflow")


def _mounts(template: Mapping[str, Any], spec: Mapping[str, Any], at: Place) -> Iterator[Problem]:
    script = template["script"]
    mounts = script.get("volumeMounts", [])
    path = (*at, "script", "volumeMounts")
    volumes = [volume.get("name") for holder in (template, spec) for volume in holder.get("volumes", [])]
    for index, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            hint = nearest(str(mount.get("name")), map(str, volumes))
            yield Problem((*path, index), f"mounts {mount.get('name')!r}, which is no volume", hint)
    writable = [mount.get("mountPath") for mount in mounts if not mount.get("readOnly")]
    if script.get("securityContext", {}).get("readOnlyRootFilesystem") and TMP not in writable:
        what = f"the root is read-only and nothing writable is mounted at {TMP}: the step could not write its outputs"
        yield Problem(path, what, f"{_STEP} an emptyDir there")


def _retries(template: Mapping[str, Any], at: Place) -> Iterator[Problem]:
    strategy = template.get("retryStrategy", {})
    path = (*at, "retryStrategy")
    if not strategy.get("expression"):
        what = "no retryStrategy.expression: an exit that cannot get better (2, 3) is tried again, or none ever is"
        yield Problem(path, what, f"{_STEP} one that goes by exit codes")
    elif strategy.get("limit") is None:
        yield Problem(path, "retryStrategy has no limit: Argo retries for ever", "give it one")


def _function(template: Mapping[str, Any], at: Place) -> tuple[str, Problem | None]:
    """Return where the function of a script is defined (`file:line`), and what is wrong between the two."""
    name = str(template["name"])
    args = template["script"].get("args", [])
    module, _, function = str(args[-1]).partition(":") if args[:-1] == RUNNER else ("", "", "")
    if not function:
        return "", None  # not Hera's runner: reported with the script
    package = module.rpartition(".")[0]
    same = steps_of(package).get(function, ())
    source = next((_source(step) for step in same if step.module == module), "")
    path = (*at, "script", "args", len(args) - 1)
    if name.replace("-", "_") != function:
        hint = "a template is called like its function: Hera tells templates apart by name only and would mix them up"
        return source, Problem(path, f"template {name!r} runs {module}:{function}", hint, source=source)
    if not source:
        hint = nearest(function, steps_of(package))
        return "", Problem(path, f"{module} has no step {function!r}", hint)
    if len(same) > 1:
        what = f"two step functions are called {function!r}, in {' and '.join(step.module for step in same)}"
        hint = "rename one: in one workflow Hera silently runs the first for both"
        return source, Problem(path, what, hint, source=" and ".join(map(_source, same)))
    return source, None


def _source(step: StepFunction) -> str:
    return f"{readable(step.file)}:{step.line}"


def _secrets(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    for path, text in texts(manifest):
        if found := _CREDENTIAL.search(text):
            what = _CALLED.get(str(found.lastgroup), "an access key")
            yield Problem(path, what, "take it out of the repository, change it, and read it by secretKeyRef")
    for path, named in _named(manifest):
        if not _is_secret(str(named["name"])):
            continue
        if path[-2] == "env":
            reference = named.get("valueFrom", {})
            if "secretKeyRef" not in reference and named.get("value") != "":
                what = f"the variable {named['name']!r} holds a secret that is not from a Secret"
                yield Problem(path, what, "write valueFrom: {secretKeyRef: {name: …, key: …}}")
        else:
            what = (
                f"the parameter {named['name']!r} is a secret: parameters are stored with every run, for all to read"
            )
            yield Problem(path, what, "let the step read it from a Secret: @step(env=[SecretEnv(…)])")


def _named(value: Any, path: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield the parameters and environment variables of a document."""
    for key, inner in (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    ):
        if isinstance(inner, Mapping) and "name" in inner and path and path[-1] in ("env", "parameters"):
            yield (*path, key), inner
        yield from _named(inner, (*path, key))


def _is_secret(name: str) -> bool:
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) if word]
    if not words or words[-1] in _ABOUT_A_SECRET:
        return False
    return bool(_SECRET_WORDS & set(words)) or bool(_SECRET_PAIRS & set(itertools.pairwise(words)))
