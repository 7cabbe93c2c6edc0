"""When a CronWorkflow runs, and what it may hold: a schedule, a reference and arguments; all behaviour is the template's.

https://argo-workflows.readthedocs.io/en/latest/cron-workflows/ ·
https://argo-workflows.readthedocs.io/en/latest/workflow-restrictions/
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from lockstep.errors import BadInput, nearest
from pipelines._checks.names import not_in_enum
from pipelines._checks.problem import Problem, located
from pipelines._manifest.expressions import tags
from pipelines._manifest.parameters import TIMES
from pipelines._template import SCHEDULED_TIME

_FIELDS = "five fields: minute, hour, day of month, month, day of week"
_DESCRIPTORS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip


def five_fields(schedule: str) -> str:
    """Return a schedule as five cron fields, if Argo (robfig/cron) and cronsim understand it in the same way.

    In UTC, that is: around a change of daylight saving they differ.

    Raises:
        BadInput: it is no cron schedule, or one that they read differently.
    """
    text = schedule.strip()
    if text.startswith("@") or "TZ=" in text.upper():
        return _descriptor(schedule, text)
    if len(fields := text.split()) != 5:
        raise BadInput(f"schedule {schedule!r} is not cron: it has {len(fields)} fields", hint=f"Argo reads {_FIELDS}")
    if odd := "".join(re.findall(r"[^0-9A-Za-z*/, -]", text)):
        raise BadInput(f"schedule {schedule!r} is not cron: {odd!r}", hint="numbers, names, and * / , -")
    _refuse_days_read_differently(schedule, fields[2].upper(), fields[4].upper())
    try:
        next(CronSim(text, datetime(2025, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as unreadable:
        reason = str(unreadable).lower() or "it never comes"
        raise BadInput(f"schedule {schedule!r} is not cron: {reason}", hint=f"Argo reads {_FIELDS}") from None
    return text


def _descriptor(schedule: str, text: str) -> str:
    if "TZ=" in text.upper():
        raise BadInput(f"schedule {schedule!r} names a time zone, which Argo's CRD refuses", hint="set timezone")
    if text.startswith("@every"):
        hint = "say at which minute: `5 * * * *` is every hour, at five past"
        raise BadInput(f"schedule {schedule!r} counts from when the controller started, not by the clock", hint=hint)
    if text.lower() not in _DESCRIPTORS:
        raise BadInput(f"schedule {schedule!r} is not cron", hint=nearest(text, _DESCRIPTORS))
    return _DESCRIPTORS[text.lower()]


def _refuse_days_read_differently(schedule: str, day: str, weekday: str) -> None:
    if day in ("L", "LW") or re.search(r"\dL|(^|[,-])7", weekday):
        hint = "write 0 for Sunday; there is no L for a last day"
        raise BadInput(f"schedule {schedule!r} is not cron as Argo reads it", hint=hint)
    for each, other in ((day, weekday), (weekday, day)):
        if each.startswith("*") and each != "*" and other != "*":
            hint = "leave one of them at *: Argo runs when either matches, other crons when both do"
            raise BadInput(f"schedule {schedule!r} restricts the day of month and the day of week", hint=hint)


def schedule_problems(document: Mapping[str, Any], templates: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with a CronWorkflow, given the WorkflowTemplates by name."""
    yield from located(document, _problems(document["spec"], templates))


