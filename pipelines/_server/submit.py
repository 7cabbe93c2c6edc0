"""`lockstep submit`: run a committed workflow in a cluster, from the WorkflowTemplate that is applied there.

The workflow's name is chosen here, not by the server, and nobody else knows it. So a request that is not answered is sent again
as it was: Kubernetes makes one object of a name, however often it is asked for, and a workflow of that name is this one. Only
where every request was refused is it said that nothing was submitted; else that it is not known, and which name to look for.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import click
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from lockstep.errors import BadInput, Terminal
from lockstep.settings import Settings
from pipelines._manifest.committed import load_template
from pipelines._manifest.parameters import arguments, parse_pairs
from pipelines._project import manifests_root
from pipelines._server.argo import Argo, Conflict, Invalid, NoAnswer, NotReached, NotThere, request_of
from pipelines._server.follow import watch as watch_workflow

AFTERTHOUGHT = 1.0
"""Seconds from a request that was not answered to its repetition, then doubled."""

REQUESTS = 4


def submit_workflow(name: str, pairs: tuple[str, ...], *, watch: bool, dry_run: bool, as_json: bool) -> int:
    """Submit the workflow `name` with the parameters `NAME=VALUE`, say so, and return the exit code: 130 after Ctrl-C.

    Args:
        name: of the pipeline, with or without the project's.
        pairs: parameters, as they were typed.
        watch: follow it till it ends; the exit code is then the run's.
        dry_run: only print what would be sent.
        as_json: print one JSON document.

    Raises:
        BadInput: the workflow or a parameter is not what is committed, or not what is applied in the cluster.
        Terminal: the server was not reached or did not allow it, and nothing was submitted; or that is not known, and said.
    """
    manifest = load_template(manifests_root(), name)
    parameters = parse_pairs(pairs)
    arguments(manifest, parameters)
    _require_as_it_is(parameters)
    template = manifest["metadata"]["name"]
    run = f"{template}-{uuid.uuid4().hex[:8]}"
    settings = Settings.load()
    if dry_run:
        _show_request(settings, template, run, parameters, as_json=as_json)
        return 0
    argo = Argo(settings)
    _require_applied(argo, template, parameters)
    try:
        _submit(argo, template, run, parameters)
        return _tell(argo, template, run, parameters, watch=watch, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {run} may have been submitted: `lockstep runs {run}`", err=True)
        return 130


def _tell(argo: Argo, template: str, run: str, parameters: dict[str, str], *, watch: bool, as_json: bool) -> int:
    """Say that it is submitted, or watch it; return the exit code."""
    if watch:
        click.echo(f"{run} is submitted: {argo.page_of(run)}", err=as_json)
        return watch_workflow(argo, run, as_json=as_json)
    if as_json:
        told = {"name": run, "namespace": argo.namespace, "template": template, "parameters": parameters}
        click.echo(json.dumps({**told, "page": argo.page_of(run)}, indent=2))
    else:
        click.echo(f"{run} is submitted\nwatch it:   lockstep runs {run} --watch\nlook at it: {argo.page_of(run)}")
    return 0


def _require_as_it_is(parameters: Mapping[str, str]) -> None:
    """Refuse values that Argo would change on their way to a step.

    Raises:
        BadInput: there is one.
    """
    for name, value in parameters.items():
        if "{{" in value:
            raise BadInput(
                f"parameter {name!r} has {{{{ in it, which Argo would take for a tag of its own",
                hint="only `lockstep run` takes such a value as it is",
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(f"parameter {name!r} is not UTF-8, which is all that JSON can hold") from None


def _require_applied(argo: Argo, template: str, parameters: Mapping[str, str]) -> None:
    """Check the parameters against the template that will run, too: Argo itself lets unknown ones pass.

    Raises:
        BadInput: it takes other parameters than the committed one.
        Terminal: it is not there, or not to be had.
    """
    try:
        applied = argo.template(template)
    except NotThere as absent:
        raise Terminal(
            f"not submitted: there is no WorkflowTemplate {template!r} in the namespace {argo.namespace!r} of {argo.url}",
            hint=f"apply the manifests there, or name another namespace with LOCKSTEP_ARGO_NAMESPACE ({absent.args[0]})",
        ) from None
    except Terminal as refused:
        raise Terminal(f"not submitted: {refused.args[0]}", hint=refused.hint) from None
    try:
        arguments(applied, parameters)
    except BadInput as refused:
        raise BadInput(
            f"not submitted: in the cluster, {refused.args[0]}",
            hint=f"the WorkflowTemplate there is not the committed one: apply that first ({refused.hint})",
        ) from None


def _submit(argo: Argo, template: str, run: str, parameters: dict[str, str]) -> None:
    """Have a workflow of that name started, once.

    Raises:
        Terminal: nothing was submitted, or that is not known.
    """
    doubts: list[Terminal] = []

    def ask() -> None:
        try:
            argo.submit(template, run, parameters)
        except (NoAnswer, Conflict) as doubt:
            doubts.append(doubt)
            argo.workflow(run)  # what is there is ours
        except Invalid as refused:
            # Argo's server says so, too, when its own request to Kubernetes was not answered (`SubmitWorkflow` in its
            # server/workflow/workflow_server.go).
            try:
                argo.workflow(run)
            except Terminal:
                raise refused from None

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1:
            click.echo(f"{doubts[0].args[0]}; {run} is asked for again, which starts no second one", err=True)

    def may_come(error: BaseException) -> bool:
        return bool(doubts) and isinstance(error, (NoAnswer, NotReached, NotThere))

    again = Retrying(
        retry=retry_if_exception(may_come),
        stop=stop_after_attempt(REQUESTS),
        wait=wait_exponential(multiplier=AFTERTHOUGHT),
        before_sleep=say,
        reraise=True,
    )
    try:
        again(ask)
    except Terminal as refused:
        if not doubts:
            raise Terminal(f"not submitted: {refused.args[0]}", hint=refused.hint) from None
        raise Terminal(
            f"not known whether {run} was submitted: {doubts[0].args[0]}",
            hint="; ".join(
                filter(None, (f"it may still appear: before you submit again, `lockstep runs {run}`", doubts[0].hint))
            ),
        ) from None


def _show_request(settings: Settings, template: str, run: str, parameters: dict[str, str], *, as_json: bool) -> None:
    request: Any = request_of(settings.argo_namespace, template, run, parameters)
    body = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not as_json:
        url = settings.argo_server.rstrip("/") or "LOCKSTEP_ARGO_SERVER"
        click.echo(f"POST {url}/api/v1/workflows/{settings.argo_namespace}/submit")
    click.echo(json.dumps(body, indent=2, ensure_ascii=False))
