"""Which `{{tags}}` have a value where in a WorkflowTemplate, and which have one only now and then."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.problem import Place, Problem, texts
from pipelines._manifest.calls import Call, Templates, inputs_of
from pipelines._manifest.expressions import ExpressionError, item_scope, items_of, tags

GLOBALS = ("workflow.name", "workflow.namespace", "workflow.uid")

AT_EXIT = ("workflow.status", "workflow.failures")
"""Set when the workflow has ended."""

_POD = ("pod.name", "node.name", "retries")
_METRIC = ("status", "duration", "exitCode", "resourcesDuration.cpu", "resourcesDuration.memory")
_WORKFLOW_METRIC = ("workflow.status", "workflow.duration", "workflow.failures")
_PROSE = ("description", "message")
_WINDOW = "declare an argument for the time and let the CronWorkflow pass `{{workflow.scheduledTime}}` as its value"
_NOW = re.compile(r"\bnow\s*\(\s*\)")
_VERDICTS = {"accepted", "allowed", "approved", "ok", "passed", "passes", "valid", "verdict"}
_TERM = re.compile(r"^(?P<kind>tasks|steps)\.(?P<call>[^.]+)\.outputs\.parameters\.(?P<output>.+)$")


def globals_of(declared: set[str]) -> set[str]:
    """Return the tags that have a value everywhere, given the workflow's arguments: without any Argo knows no list of them."""
    every = ["workflow.parameters"] if declared else []
    return {*GLOBALS, *every, *(f"workflow.parameters.{name}" for name in declared)}


def tags_of_workflow(spec: Mapping[str, Any], declared: set[str]) -> Iterator[Problem]:
    """Yield the tags outside of templates (labels, locks, metrics) that have no value there."""
    known = globals_of(declared)
    for path, text in texts({key: value for key, value in spec.items() if key != "templates"}, ("spec",)):
        here = known | set(_WORKFLOW_METRIC) if "metrics" in path else known
        for tag in simple_tags(text) if path[-1] not in _PROSE else ():
            if tag not in here:
                yield _unresolved(path, tag, here)


