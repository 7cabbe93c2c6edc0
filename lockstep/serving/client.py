"""Ask a transformer for scores, as a batch caller does."""

from collections.abc import Mapping, Sequence

import httpx

from lockstep.errors import Terminal, Transient


def score(client: httpx.Client, url: str, instances: Sequence[Mapping[str, object]]) -> list[float]:
    """Post rows to a predict URL and return their scores, in order.

    Args:
        client: with a time-out that fits the batch.
        url: the model's predict URL at its transformer.
        instances: rows of join keys, request inputs and `request_time`.

    Raises:
        Transient: the service is not there or out of order.
        Terminal: it does not understand us.
    """
    try:
        answer = client.post(url, json={"instances": list(instances)})
    except httpx.HTTPError as failure:
        raise Transient(f"the service at {url} does not answer: {failure}") from failure
    if answer.status_code >= 500:
        raise Transient(f"the service at {url} answered {answer.status_code}: {answer.text[:300]}")
    if answer.status_code != 200:
        raise Terminal(f"the service at {url} refused our request with {answer.status_code}: {answer.text[:300]}")
    return answer.json()["predictions"]
