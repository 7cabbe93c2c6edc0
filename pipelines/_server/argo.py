"""Argo's server, asked through Hera's `WorkflowsService`; what goes wrong becomes one of our errors, worded for the caller.

https://argo-workflows.readthedocs.io/en/latest/rest-api/
"""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click
import requests
import urllib3
from hera.workflows import WorkflowsService
from hera.workflows.models import SubmitOpts, Workflow, WorkflowList, WorkflowSubmitRequest
from pydantic import ValidationError

from lockstep.errors import BadInput, Terminal
from lockstep.settings import Settings, is_loopback

TIMEOUTS = (10.0, 60.0)
"""Seconds: to connect, and between two bytes of an answer. Hera sets none, and would wait for ever."""

LONGEST_MESSAGE = 500
"""Characters of an answer that an error shows."""

PENDING = "Pending"
STARTED = frozenset({"Running", "Succeeded", "Failed", "Error"})
"""A workflow's phases; what has not started is pending, or has none."""

TEMPLATE_LABEL = "workflows.argoproj.io/workflow-template"
"""Argo's controller sets it on every workflow that refers to a template, whoever submitted it; a schedule is such a one."""

SCHEDULED_ANNOTATION = "workflows.argoproj.io/scheduled-time"
"""The time that a CronWorkflow's run is of, which its parameters name by a tag; what was submitted from a template has none."""

PHASE_LABEL = "workflows.argoproj.io/phase"

_OF_A_RUN = ("spec.arguments", "status.phase", "status.message", "status.startedAt", "status.finishedAt")
_METADATA = ("metadata.name", "metadata.labels", "metadata.annotations", "metadata.creationTimestamp")
_OF_RUNS = ",".join(["metadata", *(f"items.{field}" for field in (*_METADATA, *_OF_A_RUN))])
_OF_ONE = ",".join([*_METADATA, *_OF_A_RUN, "status.nodes"])


class NotReached(Terminal):
    """No server was spoken to, so nothing was changed."""


class NoAnswer(Terminal):
    """A server was asked and gave no answer of Argo's: what was asked for may have been done."""


class NotThere(Terminal):
    """The server has no object of that name."""


class Invalid(Terminal):
    """The server does not take what was sent."""


class Conflict(Terminal):
    """There is an object of that name already, or something else that was changed at the same time, such as a quota."""


_STATES: dict[int, type[Terminal]] = {400: Invalid, 404: NotThere, 409: Conflict}


