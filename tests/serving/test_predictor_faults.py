"""Whatever becomes of the predictor, or of what it says: an answer comes in time, says why, and all is well again afterwards.

A real transformer and Redis; the predictor is one that answers whatever it is told to, or a real one on its port.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fraud_case
import pytest
from false_predictor import (
    FalsePredictor,
    Saying,
    breaks_off,
    closes,
    http,
    is_silent,
    late,
    says,
    scores,
    trickles,
)
from served_process import (
    HASTY,
    HASTY_SECONDS,
    NAME,
    PATIENT,
    Answer,
    ServedProcess,
    at_once,
    frozen,
    require_bounded,
    several,
    wait_until,
)
from serving_stack import KNOWN, fill
from serving_world import BUDGET, FAILURES, PAUSE, hasty

from lockstep.local import LocalRedis
from lockstep.local.ports import free_port
from lockstep.serving.artifact import model_digest
from lockstep.settings import Settings


@dataclass
class Pair:
    settings: Settings
    model_dir: Path
    transformer: ServedProcess

    def ask(self, headers: dict[str, str] | None = None) -> Answer:
        row = {"customer_id": KNOWN, "terminal_id": 5, "amount_cents": 1250}
        return self.transformer.ask(
            {"instances": [row | {"request_time": self.settings.clock.now().isoformat()}]}, headers
        )

    def recover(self) -> None:
        """Require that it answers again and is ready, without anybody's help."""
        wait_until(lambda: self.ask(PATIENT).told == (200, "fresh"), why=lambda: self.ask(PATIENT))
        wait_until(lambda: self.transformer.state()["ready"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def settings(home: Path) -> Iterator[Settings]:
    with LocalRedis(home / "store", free_port()) as store:
        there = store.settings(hasty(home))
        fill(there)
        yield there


@pytest.fixture(scope="module")
def model_dir(home: Path) -> Path:
    return fraud_case.write_model(home / "model", fraud_case.contract(), fraud_case.fitted())


@pytest.fixture(scope="module")
def false(model_dir: Path) -> Iterator[FalsePredictor]:
    with FalsePredictor(model_digest(model_dir), {NAME: fraud_case.contract().hash}) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def pair(settings: Settings, model_dir: Path, false: FalsePredictor) -> Iterator[Pair]:
    with ServedProcess("transformer", settings, model_dir, predictor_port=false.port) as transformer:
        transformer.wait_ready()
        yield Pair(settings, model_dir, transformer)


@pytest.fixture
def deceived(pair: Pair, false: FalsePredictor) -> Iterator[Pair]:
    """A transformer whose predictor is a false one."""
    pair.recover()
    yield pair
    false.saying, false.digest = scores, model_digest(pair.model_dir)


@pytest.mark.parametrize(
    ("saying", "reason"),
    [
        pytest.param(says(b"all is well"), "predictor_failed", id="no JSON"),
        pytest.param(says(b""), "predictor_failed", id="nothing"),
        pytest.param(says([0.5]), "predictor_failed", id="no object"),
        pytest.param(says({"predictions": [0.5, 0.5]}), "predictor_failed", id="a score too many"),
        pytest.param(says({"predictions": []}), "predictor_failed", id="no score"),
        pytest.param(says({"predictions": 0.5}), "predictor_failed", id="no list"),
        pytest.param(says(b'{"predictions": [NaN]}'), "predictor_failed", id="NaN"),
        pytest.param(says({"predictions": ["0.5"]}), "predictor_failed", id="text"),
        pytest.param(says({"predictions": [None]}), "predictor_failed", id="null"),
        pytest.param(says({"predictions": [True]}), "predictor_failed", id="a boolean"),
        pytest.param(says(b'{"predictions": [1e999]}'), "predictor_failed", id="too great a number"),
        pytest.param(says({"error": "no"}, "500 Oh"), "predictor_failed", id="500"),
        pytest.param(says({"error": "no"}, "404 Oh"), "predictor_failed", id="404"),
        pytest.param(says({"model": "0" * 64, "predictions": [0.5]}), "contract_mismatch", id="another model"),
        pytest.param(breaks_off, "predictor_unavailable", id="half an answer"),
        pytest.param(closes, "predictor_unavailable", id="a closed connection"),
        pytest.param(lambda *_: iter([b"220 mail.example.com\r\n\r\n"]), "predictor_unavailable", id="no HTTP"),
        pytest.param(lambda *_: iter([http(b"{}", length=-1)]), "predictor_unavailable", id="a length below nothing"),
    ],
)
def test_a_predictor_that_answers_what_is_no_score(
    deceived: Pair, false: FalsePredictor, saying: Saying, reason: str
) -> None:
    false.saying = saying
    again = partial(several, partial(deceived.ask, PATIENT))
    answers = again()
    assert {answer.told for answer in answers} == {(503, reason)}
    assert all(answer.headers["x-lockstep-outcome"] == "refused" for answer in answers)
    require_bounded(reason, answers, BUDGET, deceived.transformer, again)
    false.saying = scores
    deceived.recover()


# A store that is slow on a busy machine may take its half of the budget, too.
LATE = {(503, "predictor_timeout"), (503, "store_timeout")}


@pytest.mark.parametrize(
    "saying",
    [
        pytest.param(is_silent, id="silence"),
        pytest.param(trickles, id="a byte now and then"),
        pytest.param(late(BUDGET * 1.5), id="too late"),
    ],
)
def test_a_predictor_that_does_not_answer_in_time(deceived: Pair, false: FalsePredictor, saying: Saying) -> None:
    false.saying = saying
    answers = several(deceived.ask)
    assert (503, "predictor_timeout") in {answer.told for answer in answers} <= LATE
    require_bounded("late", answers, BUDGET, deceived.transformer, partial(several, partial(deceived.ask, HASTY)))
    false.saying = scores
    deceived.recover()


def test_a_predictor_that_leads_elsewhere_is_not_followed(deceived: Pair, false: FalsePredictor) -> None:
    with FalsePredictor(false.digest, false.contracts) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.port}/v1/models/{NAME}:predict"
        moved = b"HTTP/1.1 307 Elsewhere\r\nlocation: %b\r\ncontent-length: 2\r\n\r\n{}" % url.encode()
        false.saying = lambda *_: iter([moved])
        assert deceived.ask(PATIENT).told == (503, "predictor_failed")
        assert elsewhere.asked == 0


def test_a_predictor_of_another_model_is_told_from_one_that_is_out_of_order(
    deceived: Pair, false: FalsePredictor
) -> None:
    false.digest = "0" * 64
    wait_until(lambda: not deceived.transformer.state()["ready"])
    assert "both processes must be started from one model directory" in deceived.transformer.state()["wrong"]
    assert {answer.told for answer in several(deceived.ask, 2 * FAILURES)} == {(503, "contract_mismatch")}
    false.digest = model_digest(deceived.model_dir)
    deceived.recover()


def test_one_request_tries_a_predictor_that_has_failed_several_times(deceived: Pair, false: FalsePredictor) -> None:
    false.saying = is_silent
    wait_until(lambda: deceived.ask().told == (503, "predictor_circuit_open"))

    def opened() -> list[Answer]:
        return [answer for answer in several(deceived.ask, 5) if answer.told == (503, "predictor_circuit_open")]

    answers = opened()
    assert answers[0].headers["retry-after"] == "1"
    require_bounded("predictor_circuit_open", answers, 0.0, deceived.transformer, opened)
    wait_until(lambda: deceived.ask().told == (503, "predictor_circuit_open"))
    asked = false.asked
    time.sleep(PAUSE + 0.1)
    told = [answer.told for answer in at_once(partial(deceived.ask, {"x-lockstep-budget-ms": "400"}))]
    assert (told.count((503, "predictor_timeout")), told.count((503, "predictor_circuit_open"))) == (1, 7)
    assert false.asked == asked + 1


def test_a_predictor_that_hangs_and_is_killed_and_another_one_in_its_place(
    pair: Pair, settings: Settings, model_dir: Path, false: FalsePredictor
) -> None:
    false.close()
    with ServedProcess("predictor", settings, model_dir, port=false.port) as real:
        real.wait_ready()
        pair.recover()
        with frozen(real.child.pid):
            answers, ask = several(pair.ask), partial(pair.ask, HASTY)
            assert (503, "predictor_timeout") in {answer.told for answer in answers} <= LATE
            require_bounded("a predictor that hangs", answers, BUDGET, pair.transformer, partial(several, ask))
            answers = at_once(ask)
            assert (503, "predictor_timeout") in {answer.told for answer in answers} <= LATE
            require_bounded(
                "a predictor that hangs, 8 connections",
                answers,
                HASTY_SECONDS,
                pair.transformer,
                lambda: at_once(ask),
            )
            wait_until(lambda: not pair.transformer.state()["ready"])
        pair.recover()

        real.kill()
        again = partial(several, partial(pair.ask, PATIENT))
        answers = again()
        assert {answer.told for answer in answers} == {(503, "predictor_unavailable")}
        require_bounded("a predictor that is gone", answers, BUDGET, pair.transformer, again)
        wait_until(lambda: "the predictor does not answer" in pair.transformer.state().get("wrong", ""))
        wait_until(lambda: pair.ask().told == (503, "predictor_circuit_open"))
    false.open()
    pair.recover()
