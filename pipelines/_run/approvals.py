"""What a suspended node waits for: values that a person gives, at a terminal or beforehand. Nothing is approved by itself.

https://argo-workflows.readthedocs.io/en/latest/intermediate-inputs/
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import BadInput, nearest
from pipelines._manifest.calls import Name, Templates, bodies, inputs_of

NOBODY = 3
"""The exit code of a node that nobody approved: refused."""


@dataclass(frozen=True)
class Question:
    """What a suspended node asks for.

    Attributes:
        node: its name in the run.
        parameter: the output that it waits for.
        values: what it may be; empty for anything.
        description: what the pipeline says about it.
        given: the values of the node's inputs, which tell what is to be decided.
    """

    node: str
    parameter: str
    values: tuple[str, ...]
    description: str
    given: Mapping[str, str]

    @property
    def option(self) -> str:
        """The option that answers it beforehand."""
        return f"--approve {self.node}.{self.parameter}={'|'.join(self.values) or 'VALUE'}"


Ask = Callable[[Question], str]


def questions(template: Mapping[str, Any], node: str, given: Mapping[str, str]) -> Iterator[Question]:
    """Yield what a suspended node asks for: its outputs that are supplied, with the values that the like input allows."""
    inputs = inputs_of(template)
    for output in template.get("outputs", {}).get("parameters", []):
        declared = inputs.get(output["name"], {})
        values = tuple(str(value) for value in declared.get("enum", ()))
        words = str(declared.get("description", output.get("description", "")))
        others = {name: value for name, value in given.items() if name != output["name"]}
        yield Question(node, output["name"], values, words, others)


def answer(question: Question, approvals: Mapping[str, str], *, alone: bool) -> str | None:
    """Return the value that was given beforehand for a node's parameter, or for the node if that asks for nothing else."""
    given = approvals.get(f"{question.node}.{question.parameter}")
    return approvals.get(question.node) if given is None and alone else given


def check_approvals(approvals: Mapping[str, str], templates: Templates, reached: Collection[Name]) -> None:
    """Refuse values that no node can be waiting for, and values that it does not allow.

    Raises:
        BadInput: there is one.
    """
    asked = dict(_asked(templates, reached))
    for key, value in approvals.items():
        steps = re.sub(r"\(\d+\)", "", key).replace("[", ".").replace("]", "").split(".")
        found = asked.get(".".join(steps[-2:])) or asked.get(steps[-1])
        if found is None:
            valid = [f"{name}" for name in asked]
            hint = nearest(steps[-1], valid) if valid else "no node of it waits for an approval"
            raise BadInput(f"--approve {key}: nothing of that name waits for an approval", hint=hint)
        if found.values and value not in found.values:
            raise BadInput(f"--approve {key} cannot be {value!r}", hint=nearest(value, found.values))


def _asked(templates: Templates, reached: Collection[Name]) -> Iterator[tuple[str, Question]]:
    """Yield the questions of all tasks that suspend, by `task.parameter`, and by `task` where there is one alone."""
    for name in sorted(reached):
        for _, call in bodies(templates[name]):
            called = templates.callee(name[0], call)
            callee = templates[called] if called is not None else {}
            asked = list(questions(callee, call["name"], {})) if "suspend" in callee else []
            for question in asked:
                yield f"{call['name']}.{question.parameter}", question
            if len(asked) == 1:
                yield call["name"], asked[0]
