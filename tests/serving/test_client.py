"""A batch caller takes nothing for scores that is not what its rows were scored with by the model that it means."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fraud_case
import httpx
import pyarrow as pa
import pytest

from lockstep.errors import BadInput, Refused, Terminal, Transient
from lockstep.serving import shadow
from lockstep.serving.client import score
from lockstep.serving.refusal import RowRejected
from lockstep.serving.shadow import Replayed
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


def test_rows_that_are_rejected_are_told_with_what_the_service_said() -> None:
    said = {"error": "instances[1] cannot be scored: terminals:risk_28d has no value", "rejected": [1]}
    with pytest.raises(RowRejected, match=r"the service at .* rejected rows: .*instances\[1\] cannot be") as told:
        ask(422, said)
    assert told.value.rows == [1]


@pytest.mark.parametrize("said", ["no", {"error": "no"}, {"rejected": []}, {"rejected": [0, 2]}, {"rejected": [-1]}])
def test_a_service_that_does_not_say_which_rows_it_rejects_is_not_understood(said: Any) -> None:
    with pytest.raises(Terminal, match="rejected rows and did not say which of 2"):
        ask(422, said)


@dataclass
class DarkService:
    """Where the model `m` is served to all but some.

    Attributes:
        url: its predict URL.
        rejects: customers of whom no row is scored.
        names: how many of the rejected rows of a request it tells.
        asked: of each request, how many rows it had.
        forced: which model the requests asked for, where they did.
        contract: by which contract it answers.
        shadows: of each request, what says that nobody will act on its answer.
        scored: the customers that were answered, in order.
    """

    url: str = ""
    rejects: set[int] = field(default_factory=set)
    names: int = 1000
    asked: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    forced: list[str] = field(default_factory=list)
    contract: str = field(default_factory=lambda: fraud_case.contract().hash)
    shadows: list[str | None] = field(default_factory=list)

    def answer(self, instances: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        customers = [row["customer_id"] for row in instances]
        self.asked.append(len(customers))
        if rejected := [row for row, customer in enumerate(customers) if customer in self.rejects]:
            return 422, {"error": "a row cannot be scored", "rejected": rejected[: self.names]}
        self.scored += customers
        return 200, {"predictions": [0.5] * len(customers), "model": "m", "contract": self.contract}


@pytest.fixture
def dark() -> Iterator[DarkService]:
    service = DarkService()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["content-length"])))
            service.shadows.append(self.headers["x-lockstep-shadow"])
            service.forced += [self.headers["x-lockstep-model"]] * ("x-lockstep-model" in self.headers)
            status, body = service.answer(given["instances"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        service.url = f"http://127.0.0.1:{server.server_port}/v1/models/fraud:predict"
        yield service
        server.shutdown()
        serving.join()


Replay = Callable[[int, int], Replayed]


@pytest.fixture
def replay(dark: DarkService, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Replay rows of the customers 1, 2, 3 and so on, so many of them, so many a request."""
    given: Any = settings.model_copy(update={"shadow_url": dark.url}), None, None, fraud_case.contract()

    monkeypatch.setattr(shadow, "recent_events", lambda *of: pa.table({"customer_id": list(range(1, of[-1] + 1))}))
    return lambda rows, batch: shadow.replay(*given, "m", rows, batch)


def test_a_shadow_replay_stops_at_the_first_answer_of_another_model(
    dark: DarkService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: Any = settings.model_copy(update={"shadow_url": dark.url}), None, None, fraud_case.contract()
    monkeypatch.setattr(shadow, "recent_events", lambda *_: pa.table({"customer_id": [1, 2, 3, 4, 5]}))

    with pytest.raises(BadInput, match="serves the model m, not n"):
        shadow.replay(*given, "n", 5, 2)
    assert dark.asked == [2]


def test_a_shadow_replay_sends_every_row_once_in_requests_of_the_size_asked_for(
    dark: DarkService, replay: Replay
) -> None:
    assert replay(5, 2) == Replayed(scored=5, rejected=0)
    assert (dark.asked, dark.scored) == ([2, 2, 1], [1, 2, 3, 4, 5])


def test_a_shadow_replay_leaves_out_the_rows_that_are_rejected_and_no_other(
    dark: DarkService, replay: Replay, caplog: pytest.LogCaptureFixture
) -> None:
    dark.rejects = {3, 10}

    assert replay(11, 8) == Replayed(scored=9, rejected=2)

    assert dark.scored == [1, 2, 4, 5, 6, 7, 8, 9, 11]
    assert dark.asked == [8, 7, 3, 2]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the service rejected 2 of the 11 rows: they have no score, and are in the served log as rejected"
    ]


def test_a_shadow_replay_goes_on_while_further_rows_are_rejected(dark: DarkService, replay: Replay) -> None:
    dark.rejects, dark.names = {1, 4}, 1

    assert replay(5, 5) == Replayed(scored=3, rejected=2)
    assert (dark.asked, dark.scored) == ([5, 4, 3], [2, 3, 5])


def test_a_rejected_row_that_is_alone_in_its_request_is_asked_for_once(dark: DarkService, replay: Replay) -> None:
    dark.rejects = {2}

    assert replay(3, 1) == Replayed(scored=2, rejected=1)
    assert (dark.asked, dark.scored) == ([1, 1, 1], [1, 3])


def test_a_shadow_replay_of_which_more_than_half_is_rejected_is_refused(dark: DarkService, replay: Replay) -> None:
    dark.rejects = {1, 2}
    assert replay(4, 2) == Replayed(scored=2, rejected=2)

    dark.rejects = {1, 2, 4}
    with pytest.raises(Refused, match=r"rejected 3 of the 4 rows, at most 50% may be") as refused:
        replay(4, 2)
    assert "online" in refused.value.hint


def test_a_shadow_replay_of_which_every_row_is_rejected_is_bad_input(dark: DarkService, replay: Replay) -> None:
    dark.rejects = {1, 2, 3}

    with pytest.raises(BadInput, match="the service rejected each of the 3 rows"):
        replay(3, 2)
    assert (dark.asked, dark.scored) == ([2, 1], [])


def test_a_shadow_replay_has_the_fallback_model_answer_where_there_is_one(
    dark: DarkService, replay: Replay, settings: Settings
) -> None:
    assert replay(3, 2) == Replayed(scored=3, rejected=0)
    assert dark.forced == []

    given: Any = settings.model_copy(update={"shadow_url": dark.url}), None, None
    with_one, without = fraud_case.with_fallback(), fraud_case.contract()
    assert with_one.fallback is not None
    dark.contract = with_one.fallback.hash
    assert shadow.replay(*given, with_one, "m", 3, 2, fallback=True) == Replayed(scored=3, rejected=0)
    assert dark.forced == ["fallback", "fallback"]

    assert shadow.replay(*given, without, "m", 3, 2, fallback=True) == Replayed(scored=0, rejected=0)
    assert dark.asked == [2, 1, 2, 1]


def test_a_shadow_replay_says_what_it_is_so_that_a_service_that_takes_traffic_refuses_it(
    dark: DarkService, replay: Replay
) -> None:
    replay(3, 2)

    assert dark.shadows == ["1", "1"]


def test_a_shadow_replay_that_the_other_model_answers_may_be_tried_again(dark: DarkService, replay: Replay) -> None:
    dark.contract = "f" * 64

    with pytest.raises(Transient, match="answered by the contract ffffffffffff, not") as refused:
        replay(3, 2)
    assert "bring it online first" in refused.value.hint
