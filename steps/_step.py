"""The `step` decorator: Hera's runner script with everything that the step pods of this project have in common.

    class CountInput(StepInput):
        view: str

    class CountOutput(Output):
        rows: int

    @step(service_account="materializer")
    def count_rows(given: CountInput) -> CountOutput:
        return CountOutput(rows=...)

A step module never says `from __future__ import annotations`: Hera reads the annotations as types.
https://hera.readthedocs.io/en/stable/user-guides/script-runner-io/ · https://argo-workflows.readthedocs.io/en/latest/retries/
"""

import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast, overload

from hera.workflows import (
    EmptyDirVolume,
    Env,
    Resources,
    RetryStrategy,
    RunnerScriptConstructor,
    Script,
    SecretVolume,
    Task,
)
from hera.workflows._context import _context
from hera.workflows._runner.script_annotations_util import _save_dummy_outputs
from hera.workflows.io import Input, Output
from hera.workflows.models import Backoff, Capabilities, SecurityContext
from hera.workflows.script import _extract_return_annotation_output
from pydantic import ValidationError

from lockstep.errors import BadInput, LockstepError
from lockstep.settings import Settings
from lockstep.views.use_case import project_of

RETRY_WHEN = "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) not in [2, 3]"
"""Exit 0 done, 1 transient, 2 terminal, 3 refused by a gate; a pod that was evicted has no exit code and is an Error."""

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes takes a container's last words from, unless its pod says otherwise."""

SECRETS = Path("/etc/lockstep")
"""Below it the files of Secrets are mounted."""

_LONGEST_MESSAGE = 2_000  # Kubernetes takes 4096 bytes
_Given = TypeVar("_Given", bound=Input)
_Made = TypeVar("_Made", bound=Output)
_Given_contra = TypeVar("_Given_contra", bound=Input, contravariant=True)
_Made_co = TypeVar("_Made_co", bound=Output, covariant=True)


_OUTPUTS: dict[type[Input], Any] = {}
"""What the step of each `StepInput` declares as its outputs."""


class StepInput(Input):
    """The base of every step's input: a value of the wrong kind ends the pod as bad input does, and is not tried again."""

    @classmethod
    def model_validate(cls, *args: Any, **kwargs: Any) -> Self:
        """Read the parameters, as Hera's runner does before it calls the step.

        Raises:
            SystemExit: 2, a value is not of its field's type; which, is on stderr.
        """
        try:
            return super().model_validate(*args, **kwargs)
        except ValidationError as invalid:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
            raise _ended(BadInput(f"parameters: {said}"), _OUTPUTS.get(cls)) from None


@dataclass(frozen=True)
class SecretFile:
    """A file that a step's pod has from a Secret `<project>-<name>`, and the setting that says where.

    Attributes:
        name: the Secret's, without the project's.
        key: of the Secret; the file is called so.
        setting: holds its path.
    """

    name: str
    key: str
    setting: str

    @property
    def variable(self) -> Env:
        """What tells the step where the file is."""
        return Env(name=f"LOCKSTEP_{self.setting.upper()}", value=str(SECRETS / self.name / self.key))

    def volume(self, project: str) -> SecretVolume:
        """Return the mount; where there is no such Secret, the step itself says so."""
        return SecretVolume(
            name=self.name,
            secret_name=f"{project}-{self.name}",
            mount_path=str(SECRETS / self.name),
            read_only=True,
            optional=True,
        )


SIGNING_KEY = SecretFile("parity-signing-key", "parity.pem", "parity_signing_key")
VERIFY_KEY = SecretFile("parity-verify-key", "parity.pub.pem", "parity_verify_key")


