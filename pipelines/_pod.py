"""Run one script template in this process, as the pod would: Hera's runner, its own outputs folder and log.

One warm process instead of a pod each: importing Hera and Feast costs a second or more every time.
https://hera.readthedocs.io/en/stable/user-guides/script-runner-io/
"""

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
from pipelines._expressions import Scope, substitute
from pipelines._subset import OUTPUTS


@dataclass(frozen=True)
class PodResult:
    """How a pod ended; an output that was not written is missing."""

    exit_code: int
    outputs: dict[str, str]
    message: str


def run_script(
    template: Mapping[str, Any], inputs: Mapping[str, str], scope: Scope, *, folder: Path, log: Path
) -> PodResult:
    """Run a template's function on its input parameters.

    Args:
        template: with a `script` that calls Hera's runner.
        inputs: every input parameter's value.
        scope: what tags in the script's environment stand for.
        folder: empty; outputs are written here.
        log: takes stdout and stderr.

    Raises:
        Ended: this process was asked to end while the function ran, whatever that made of it.
    """
    script = template["script"]
    environment = {e["name"]: substitute(str(e["value"]), scope) for e in script.get("env", []) if "value" in e}
    environment["hera__outputs_directory"] = str(folder)
    given = [{"name": name, "value": value} for name, value in inputs.items()]
    with _environment(environment), _captured(log):
        exit_code, message = _run(script["args"][-1], given)
        # DuckDB, for one, makes a failed query of what a signal's handler raises: the next step would run.
        raise_if_ending()
    return PodResult(exit_code, _outputs(template, folder), message)


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


def _outputs(template: Mapping[str, Any], folder: Path) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for parameter in template.get("outputs", {}).get("parameters", []):
        source = parameter["valueFrom"]
        path = folder / "parameters" / source["path"].removeprefix(OUTPUTS)
        if path.exists():
            # Argo cuts one line break off, too
            outputs[parameter["name"]] = path.read_bytes().decode().removesuffix("\n")
        elif "default" in source:
            outputs[parameter["name"]] = str(source["default"])
    return outputs


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
