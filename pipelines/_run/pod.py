"""What the pod of one script runs, and running it in this process: Hera's runner, its own outputs folder and log.

A warm process instead of a pod each: importing Hera and Feast costs a second or more every time.
https://hera.readthedocs.io/en/stable/user-guides/script-runner-io/
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hera.shared.serialization import serialize
from hera.workflows._runner.util import _runner
from hera.workflows.io import Output

from lockstep.local.signals import raise_if_ending
from pipelines._manifest.expressions import Scope, substitute
from pipelines._manifest.subset import OUTPUTS

_OUTPUTS_DIRECTORY = "hera__outputs_directory"


@dataclass(frozen=True)
class Pod:
    """What one pod runs.

    Attributes:
        command: the program and its arguments, as the template has them.
        source: the text of the file that the command is given.
        environment: what it adds to the environment.
        outputs: the output parameters as the template declares them.
        folder: empty; the values of outputs are written below it.
        log: takes stdout and stderr.
    """

    command: list[str]
    source: str
    environment: dict[str, str]
    outputs: list[dict[str, Any]]
    folder: Path
    log: Path


@dataclass(frozen=True)
class PodResult:
    """How a pod ended; an output that was not written is missing, and so is the exit code of a process that died."""

    exit_code: int | None
    outputs: dict[str, str]
    message: str


def make_pod(template: Mapping[str, Any], inputs: Mapping[str, str], scope: Scope, *, folder: Path, log: Path) -> Pod:
    """Return what a template's pod would run.

    Args:
        template: with a `script` that calls Hera's runner.
        inputs: every input parameter's value.
        scope: what tags in the script's environment stand for.
        folder: for its outputs; made here.
        log: takes stdout and stderr.

    Raises:
        ExpressionError: a tag in its environment has no value.
    """
    script = template["script"]
    environment = {e["name"]: substitute(str(e["value"]), scope) for e in script.get("env", []) if "value" in e}
    # A file of a Secret is the cluster's: here the setting that names it is this machine's own.
    secrets = _secret_folders(template)
    environment = {name: value for name, value in environment.items() if not value.startswith(secrets)}
    environment[_OUTPUTS_DIRECTORY] = str(folder)
    folder.mkdir()
    return Pod(
        command=[*script["command"], *script["args"]],
        # `{{inputs.parameters}}`, the only source that the subset knows
        source=json.dumps([{"name": name, "value": value} for name, value in inputs.items()]),
        environment=environment,
        outputs=template.get("outputs", {}).get("parameters", []),
        folder=folder,
        log=log,
    )


def _secret_folders(template: Mapping[str, Any]) -> tuple[str, ...]:
    secrets = {volume["name"] for volume in template.get("volumes", []) if "secret" in volume}
    mounts = template["script"].get("volumeMounts", [])
    return tuple(f"{mount['mountPath']}/" for mount in mounts if mount["name"] in secrets)


def run_script(pod: Pod) -> PodResult:
    """Run a pod's function in this process.

    Raises:
        Ended: this process was asked to end while the function ran, whatever that made of it.
    """
    with _environment(pod.environment), _captured(pod.log):
        exit_code, message = _run(pod.command[-1], json.loads(pod.source))
        # DuckDB, for one, makes a failed query of what a signal's handler raises: the next step would run.
        raise_if_ending()
    return PodResult(exit_code, written(pod), message)


def written(pod: Pod) -> dict[str, str]:
    """Return the values of the output parameters that a pod has written, or that have a default."""
    outputs: dict[str, str] = {}
    for parameter in pod.outputs:
        source = parameter["valueFrom"]
        path = pod.folder / "parameters" / source["path"].removeprefix(OUTPUTS)
        if path.exists():
            # Argo cuts one line break off, too
            outputs[parameter["name"]] = path.read_bytes().decode().removesuffix("\n")
        elif "default" in source:
            outputs[parameter["name"]] = str(source["default"])
    return outputs


def _run(entrypoint: str, given: list[dict[str, str]]) -> tuple[int, str]:
    """Do what `python -m hera.workflows.runner` does, which then ends the process."""
    try:
        result = _runner(entrypoint, given)
        exit_code = result.exit_code if isinstance(result, Output) else 0
        if result:
            sys.stdout.write(f"{serialize(result.result if isinstance(result, Output) else result)}\n")
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return exit_code, str(end.__cause__) if exit_code and end.__cause__ else _ended(exit_code)
    except Exception as failure:  # noqa: BLE001 - the pod's edge: whatever a step raises is exit code 1 and a traceback
        traceback.print_exc()
        return 1, f"{type(failure).__name__}: {failure}"
    return exit_code, _ended(exit_code)


def _ended(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code else ""


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Add variables, and take back afterwards whatever the step made of the environment: the next pod starts afresh."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@contextmanager
def _captured(log: Path) -> Iterator[None]:
    """Send this process's output to a file: Python's streams, and the descriptors that C libraries and children write to."""
    with ExitStack() as stack:
        stream = stack.enter_context(log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1))
        for original in (sys.__stdout__, sys.__stderr__):
            if original is not None:
                with suppress(ValueError):  # already closed
                    original.flush()
        for descriptor in (1, 2):
            stack.enter_context(_descriptor(descriptor, stream.fileno()))
        stack.enter_context(redirect_stdout(stream))
        stack.enter_context(redirect_stderr(stream))
        yield


@contextmanager
def _descriptor(descriptor: int, target: int) -> Iterator[None]:
    try:
        saved = os.dup(descriptor)
    except OSError:  # closed, as in a daemon: nothing to keep off the terminal
        yield
        return
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
