"""Follow every reference of one WorkflowTemplate: templates, also of other documents, arguments, tags, `depends`, outputs.

This is what `argo lint` would say, and what it does not: a bare name in `depends`, a read without a wait, a tag that has a
value only now and then, an exit handler that Argo's validation refuses when it is submitted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.locks import lock_problems
from pipelines._checks.names import argument_problems, call_name_problems, name_problems, value_problems
from pipelines._checks.problem import Problem, located, texts
from pipelines._checks.tags import TagLinter, clock_problems, globals_of, simple_tags, tags_of_workflow
from pipelines._manifest.calls import Templates, call_problems, calls_of, inputs_of, is_optional


def lint(manifest: Mapping[str, Any], library: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Problem]:
    """Yield what is wrong with the references of a WorkflowTemplate.

    Args:
        manifest: the document.
        library: the WorkflowTemplates that a `templateRef` may name, by name.
    """
    yield from located(manifest, _problems(manifest, library or {}))


def _problems(manifest: Mapping[str, Any], library: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    spec = manifest["spec"]
    templates = Templates(manifest, library)
    own = templates.documents[templates.own]
    yield from name_problems(spec)
    yield from value_problems(spec)
    yield from lock_problems(spec, templates)
    yield from _roles(spec, templates)
    declared = {parameter["name"]: parameter for parameter in spec.get("arguments", {}).get("parameters", [])}
    for name, parameter in inputs_of(own.get(spec.get("entrypoint"), {})).items():
        if name not in declared and not is_optional(parameter):
            path = _template_path(spec, spec["entrypoint"])
            hint = "declare it among the WorkflowTemplate's arguments"
            yield Problem(path, f"input {name!r} of the entrypoint template is given by nobody", hint)
    yield from tags_of_workflow(spec, set(declared))
    yield from clock_problems(spec)
    main = _reached(templates, spec.get("entrypoint"))
    at_exit = _reached(templates, spec.get("onExit")) - main
    for index, template in enumerate(spec.get("templates", [])):
        at = ("spec", "templates", index)
        calls = calls_of(template, at, templates)
        yield from call_name_problems(calls)
        yield from call_problems(calls, templates)
        yield from argument_problems(calls, templates)
        ended = (templates.own, str(template["name"])) in at_exit
        yield from TagLinter(template, at, calls, templates, set(declared), at_exit=ended).problems()
        for call in calls:
            if "templateRef" in call.body and call.callee is not None:
                yield from _globals_of_callee(call.path, templates, call.callee, set(declared))
        if "suspend" in template:
            yield from _suspend(template, at)


def _roles(spec: Mapping[str, Any], templates: Templates) -> Iterator[Problem]:
    """The two templates that Argo itself calls."""
    own = templates.documents[templates.own]
    for role in ("entrypoint", "onExit"):
        if (role == "entrypoint" or role in spec) and spec.get(role) not in own:
            hint = nearest(str(spec.get(role)), own)
            yield Problem(("spec", role), f"{role} {spec.get(role)!r} is no template", hint)
    on_exit = str(spec.get("onExit"))
    for name in inputs_of(own.get(on_exit, {})):
        yield Problem(
            (*_template_path(spec, on_exit), "inputs"),
            f"the onExit template takes the input {name!r}, and Argo hands it only what was given at submission, no defaults",
            f"make it a DAG without inputs that passes {{{{workflow.parameters.{name}}}}} on to its task",
        )


def _template_path(spec: Mapping[str, Any], name: str) -> tuple[str | int, ...]:
    return ("spec", "templates", next(i for i, t in enumerate(spec["templates"]) if t["name"] == name))


def _reached(templates: Templates, role: str | None) -> set[tuple[str, str]]:
    entry = templates.callee(templates.own, {"template": role})
    return templates.reached_from(entry) if entry is not None else set()


def _globals_of_callee(
    path: tuple[str | int, ...], templates: Templates, callee: tuple[str, str], declared: set[str]
) -> Iterator[Problem]:
    """A template that is called by reference sees the arguments of the workflow that calls it, not those of its own document."""
    for document, name in sorted(templates.reached_from(callee)):
        if document == templates.own:
            continue
        for _, text in texts(templates[document, name]):
            for tag in (t for t in simple_tags(text) if t.startswith("workflow.parameters")):
                if tag not in globals_of(declared):
                    parameter = tag.removeprefix("workflow.parameters.")
                    what = f"reaches {document}/{name}, which reads {{{{{tag}}}}}: that is an argument of the caller's"
                    which = "an argument" if parameter == tag else f"the argument {parameter!r}"
                    hint = f"declare {which} here, or make it an input of {document}/{name}"
                    yield Problem(path, what, hint)


def _suspend(template: Mapping[str, Any], at: tuple[str | int, ...]) -> Iterator[Problem]:
    """An approval: Argo's page asks for the inputs of a suspended template, and hands its outputs on."""
    inputs = inputs_of(template)
    supplied = template.get("outputs", {}).get("parameters", [])
    for index, output in enumerate(supplied):
        path = (*at, "outputs", "parameters", index)
        if "supplied" not in output.get("valueFrom", {}):
            yield Problem(path, "nobody gives this output a value", "write valueFrom: {supplied: {}}")
        if output["name"] not in inputs:
            hint = "declare an input of the same name, with an enum: it is what the page of the suspended run asks for"
            yield Problem(path, f"nobody is asked for {output['name']!r}", hint)
    if supplied and template["suspend"].get("duration"):
        hint = "remove suspend.duration: an answer that nobody gave is an error then, not a wait"
        yield Problem((*at, "suspend", "duration"), "the approval resumes by itself, without an answer", hint)
