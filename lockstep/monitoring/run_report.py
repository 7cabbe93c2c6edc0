"""Tell somebody that a run ended badly: the first line says what broke, and whose it is to look at."""

import re
from collections.abc import Sequence

import httpx
import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from lockstep.settings import Settings

_TRIES = 4
_TIMEOUT_S = 10.0
_AGAIN = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
_OF_A_CHILD = re.compile(r"child '.*' failed$|failed: |\d+ of \d+ items failed|$")
"""What the message of a node says that failed for its children: Argo's words, and those of `lockstep run`."""


class Failure(BaseModel):
    """One node that failed, as Argo lists it in `{{workflow.failures}}`."""

    displayName: str  # noqa: N815 - Argo's spelling
    templateName: str = ""  # noqa: N815
    phase: str = ""
    message: str = ""


class RunReport(BaseModel):
    """What is told of a run.

    Attributes:
        text: what a person reads; chat services show a field of this name.
        workflow: the run's name.
        pipeline: what was run.
        status: Failed or Error.
        parameters: what it was given, as JSON.
        failures: the nodes that failed.
    """

    text: str
    workflow: str
    pipeline: str
    status: str
    parameters: str
    failures: list[Failure]


def run_report(workflow: str, pipeline: str, status: str, failures: str, parameters: str) -> RunReport:
    """Return the report of a run. It never raises: what cannot be read is told as it is.

    Args:
        workflow: the run's name.
        pipeline: what was run.
        status: `{{workflow.status}}`.
        failures: `{{workflow.failures}}`: a JSON list or null, quoted once more as a Go text, or empty.
        parameters: `{{workflow.parameters}}`, a JSON list of names and values.
    """
    nodes = _nodes(failures)
    told = [failures] if nodes is None else list(map(_line, _own(nodes)))
    return RunReport(
        text="\n".join([f"{workflow} {status}", *told, f"given {parameters}"]),
        workflow=workflow,
        pipeline=pipeline,
        status=status,
        parameters=parameters,
        failures=nodes or [],
    )


def _nodes(failures: str) -> list[Failure] | None:
    """Return the nodes that failed; None if that is not what the text says, as where Go's quoting is no JSON."""
    try:
        listed = orjson.loads(failures or "[]")
        listed = orjson.loads(listed or "[]") if isinstance(listed, str) else listed
        return TypeAdapter(list[Failure]).validate_python(listed or [])
    except (orjson.JSONDecodeError, ValidationError):
        return None


def _own(nodes: Sequence[Failure]) -> list[Failure]:
    """Return the nodes that failed themselves: a DAG only says which child of it did."""
    return [node for node in nodes if not _OF_A_CHILD.match(node.message)] or list(nodes)


def _line(node: Failure) -> str:
    return f"{node.displayName} ({node.templateName}) {node.phase}: {node.message or 'no message'}"


def send(settings: Settings, report: RunReport) -> str:
    """Post a report to `report_url`, and return in words what became of it.

    It never raises: a run is not worse for nobody having heard of it, and Argo would make an exit handler's failure the run's.
    """
    if not settings.report_url:
        return "report_url is not set: nobody was told"
    url = settings.report_url.get_secret_value()
    tries = 0
    try:
        for attempt in Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_TRIES),
            wait=wait_exponential(max=_TIMEOUT_S),
            reraise=True,
        ):
            with attempt:
                tries += 1
                httpx.post(url, json=report.model_dump(), timeout=_TIMEOUT_S).raise_for_status()
    except Exception as failed:  # noqa: BLE001 - also what a proxy's or a certificate's setting makes of it
        # The address is a secret with chat services, and httpx says it in some messages.
        said = f"{type(failed).__name__}"
        if isinstance(failed, httpx.HTTPStatusError):
            said += f" {failed.response.status_code}"
        return f"report_url did not take the report, tried {tries} times: {said}"
    return "report_url took the report"


def _may_pass(failed: BaseException) -> bool:
    if isinstance(failed, httpx.HTTPStatusError):
        return (
            failed.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or failed.response.status_code in _AGAIN
        )
    return isinstance(failed, httpx.TransportError) and not isinstance(failed, httpx.UnsupportedProtocol)