def _problems(spec: Mapping[str, Any], templates: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _when(spec)
    workflow = spec.get("workflowSpec", {})
    for key in sorted(set(workflow) - {"arguments", "workflowTemplateRef"}):
        hint = "a schedule only passes arguments: under templateReferencing Strict the rest is refused, or ignored"
        yield Problem(("spec", "workflowSpec", key), f"{key} belongs on the WorkflowTemplate", hint)
    yield from _concurrency(spec)
    yield from _arguments(workflow, templates)


def _when(spec: Mapping[str, Any]) -> Iterator[Problem]:
    if "schedule" in spec:
        yield Problem(("spec", "schedule"), "`schedule` is gone in Argo 4", "write schedules: [...]")
    if not spec.get("schedules"):
        yield Problem(("spec", "schedules"), "there is no schedule", "write schedules: [...]")
    for index, schedule in enumerate(spec.get("schedules") or []):
        try:
            five_fields(str(schedule))
        except BadInput as wrong:
            yield Problem(("spec", "schedules", index), str(wrong.args[0]), wrong.hint)
    zone = spec.get("timezone")
    if not zone:
        what = "timezone is not set, and Argo takes the controller's local time"
        yield Problem(("spec", "timezone"), what, "write Etc/UTC")
    elif not _is_zone(zone):
        yield Problem(
            ("spec", "timezone"), f"there is no time zone {zone!r}", "write Etc/UTC, or a name like Europe/Berlin"
        )
    if "suspend" in spec:
        what = "suspend is set: Flux would undo what somebody suspends or resumes by hand"
        yield Problem(("spec", "suspend"), what, "leave it out")
    if not spec.get("startingDeadlineSeconds"):
        what = "startingDeadlineSeconds is not set: a tick that falls into an outage of the controller never runs"
        yield Problem(("spec", "startingDeadlineSeconds"), what, "set it to about the schedule's interval")


def _concurrency(spec: Mapping[str, Any]) -> Iterator[Problem]:
    policy = spec.get("concurrencyPolicy", "Allow")
    given = spec.get("workflowSpec", {}).get("arguments", {}).get("parameters", [])
    path = ("spec", "concurrencyPolicy")
    if policy not in ("Allow", "Forbid", "Replace"):
        yield Problem(path, f"there is no concurrencyPolicy {policy!r}", nearest(policy, ("Allow", "Forbid")))
    elif policy == "Replace":
        yield Problem(
            path, "Replace kills the run before: one that takes longer than an interval never ends", "write Allow"
        )
    elif policy == "Forbid" and any(SCHEDULED_TIME in str(p.get("value", "")) for p in given):
        what = "Forbid drops a tick while a run is on, and with it the tick's window"
        yield Problem(path, what, "write Allow, and a mutex on the template: it queues them")


def _arguments(workflow: Mapping[str, Any], templates: Mapping[str, Any]) -> Iterator[Problem]:
    target = workflow.get("workflowTemplateRef", {}).get("name", "")
    reference = ("spec", "workflowSpec", "workflowTemplateRef")
    if target not in templates:
        yield Problem(reference, f"WorkflowTemplate {target!r} is not rendered", nearest(target, templates))
        return
    parameters = workflow.get("arguments", {}).get("parameters", [])
    given = {p["name"]: p for p in parameters}
    declared = {p["name"]: p for p in templates[target]["spec"].get("arguments", {}).get("parameters", [])}
    at = ("spec", "workflowSpec", "arguments")
    for index, parameter in enumerate(parameters):
        name, value = parameter["name"], str(parameter.get("value", ""))
        path = (*at, "parameters", index)
        if name not in declared:
            yield Problem(path, f"{target} has no parameter {name!r}", nearest(name, declared))
        elif name in TIMES and value != SCHEDULED_TIME:
            what = f"{name} is {value!r}: every tick would mean that, and not its own time"
            yield Problem((*path, "value"), what, f"write {SCHEDULED_TIME}")
        elif value != SCHEDULED_TIME and (found := tags(value)):
            what = f"{{{{{found[0]}}}}} is not the tick's time: a missed or repeated tick would mean another window"
            yield Problem((*path, "value"), what, f"the only tag that a schedule passes on is {SCHEDULED_TIME}")
        else:
            yield from not_in_enum(declared[name], parameter.get("value"), (*path, "value"))
        if name in [other["name"] for other in parameters[:index]]:
            yield Problem(path, f"argument {name!r} is given twice", "remove one")
    for name in [n for n, p in declared.items() if n not in given and "value" not in p]:
        yield Problem(at, f"parameter {name!r} of {target} is not given", "give it a value")


def _is_zone(name: object) -> bool:
    try:
        ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
