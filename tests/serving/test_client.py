"""A batch caller takes nothing for scores that is not what its rows were scored with by the model that it means."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fraud_case
import httpx
import pyarrow as pa
import pytest

from lockstep.errors import BadInput, Terminal, Transient
from lockstep.serving import shadow
from lockstep.serving.client import score
from lockstep.settings import Settings

URL = "http://service/v1/models/fraud:predict"
ROWS = [{"customer_id": 1}, {"customer_id": 2}]


def ask(status: int, body: Any) -> list[float]:
    """Have two rows scored by the model `m` where everything is answered this."""
    text = body if isinstance(body, str) else json.dumps(body)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=text))) as client:
        return score(client, URL, ROWS, "m")


def test_the_scores_are_the_model_s_in_order_of_the_rows() -> None:
    assert ask(200, {"predictions": [0.1, 0.9], "model": "m", "flags": [[], []]}) == [0.1, 0.9]


@pytest.mark.parametrize(
    "body",
    [
        "<html>hello</html>",
        [0.1, 0.9],
        {"scores": [0.1, 0.9], "model": "m"},
        {"predictions": [0.1, None], "model": "m"},
        {"predictions": [0.1, 0.9]},
    ],
)
def test_an_answer_that_is_none_of_a_transformer_s_is_told_in_words(body: Any) -> None:
    with pytest.raises(Terminal, match=f"the service at {URL} answered no predictions with the model that made them"):
        ask(200, body)


@pytest.mark.parametrize("scores", [[], [0.1], [0.1, 0.2, 0.3]])
def test_more_or_fewer_scores_than_rows_are_refused(scores: list[float]) -> None:
    with pytest.raises(Terminal, match=f"answered {len(scores)} predictions to 2 rows"):
        ask(200, {"predictions": scores, "model": "m"})


def test_scores_of_another_model_are_refused() -> None:
    with pytest.raises(BadInput, match="serves the model n, not m") as refused:
        ask(200, {"predictions": [0.1, 0.9], "model": "n"})
    assert "shadow_url" in refused.value.hint


def test_a_service_that_fails_may_be_asked_again_and_one_that_refuses_may_not() -> None:
    with pytest.raises(Transient, match="answered 503: later"):
        ask(503, "later")
    with pytest.raises(Terminal, match="refused our request with 400: no"):
        ask(400, "no")


@pytest.fixture
def dark_service() -> Iterator[tuple[str, list[int]]]:
    """Serve the model `m`; give its predict URL, and of each request how many rows it had."""
    asked: list[int] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = len(json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"])
            asked.append(rows)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": [0.5] * rows, "model": "m"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/models/fraud:predict", asked
        server.shutdown()
        serving.join()


def test_a_shadow_replay_stops_at_the_first_answer_of_another_model(
    dark_service: tuple[str, list[int]], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = dark_service
    given: Any = settings.model_copy(update={"shadow_url": url}), None, None, fraud_case.contract()
    monkeypatch.setattr(shadow, "recent_events", lambda *_: pa.table({"customer_id": [1, 2, 3, 4, 5]}))

    with pytest.raises(BadInput, match="serves the model m, not n"):
        shadow.replay(*given, "n", 5, 2)
    assert asked == [2]

    assert shadow.replay(*given, "m", 5, 2) == 5
    assert asked == [2, 2, 2, 1]
