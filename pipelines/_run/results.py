"""How the parts of a run ended, and how their phases, exit codes and outputs add up.

https://argo-workflows.readthedocs.io/en/latest/walk-through/dag/ · https://argo-workflows.readthedocs.io/en/latest/walk-through/loops/
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines._manifest.expressions import Operand, aggregate

SUCCEEDED, FAILED, ERROR, SKIPPED, OMITTED = "Succeeded", "Failed", "Error", "Skipped", "Omitted"
BAD = (FAILED, ERROR)
NOT_RUN = (SKIPPED, OMITTED)
POD, ATTEMPT, SUSPENSION, GROUP = "pod", "attempt", "suspend", "group"


@dataclass(frozen=True)
class Node:
    """One node of a run, as it ended.

    Attributes:
        name: the path of tasks to it, items of a fan-out, attempts and groups of steps numbered: `view(0).plan`,
            `view(0).plan(1)`, `release[2].promote`.
        template: what it ran; `document/template` by a reference.
        phase: Succeeded, Failed (its exit code was not 0), Error (it could not be run), Skipped (`when`, or nothing to
            fan out over) or Omitted (`depends`).
        exit_code: of a script; of a DAG, of steps or a fan-out the worst of its parts; None where nothing ran, or where
            nobody knows because the process died.
        outputs: output parameters by name.
        message: why it is not Succeeded.
        log: stdout and stderr of a script.
        seconds: how long it took.
        kind: `pod`, a script; `attempt`, one of several of a script, which ends as the last of them does; `suspend`; `group`,
            a DAG, steps or a fan-out.
    """

    name: str
    template: str
    phase: str
    exit_code: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    message: str = ""
    log: Path | None = None
    seconds: float = 0.0
    kind: str = GROUP


@dataclass(frozen=True)
class Run:
    """A whole run.

    Attributes:
        name: the name of its folder of logs.
        succeeded: whether Argo would call the workflow Succeeded.
        exit_code: 0 if so; else 3 if a gate refused, else 2 if a failure is terminal, else 1.
        nodes: all nodes in the order they ended; a DAG, steps and a fan-out come after their parts.
        outputs: the entrypoint's output parameters.
        failed: the first script that failed for good, or the first node that could not be run.
    """

    name: str
    succeeded: bool
    exit_code: int
    nodes: list[Node]
    outputs: dict[str, str]
    failed: Node | None


@dataclass(frozen=True)
class Outcome:
    """What the rest of a template sees of one of its tasks."""

    phase: str
    exit_code: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    items: "tuple[Outcome, ...] | None" = None


def broken(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that failed themselves: scripts for good, refused approvals, and what could not be run."""
    return [n for n in nodes if n.kind != ATTEMPT and (n.phase == ERROR or (n.phase == FAILED and n.kind != GROUP))]


def worst(codes: Iterable[int | None]) -> int:
    """Return the exit code that says most: refused, then terminal, then anything else."""
    failed = {code for code in codes if code}
    return next((code for code in (3, 2) if code in failed), 1 if failed else 0)


def dag_phase(parents: Mapping[str, list[str]], done: Mapping[str, Outcome]) -> str:
    """Return a DAG's phase as Argo assesses it: by its last tasks; one that did not run has its parents' phase.

    So a failure whose every successor ran and succeeded (`depends: x.Failed`) leaves the DAG Succeeded.

    Args:
        parents: the tasks that each waits for.
        done: how all ended, those that a task waits for before it.
    """
    phases: dict[str, str] = {}
    for name, ended in done.items():
        inherited = [phases[parent] for parent in parents[name]]
        bad = next((phase for phase in inherited if phase in BAD), SUCCEEDED)
        phases[name] = bad if ended.phase in NOT_RUN else ended.phase
    last = set(done) - {parent for names in parents.values() for parent in names}
    return next((phases[name] for name in sorted(last) if phases[name] in BAD), SUCCEEDED)


def holds(operand: Operand, ended: Outcome) -> bool:
    """Tell whether one term of `depends` is true of a task that ended."""
    phases = [item.phase for item in ended.items or ()]
    if operand.result == "AnySucceeded":
        return SUCCEEDED in phases
    if operand.result == "AllFailed":
        return bool(phases) and set(phases) == {FAILED}
    return ended.phase == (ERROR if operand.result == "Errored" else operand.result)


def fan_out(items: tuple[Outcome, ...]) -> Outcome:
    """Return what a fan-out came to: as in Argo the last failure's phase, and what succeeded gathered."""
    bad = [item.phase for item in items if item.phase in BAD]
    exit_code = worst(item.exit_code for item in items) or int(bool(bad))
    return Outcome(bad[-1] if bad else SUCCEEDED, exit_code, _gathered(items), items)


def _gathered(items: tuple[Outcome, ...]) -> dict[str, str]:
    """Return each output of a fan-out's items as one list; items that did not succeed are left out, as Argo does."""
    ran = [item for item in items if item.phase == SUCCEEDED]
    names = dict.fromkeys(name for item in ran for name in item.outputs)
    return {name: aggregate([item.outputs[name] for item in ran if name in item.outputs]) for name in names}