class Step(Protocol[_Given_contra, _Made_co]):
    """What `@step()` makes of a function: itself outside a workflow, a task inside a DAG."""

    @overload
    def __call__(self, given: _Given_contra, /) -> _Made_co: ...

    @overload
    def __call__(
        self,
        *,
        name: str = ...,
        arguments: Any = ...,
        depends: str | None = ...,
        when: str | None = ...,
        with_param: Any = ...,
    ) -> Task: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function, or add a task to the DAG being defined."""


def step(
    *,
    cpu: str = "250m",
    cpu_limit: str = "2",
    memory: str = "1Gi",
    memory_limit: str = "",
    service_account: str | None = None,
    secret: SecretFile | None = None,
    **overrides: Any,
) -> Callable[[Callable[[_Given], _Made]], Step[_Given, _Made]]:
    """Return a decorator that makes a function of one `Input` to one `Output` a runner-script template.

    Called plainly the function is itself, and its errors are raised as they are. In a pod (and in `lockstep run`) a
    `LockstepError` is printed to stderr and becomes its exit code, which is what the retry expression goes by.

    Args:
        cpu: requested cores.
        cpu_limit: most cores.
        memory: requested memory.
        memory_limit: most memory; the request where not given, so that a pod is never evicted for memory it did not ask for.
        service_account: the pod's own account, where the workflow's is not the right one.
        secret: a file that this pod alone is given.
        overrides: anything else `hera.workflows.Script` takes; replaces the project's value.

    Raises:
        BadInput: at decoration, if the annotations are strings; inside a DAG, if called with a positional argument.
    """
    settings: dict[str, Any] = {
        "constructor": RunnerScriptConstructor(),
        "image_pull_policy": "IfNotPresent",
        "resources": Resources(
            cpu_request=cpu, cpu_limit=cpu_limit, memory_request=memory, memory_limit=memory_limit or memory
        ),
        "security_context": SecurityContext(
            allow_privilege_escalation=False, capabilities=Capabilities(drop=["ALL"]), read_only_root_filesystem=True
        ),
        "service_account_name": service_account,
        "env": [secret.variable] if secret else None,
        "retry_strategy": RetryStrategy(
            limit=3, expression=RETRY_WHEN, backoff=Backoff(duration="30s", factor="2", cap="10m")
        ),
    }

    def decorate(function: Callable[[_Given], _Made]) -> Step[_Given, _Made]:
        _refuse_string_annotations(function)
        if issubclass(given := next(iter(function.__annotations__.values())), StepInput):
            _OUTPUTS[given] = _extract_return_annotation_output(function)
        # As `hera.workflows.script` does, but the image is that of the use case being rendered, known only then. Made here and
        # not in a call: inside a workflow a new template would add itself to it.
        template = Script(**{"name": function.__name__.replace("_", "-"), "source": function, **settings, **overrides})

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not _context.active:
                return function(*args, **kwargs)
            if args:
                raise BadInput(
                    f"step {function.__name__!r} is called with a positional argument inside a workflow",
                    hint="Hera drops it and renders a task without arguments: call it with arguments={...}",
                )
            template.image = overrides.get("image") or steps_image()
            template.volumes = overrides.get("volumes") or _volumes(secret)
            return template(**kwargs)

        # Hera's runner looks here for the function behind the decorator; a plain call does not pass through it.
        call.wrapped_function = as_in_a_pod(function)  # type: ignore[attr-defined]
        return cast("Step[_Given, _Made]", call)

    return decorate


def _volumes(secret: SecretFile | None) -> list[EmptyDirVolume | SecretVolume]:
    # The root is read-only: Hera's inputs and outputs, and whatever a library spills, live here.
    scratch = EmptyDirVolume(name="tmp", mount_path="/tmp")  # noqa: S108 - a path in a pod
    return [scratch, secret.volume(project_of(Settings.load().use_case))] if secret else [scratch]


def steps_image() -> str:
    """Return the logical name of the image that the project's steps run in: the use case is in it.

    kustomize's `images:` puts registry and digest there, so rendered YAML is the same everywhere.
    """
    return f"{project_of(Settings.load().use_case)}-steps"


def as_in_a_pod(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step's function as its pod runs it: a `LockstepError` ends the process with its exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LockstepError as error:
            raise _ended(error, _extract_return_annotation_output(function)) from error

    return run


def _ended(error: LockstepError, outputs: Any) -> SystemExit:
    """Say why a step ends, and return what ends its process."""
    # As Hera does for other exceptions: without the declared files Argo reports a missing file, not the error.
    _save_dummy_outputs(outputs)
    said = f"{type(error).__name__}: {error}"
    sys.stderr.write(f"{said}\n")
    _tell_the_node(said)
    end = SystemExit(error.exit_code)
    end.__cause__ = error
    return end


def _tell_the_node(said: str) -> None:
    """Leave the error where Kubernetes looks for it: Argo then shows it as the node's message, and hands it to onExit."""
    if TERMINATION_LOG.exists():
        with suppress(OSError):  # the error is on stderr anyway
            TERMINATION_LOG.write_text(said[:_LONGEST_MESSAGE], encoding="utf-8")


def _refuse_string_annotations(function: Callable[..., Any]) -> None:
    if any(isinstance(annotation, str) for annotation in function.__annotations__.values()):
        raise BadInput(
            f"the annotations of step {function.__name__!r} in {function.__module__} are strings",
            hint="Hera reads them as types: remove `from __future__ import annotations`, and quotes around types",
        )