class Argo:
    """One namespace of one Argo server.

    Args:
        settings: `argo_server` and what goes with it.

    Raises:
        BadInput: no server is named.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.argo_server:
            raise BadInput("no Argo server is named", hint=_how_to_name_one())
        self.url, self.namespace = settings.argo_server.rstrip("/"), settings.argo_namespace
        token = settings.argo_token.get_secret_value().strip()
        self._service = WorkflowsService(
            host=f"{self.url}/",  # Hera joins paths to it: without the slash a path of its own would be lost
            # `requests` also takes the path of a file of authorities for its `verify`, which Hera hands on as it is.
            verify_ssl=str(settings.argo_tls_ca) if settings.argo_tls_ca else not settings.argo_tls_skip_verify,  # pyright: ignore[reportArgumentType]
            token=token or None,
            namespace=self.namespace,
            session=_Session(self.url, self.namespace, token),
        )
        if settings.argo_tls_skip_verify:
            click.echo(f"warning: the certificate of {self.url} is not verified (argo_tls_skip_verify)", err=True)
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def page_of(self, name: str) -> str:
        """Return where a person looks at a workflow."""
        return f"{self.url}/workflows/{self.namespace}/{name}"

    def template(self, name: str) -> dict[str, Any]:
        """Return the cluster's WorkflowTemplate as a document.

        Raises:
            NotThere: it has none of that name.
            Terminal: it was not to be had.
        """
        with _understood(self.url):
            found = self._service.get_workflow_template(name)
        return found.model_dump(mode="json", by_alias=True, exclude_none=True)

    def submit(self, template: str, name: str, parameters: dict[str, str]) -> None:
        """Start a workflow from a WorkflowTemplate.

        Raises:
            NoAnswer: it may have been started.
            Conflict: this, too: a proxy on the way may have asked before.
            Terminal: it was not started by this request.
        """
        with _understood(self.url):
            self._service.submit_workflow(request_of(self.namespace, template, name, parameters))

    def workflow(self, name: str) -> Workflow:
        """Return one workflow with its nodes.

        Raises:
            NotThere: there is none of that name.
            Terminal: it was not to be had.
        """
        with _understood(self.url):
            return self._service.get_workflow(name, fields=_OF_ONE)

    def workflows(self, templates: Sequence[str], phase: str | None, limit: int) -> list[Workflow]:
        """Return the newest workflows that were made from some templates, without their nodes, the archived ones among them.

        Args:
            templates: names of WorkflowTemplates.
            phase: only those that are in it; None for all.
            limit: how many at most.

        Raises:
            Terminal: they were not to be had.
        """
        of_templates = f"{TEMPLATE_LABEL} in ({','.join(sorted(templates))})"
        # Those that the controller has not seen yet have no phase.
        waiting = f"{of_templates},{PHASE_LABEL} notin ({','.join(sorted(STARTED))})"
        if phase == PENDING:
            found = self._list(waiting, limit)
        else:
            found = self._list(f"{of_templates},{PHASE_LABEL}={phase}" if phase else of_templates, limit)
            if phase is None and len(found) == limit:  # the server puts those that have not started last
                found += self._list(waiting, limit)
        newest_last = sorted({workflow.metadata.name: workflow for workflow in found}.values(), key=_created)
        return newest_last[::-1][:limit]

    def _list(self, selector: str, limit: int) -> list[Workflow]:
        # One page, however long: without an archive Argo names no next one, also where there is one.
        with _understood(self.url):
            page: WorkflowList = self._service.list_workflows(
                label_selector=selector, limit=str(limit), fields=_OF_RUNS
            )
        return page.items or []  # a list of none is null in Argo's JSON


def request_of(namespace: str, template: str, name: str, parameters: dict[str, str]) -> WorkflowSubmitRequest:
    """Return what the UI sends, too: it leaves everything but name and parameters to the template.

    Argo splits a parameter at its first `=` and takes what follows as it is (`overrideParameters` in its
    workflow/util/util.go), so a value may hold further ones, quotes and line breaks.
    """
    options = SubmitOpts(name=name, parameters=[f"{parameter}={value}" for parameter, value in parameters.items()])
    return WorkflowSubmitRequest(
        namespace=namespace, resource_kind="WorkflowTemplate", resource_name=template, submit_options=options
    )


class _Session(requests.Session):
    """Adds deadlines to Hera's requests, and raises what an answer means before Hera reads it.

    Args:
        url: of the server.
        namespace: to be named in hints.
        token: to be kept out of messages.
    """

    def __init__(self, url: str, namespace: str, token: str) -> None:
        super().__init__()
        self._url, self._namespace, self._token = url, namespace, token
        # A proxy of the environment has another loopback than ours.
        self.trust_env = not is_loopback(urlsplit(url).hostname or "")
        self.auth = _unchanged  # else an entry in ~/.netrc would replace the token

    def request(self, method: str | bytes, url: str | bytes, **given: Any) -> requests.Response:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A redirect is no answer of Argo's, and following one makes a GET of a POST.
        try:
            response = super().request(method, url, **given, timeout=TIMEOUTS, allow_redirects=False)
        except requests.exceptions.SSLError as error:
            raise _no_handshake(self._url, error) from None
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
            raise self._not_reached(error) from None
        except requests.exceptions.ConnectionError as error:
            if isinstance(_cause(error), urllib3.exceptions.NewConnectionError):
                raise self._not_reached(error) from None
            raise NoAnswer(f"{self._url} broke the connection off: {_reason(error)}") from None
        except requests.exceptions.RequestException as error:
            raise NoAnswer(f"{self._url} gave no answer: {_reason(error)}") from None
        if response.status_code >= 300:
            raise self._refusal(response)
        return response

    def _not_reached(self, error: requests.exceptions.RequestException) -> NotReached:
        return NotReached(
            f"no Argo server is reached at {self._url}: {_reason(error)}",
            hint="is LOCKSTEP_ARGO_SERVER right, and its network open to you? "
            "`kubectl port-forward -n argo service/argo-server 2746` brings one to https://127.0.0.1:2746",
        )

    def _refusal(self, response: requests.Response) -> Terminal:
        """Return what a status other than 2xx means; bodies are `{"code": 7, "message": "…"}` if they are Argo's."""
        status = response.status_code
        said = f"{self._url} answers {status}: {self._message(response)}"
        if status == 401:
            return Terminal(
                said,
                hint=("the token is not taken (they expire)" if self._token else "no token is given")
                + f": LOCKSTEP_ARGO_TOKEN=$(kubectl create token SERVICE_ACCOUNT -n {self._namespace})",
            )
        if status == 403:
            return Terminal(
                said,
                hint=f"the token's account needs, in the namespace {self._namespace!r}, workflows: create, get, list; "
                "workflowtemplates: get",
            )
        if status in _STATES:
            return _STATES[status](said)
        if status >= 500 or status in {408, 429}:
            return NoAnswer(said)
        if status < 400:
            return Terminal(said, hint="LOCKSTEP_ARGO_SERVER has to be Argo's server itself, not a page to log in")
        return Terminal(said)

    def _message(self, response: requests.Response) -> str:
        try:
            text = str(response.json()["message"])
        except (ValueError, KeyError, TypeError):
            text = response.content.decode(errors="replace").strip() or response.reason or "nothing"
        if self._token:
            text = text.replace(self._token, "…")
        shown = "".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST_MESSAGE])
        return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]}…"


