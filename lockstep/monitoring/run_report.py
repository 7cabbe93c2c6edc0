"""Tell somebody that a run ended badly: the first line says what broke, and whose it is to look at."""

from collections.abc import Sequence

import httpx
import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from lockstep.errors import BadInput
from lockstep.settings import Settings

_TRIES = 4
_TIMEOUT_S = 10.0


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
    """Return the report of a run.

    Args:
        workflow: the run's name.
        pipeline: what was run.
        status: `{{workflow.status}}`.
        failures: `{{workflow.failures}}`: a JSON list, as the text of a JSON text (Argo quotes it once more), or empty.
        parameters: `{{workflow.parameters}}`, a JSON list of names and values.

    Raises:
        BadInput: the failures are neither.
    """
    try:
        listed = orjson.loads(failures) if failures else []
        nodes = TypeAdapter(list[Failure]).validate_python(orjson.loads(listed) if isinstance(listed, str) else listed)
    except (orjson.JSONDecodeError, ValidationError) as wrong:
        raise BadInput(f"workflow.failures is no list of nodes: {wrong}") from wrong
    return RunReport(
        text="\n".join([f"{workflow} {status}", *map(_line, _own(nodes)), f"given {parameters}"]),
        workflow=workflow,
        pipeline=pipeline,
        status=status,
        parameters=parameters,
        failures=nodes,
    )


def _own(nodes: Sequence[Failure]) -> list[Failure]:
    """Return the nodes that failed themselves: a DAG's or a fan-out's message only counts or repeats them."""
    return [node for node in nodes if "exit code" in node.message] or list(nodes)


def _line(node: Failure) -> str:
    return f"{node.displayName} ({node.templateName}) {node.phase}: {node.message or 'no message'}"


def send(settings: Settings, report: RunReport) -> str:
    """Post a report to `report_url`, and return in words what became of it.

    It never raises: a run is not worse for nobody having heard of it, and Argo would make an exit handler's failure the run's.
    """
    if not settings.report_url:
        return "report_url is not set: nobody was told"
    url = settings.report_url.get_secret_value()
    try:
        for attempt in Retrying(
            retry=retry_if_exception_type((httpx.TransportError, httpx.HTTPStatusError)),
            stop=stop_after_attempt(_TRIES),
            wait=wait_exponential(max=_TIMEOUT_S),
            reraise=True,
        ):
            with attempt:
                httpx.post(url, json=report.model_dump(), timeout=_TIMEOUT_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as failed:
        # The address is a secret with chat services, and httpx says it in some messages.
        return f"report_url did not take the report, {_TRIES} times: {type(failed).__name__}"
    return "report_url took the report"
