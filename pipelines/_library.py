"""Which template a task calls: one of its own document, or by `templateRef` one of another WorkflowTemplate.

A template that is called by `templateRef` names templates of its own document in turn, while `workflow.…` stays the
caller's. https://argo-workflows.readthedocs.io/en/latest/workflow-templates/#referencing-other-workflowtemplates
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import nearest

Library = Mapping[str, Mapping[str, Any]]
"""WorkflowTemplates by their name."""


@dataclass(frozen=True)
class Called:
    """A template, and the name of the document whose templates it names."""

    document: str
    template: Mapping[str, Any]


class UnknownTemplateError(Exception):
    """A task calls what is not there.

    Attributes:
        what: what is wrong.
        hint: the nearest names.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class Templates:
    """The templates of one document and of those that it may refer to.

    Args:
        manifest: the document.
        library: other WorkflowTemplates.
    """

    def __init__(self, manifest: Mapping[str, Any], library: Library) -> None:
        self.name: str = manifest.get("metadata", {}).get("name", "")
        self._documents = {**library, self.name: manifest}
        self._templates = {
            name: {template["name"]: template for template in document.get("spec", {}).get("templates", [])}
            for name, document in self._documents.items()
        }

    def own(self, template: str) -> Called:
        """Return a template of the document itself."""
        return Called(self.name, self._templates[self.name][template])

    def called(self, call: Mapping[str, Any], document: str) -> Called:
        """Return the template that a task or step of a document calls.

        Raises:
            UnknownTemplateError: there is none of that name.
        """
        if "templateRef" not in call:
            return Called(document, self._named(call.get("template"), document, "which is no template"))
        reference = call["templateRef"]
        if "template" in call:
            raise UnknownTemplateError(f"calls {call['template']!r} and has a templateRef", "keep one of them")
        referred = str(reference.get("name"))
        if referred not in self._templates:
            hint = nearest(referred, [name for name in self._templates if name != self.name])
            raise UnknownTemplateError(f"refers to {referred!r}, which is no WorkflowTemplate here", hint)
        name = reference.get("template")
        return Called(referred, self._named(name, referred, f"which is no template of {referred!r}"))

    def _named(self, name: object, document: str, otherwise: str) -> Mapping[str, Any]:
        found = self._templates[document].get(str(name))
        if found is None:
            raise UnknownTemplateError(f"calls {name!r}, {otherwise}", nearest(str(name), self._templates[document]))
        return found

    def borrowed(self) -> Iterator[Called]:
        """Yield the templates of other documents that a run can come to."""
        queue = [Called(self.name, template) for template in self._templates[self.name].values()]
        seen: set[tuple[str, str]] = set()
        while queue:
            called = queue.pop()
            key = called.document, called.template["name"]
            if key in seen:
                continue
            seen.add(key)
            if called.document != self.name:
                yield called
            queue += [self.called(call, called.document) for call in calls_of(called.template)]

    def reachable(self) -> dict[str, Mapping[str, Any]]:
        """Return the documents that a run can come to, the own one first."""
        found: dict[str, Mapping[str, Any]] = {}
        queue = [self.name]
        while queue:
            if (name := queue.pop(0)) not in found:
                found[name] = self._documents[name]
                queue += [name for name in references(found[name]) if name in self._documents]
        return found


def references(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of the WorkflowTemplates that a document refers to."""
    named = {
        str(call["templateRef"].get("name")): None
        for template in manifest.get("spec", {}).get("templates", [])
        for call in calls_of(template)
        if "templateRef" in call
    }
    return list(named)


def calls_of(template: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks of a DAG, or the steps of all groups, in the order they are written in."""
    yield from template.get("dag", {}).get("tasks", [])
    for group in template.get("steps", []):
        yield from group


def call_name(call: Mapping[str, Any]) -> str:
    """Return how a node calls the template of a task: `name`, or `document/name` for a reference."""
    reference = call.get("templateRef")
    return f"{reference['name']}/{reference['template']}" if reference else str(call.get("template"))
