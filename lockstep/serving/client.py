"""Ask a transformer for scores, as a batch caller does."""

from collections.abc import Mapping, Sequence

import httpx
from pydantic import BaseModel, Field, ValidationError

from lockstep.errors import BadInput, Terminal, Transient
from lockstep.serving.refusal import RowRejected


class _Answer(BaseModel):
    """What we rely on of an answer."""

    predictions: list[float]
    model: str
    contract: str = ""


class _Rejection(BaseModel):
    """What we rely on of a refusal for rejected rows."""

    rejected: list[int] = Field(min_length=1)


def score(
    client: httpx.Client, url: str, instances: Sequence[Mapping[str, object]], model: str, contract: str = ""
) -> list[float]:
    """Post rows to a predict URL and return their scores, in order.

    Args:
        client: with a time-out that fits the batch.
        url: the model's predict URL at its transformer.
        instances: rows of join keys, request inputs and `request_time`.
        model: the digest of the model that is meant.
        contract: the hash of the contract that must have made the vectors, the model's or its fallback's; any if not given.

    Raises:
        Transient: the service is not there or out of order, or the fallback answered where the model was meant.
        BadInput: another model is served there.
        RowRejected: rows have no score, by the model's own contract; it says which.
        Terminal: it does not understand us, or we do not understand it.
    """
    try:
        answer = client.post(url, json={"instances": list(instances)})
    except httpx.HTTPError as failure:
        raise Transient(f"the service at {url} does not answer: {failure}") from failure
    if answer.status_code >= 500:
        raise Transient(f"the service at {url} answered {answer.status_code}: {answer.text[:300]}")
    if answer.status_code == 422:
        raise RowRejected(
            f"the service at {url} rejected rows: {answer.text[:300]}", _rejected(answer, url, len(instances))
        )
    if answer.status_code != 200:
        raise Terminal(f"the service at {url} refused our request with {answer.status_code}: {answer.text[:300]}")
    try:
        told = _Answer.model_validate_json(answer.content)
    except ValidationError as wrong:
        raise Terminal(
            f"the service at {url} answered no predictions with the model that made them: {answer.text[:300]}",
            hint="is it a Lockstep transformer's predict URL?",
        ) from wrong
    if told.model != model:
        raise BadInput(
            f"the service at {url} serves the model {told.model}, not {model}",
            hint="ask where that model is served (a shadow replay: see shadow_url), or serve it there",
        )
    if contract and told.contract != contract:
        raise Transient(
            f"the service at {url} answered by the contract {told.contract[:12]}, not {contract[:12]}",
            hint="while a view is later than a hard objective allows, the fallback answers: bring it online first",
        )
    if len(told.predictions) != len(instances):
        raise Terminal(f"the service at {url} answered {len(told.predictions)} predictions to {len(instances)} rows")
    return told.predictions


def _rejected(answer: httpx.Response, url: str, rows: int) -> list[int]:
    """Return the numbers of the rows that were rejected, of so many.

    Raises:
        Terminal: the answer does not say which.
    """
    try:
        told = _Rejection.model_validate_json(answer.content).rejected
    except ValidationError:
        told = []
    if not told or not set(told) <= set(range(rows)):
        raise Terminal(
            f"the service at {url} rejected rows and did not say which of {rows}: {answer.text[:300]}",
            hint="is it a Lockstep transformer of this release?",
        )
    return told