def clock_problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the expressions that read the clock: run again, they would mean another window."""
    for path, text in texts(spec, ("spec",)):
        if (path[-1] in ("when", "expression") or "{{=" in text) and _NOW.search(text):
            yield Problem(
                path, "reads the clock with now(): a run that is repeated would mean another window", _WINDOW
            )


def simple_tags(text: str) -> list[str]:
    """Return the tags of a text but for expression tags, which the subset refuses."""
    return [tag for tag in tags(text) if not tag.startswith("=")]


class TagLinter:
    """The tags of one template."""

    def __init__(
        self,
        template: Mapping[str, Any],
        at: Place,
        calls: list[Call],
        templates: Templates,
        declared: set[str],
        *,
        at_exit: bool,
    ) -> None:
        self.template, self.at, self.templates = template, at, templates
        self.calls = {call.name: call for call in calls}
        self.by_path = {call.path: call for call in calls}
        self.prefix = "steps." if "steps" in template else "tasks."
        self.known = {*globals_of(declared), "inputs.parameters", *(AT_EXIT if at_exit else ())}
        self.known |= {f"inputs.parameters.{name}" for name in inputs_of(template)}

    def problems(self) -> Iterator[Problem]:
        """Yield what does not resolve where it stands, and verdicts that only skip."""
        for path, text in texts(self.template, self.at):
            if path[-1] not in _PROSE:
                for tag in simple_tags(text):
                    yield from self._tag(path, tag)
        for call in self.calls.values():
            yield from self._verdict(call)

    def _tag(self, path: Place, tag: str) -> Iterator[Problem]:
        below = path[len(self.at) :]
        call = self.by_path.get(path[: len(self.at) + 3])
        known = self.known
        if call is not None:
            fans_out = bool({"withParam", "withItems", "withSequence"} & set(call.body))
            if fans_out and below[3] != "withParam" and (tag == "item" or tag.startswith("item.")):
                yield from self._item(path, tag, str(call.body.get("withParam", "{{withItems}}")))
                return
        elif below[0] == "metrics":
            outputs = self.template.get("outputs", {}).get("parameters", [])
            known = known.union(_METRIC, (f"outputs.parameters.{output['name']}" for output in outputs))
        elif below[0] != "outputs":
            known = known.union(_POD)
        if tag in known:
            return
        if not tag.startswith(self.prefix) or not (call or below[0] == "outputs"):
            yield _unresolved(path, tag, known)
            return
        name, _, rest = tag.removeprefix(self.prefix).partition(".")
        if name not in self.calls:
            yield Problem(path, f"{{{{{tag}}}}}: {name!r} is no task", nearest(name, self.calls))
        elif call is not None and name not in call.before:
            hint = (
                f"add {name}.Succeeded to depends" if self.prefix == "tasks." else f"put it into a group after {name}"
            )
            yield Problem(path, f"reads {{{{{tag}}}}} and does not wait for {name!r}", hint)
        elif rest not in ("status", "exitCode"):
            yield from self._output(path, tag, self.calls[name], rest)

    def _item(self, path: Place, tag: str, given: str) -> Iterator[Problem]:
        """A field of an item, where the items are written out; what a step hands on is known when it runs."""
        try:
            scopes = [] if tags(given) else [item_scope(item) for item in items_of(given)]
        except ExpressionError:
            return  # reported with the call
        for scope in (scope for scope in scopes if tag not in scope):
            yield _unresolved(path, tag, set(scope))
            return

    def _output(self, path: Place, tag: str, call: Call, rest: str) -> Iterator[Problem]:
        if call.callee is None:
            return  # reported with the call
        callee = self.templates[call.callee]
        outputs = {o["name"] for o in callee.get("outputs", {}).get("parameters", [])}
        if rest.removeprefix("outputs.parameters.") not in outputs:
            valid = [f"{self.prefix}{call.name}.outputs.parameters.{name}" for name in outputs]
            yield Problem(path, f"{{{{{tag}}}}}: {callee.get('name')!r} has no such output", nearest(tag, valid))

    def _verdict(self, call: Call) -> Iterator[Problem]:
        """A gate that only says no in an output: what follows is skipped, and the workflow ends Succeeded.

        Told by the output's name, and not if somebody waits for the skip.
        """
        heeded = any(
            f"{call.name}.{result}" in str(other.body.get("depends", ""))
            for other in self.calls.values()
            for result in ("Skipped", "Omitted")
        )
        for tag in simple_tags(str(call.body.get("when", ""))):
            term = _TERM.match(tag)
            if term and not heeded and _VERDICTS & set(re.split(r"[^a-z]+", term["output"].lower())):
                yield Problem(
                    (*call.path, "when"),
                    f"{call.name!r} is skipped when {term['call']!r} says no in {term['output']!r}, and the workflow still ends"
                    " Succeeded",
                    f"make {term['call']!r} exit with 3 (raise Refused) and depend on {term['call']}.Succeeded",
                )


def _unresolved(path: Place, tag: str, known: set[str]) -> Problem:
    name = f"{{{{{tag}}}}}"
    if tag in AT_EXIT:
        what = f"{name} has a value only when the workflow has ended"
        return Problem(path, what, "read it in what onExit reaches, and only there")
    if tag == "workflow.scheduledTime":
        return Problem(path, f"{name} stays as it is written when somebody submits this by hand", _WINDOW)
    if tag.startswith("workflow.creationTimestamp"):
        return Problem(path, f"{name} is another time whenever the workflow is submitted again", _WINDOW)
    if tag == "workflow.parameters":
        hint = "leave it out, or declare an argument: Argo sets it only where there are some"
        return Problem(path, f"{name} resolves to nothing", hint)
    return Problem(path, f"{name} resolves to nothing", nearest(tag, known))