@contextmanager
def _understood(url: str) -> Generator[None]:
    """Raise what Hera cannot read of a 2xx answer as an answer that is not Argo's.

    Raises:
        NoAnswer: that is so.
    """
    try:
        yield
    except (json.JSONDecodeError, ValidationError, TypeError) as error:
        raise NoAnswer(
            f"what {url} answers is not what an Argo server would: {type(error).__name__}",
            hint="LOCKSTEP_ARGO_SERVER has to be Argo's server itself, not a page to log in",
        ) from None


def _no_handshake(url: str, error: requests.exceptions.SSLError) -> Terminal:
    reason = _reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return NotReached(
            f"the certificate of {url} is not trusted: {reason}",
            hint="LOCKSTEP_ARGO_TLS_CA names the file with the authorities that may have signed it",
        )
    if any(state in reason for state in ("NO_CERTIFICATE_OR_CRL_FOUND", "PEM")):
        return NotReached(f"there is no certificate to trust {url} by: {reason}", hint="see to LOCKSTEP_ARGO_TLS_CA")
    if any(state in reason for state in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")):
        return NotReached(f"{url} does not speak TLS: {reason}", hint="is it an http URL?")
    return NoAnswer(f"TLS with {url} failed: {reason}")


def _cause(error: requests.exceptions.RequestException) -> object:
    """Return what urllib3 gave up for."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


def _reason(error: requests.exceptions.RequestException) -> str:
    """Return what went wrong, without the connection pool's way of saying where."""
    cause = _cause(error)
    text = str(cause.args[-1] if isinstance(cause, urllib3.exceptions.ProtocolError) else cause)
    return text.partition("): ")[2] or text


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _created(workflow: Workflow) -> str:
    created = workflow.metadata.creation_timestamp
    return created.root.isoformat() if created else ""


def _how_to_name_one() -> str:
    hint = "set LOCKSTEP_ARGO_SERVER=https://…, LOCKSTEP_ARGO_TOKEN and LOCKSTEP_ARGO_NAMESPACE"
    if "ARGO_SERVER" in os.environ:
        hint += "; ARGO_SERVER, ARGO_TOKEN and ARGO_NAMESPACE are the `argo` command's, and not read"
    return hint
