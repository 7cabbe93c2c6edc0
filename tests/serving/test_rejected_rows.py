"""A transformer whose contract rejects rows: what is answered, counted and logged, and what a replay makes of it."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import fraud_case
import httpx
import pyarrow as pa
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from serving_stack import STALE, Stack, serving_stack

from lockstep.lake import Lake
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.reader import Reading, Status, ViewRows
from lockstep.parity.sample import ServedRow, Window, read_served
from lockstep.serving import shadow
from lockstep.serving.answers import Prepared, Scored
from lockstep.serving.artifact import model_digest
from lockstep.serving.drain import drain
from lockstep.serving.edge import Edge
from lockstep.serving.log_rows import Served, stream_key
from lockstep.serving.rehearse import rehearse
from lockstep.serving.shadow import Replayed
from lockstep.serving.transformer import Transformer
from lockstep.settings import Settings

NOW = datetime(2018, 6, 1, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
KNOWN, UNKNOWN = 5, 6


class Outage(Transformer):
    """Reads every card, and the terminal KNOWN alone; scores whatever it is given with 0.25."""

    def __init__(self, settings: Settings, *, shadow: bool = False) -> None:
        contract = fraud_case.with_policy(risk_28d={"when_null": "reject"})
        super().__init__("fraud", contract, "d", predictor="nowhere:1", settings=settings, shadow=shadow)
        self.logged: list[Served] = []
        self._log: Any = SimpleNamespace(offer=self.logged.append)

    async def _read(self, request: Any, budget: Any) -> Reading:
        found = [terminal == KNOWN for terminal in request.entities["terminal_id"]]
        ones: Any = [1] * len(found)
        cards = ViewRows(["present" for _ in found], ones, ones, {"nb_tx_7d": ones, "avg_amount_7d": ones})
        status: list[Status] = ["present" if it else "missing" for it in found]
        times = [1 if it else None for it in found]
        terminals = ViewRows(status, times, times, {"risk_28d": [0.5 if it else None for it in found]})
        epochs = Epochs("i", dict.fromkeys(("cards", "terminals"), ViewEpoch(Mark(1, 1, 1, NOW_US))))
        return Reading(epochs, epochs, {"cards": cards, "terminals": terminals})

    async def score(self, prepared: Prepared) -> Scored:
        return Scored(prepared, [0.25] * len(prepared.vectors), 0.0)


def ask(transformer: Transformer, *terminals: int) -> httpx.Response:
    """Post one row for each terminal."""
    edge: Any = Edge(FastAPI(), [transformer], timedelta(seconds=10), 1_000_000)
    rows = [
        {"customer_id": 1, "terminal_id": n, "amount_cents": 3, "request_time": NOW.isoformat()} for n in terminals
    ]

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://service") as client:
            return await client.post("/v1/models/fraud:predict", json={"instances": rows})

    return asyncio.run(send())


def rows_counted() -> dict[tuple[str, str], float]:
    """How many rows the process has counted, by view and status."""
    return {
        (view, status): REGISTRY.get_sample_value("lockstep_served_view_rows_total", {"view": view, "status": status})
        or 0.0
        for view in ("cards", "terminals")
        for status in ("present", "missing")
    }


def counted_since(before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {key: rows - before[key] for key, rows in rows_counted().items() if rows != before[key]}


@pytest.fixture
def of_the_case(settings: Settings) -> Settings:
    return settings.model_copy(update={"use_case": "fraud_case"})


def test_rejected_rows_are_answered_422_with_what_the_first_lacks_and_are_logged_alone(of_the_case: Settings) -> None:
    transformer = Outage(of_the_case)

    answer = ask(transformer, KNOWN, UNKNOWN, KNOWN, UNKNOWN)

    assert answer.status_code == 422
    assert (answer.json()["reason"], answer.json()["rejected"]) == ("row_rejected", [1, 3])
    assert answer.json()["error"].startswith("instances[1] cannot be scored: terminals:risk_28d has no value\n\nHint:")
    (refused,) = transformer.logged
    assert refused.rejected == {1: "terminals:risk_28d", 3: "terminals:risk_28d"}
    assert refused.scores == [None] * 4
    assert refused.flags == [[], ["terminals:missing", "rejected"]] * 2
    transformer.logged.clear()
    assert ask(transformer, KNOWN, KNOWN).json()["predictions"] == [0.25, 0.25]
    assert [(served.scores, served.rejected) for served in transformer.logged] == [([0.25, 0.25], {})]


def test_rows_that_are_read_for_a_request_that_is_rejected_are_counted(of_the_case: Settings) -> None:
    before = rows_counted()

    ask(Outage(of_the_case), KNOWN, UNKNOWN, UNKNOWN)

    assert counted_since(before) == {
        ("cards", "present"): 3.0,
        ("terminals", "present"): 1.0,
        ("terminals", "missing"): 2.0,
    }


def test_a_dark_service_counts_no_rows_rejected_or_not(of_the_case: Settings) -> None:
    before = rows_counted()

    assert ask(Outage(of_the_case, shadow=True), UNKNOWN).status_code == 422
    assert ask(Outage(of_the_case, shadow=True), KNOWN).status_code == 200

    assert counted_since(before) == {}


CARD, NOBODY = 7, 999  # as the stack's store has them
REJECTING = fraud_case.with_policy(
    risk_28d={"when_null": "default", "default": -1.0},
    nb_tx_7d={"when_null": "reject"},
    avg_amount_7d={"when_null": "reject"},
)


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving_stack(
        tmp_path_factory.mktemp("home"), REJECTING, shadow=True, replay_budget=timedelta(seconds=10)
    ) as running:
        yield running


def served(dark: Stack, model: str, rows: int) -> list[ServedRow]:
    """Return what the lake's served log has of a model, once as many rows have come, by terminal."""
    lake = Lake.open(dark.settings, "fraud_case")
    with dark.client() as client:
        for _ in range(500):
            if client.xlen(stream_key("fraud_case")) >= rows:
                break
            time.sleep(0.02)
        drain(lake, client, "fraud_case")
    now = dark.settings.clock.now()
    window = Window(model, REJECTING, True, now - timedelta(hours=1), now + timedelta(hours=1))
    return sorted(read_served(dark.settings, lake, window), key=lambda row: row.keys["terminal_id"])


def test_a_replay_has_each_rejected_row_in_the_log_once_and_each_other_one_answered(
    dark: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = [CARD, NOBODY, CARD, STALE, CARD, CARD, CARD, NOBODY, CARD]
    columns = {"customer_id": customers, "terminal_id": list(range(100, 109)), "amount_cents": [1250] * 9}
    monkeypatch.setattr(shadow, "recent_events", lambda *_: pa.table(columns))
    settings = dark.settings.model_copy(update={"shadow_url": dark.service.predict_url})
    given: Any = settings, None, None, REJECTING, model_digest(dark.model_dir)

    assert shadow.replay(*given, rows=9, batch=5) == Replayed(scored=6, rejected=3)

    rows = served(dark, model_digest(dark.model_dir), 9)
    assert [(row.keys["customer_id"], row.keys["terminal_id"]) for row in rows] == list(
        zip(customers, range(100, 109), strict=True)
    )
    lacks = {CARD: None, STALE: "cards:nb_tx_7d", NOBODY: "cards:nb_tx_7d"}
    assert [row.rejected for row in rows] == [lacks[customer] for customer in customers]
    assert [row.score is None for row in rows] == [row.rejected is not None for row in rows]
    answered, of_nobody, _, stale, *_ = rows
    assert (answered.flags, answered.vector[:2]) == (("terminals:missing",), (-1.0, 3.0))
    assert (of_nobody.flags, of_nobody.vector[:3]) == (
        ("cards:missing", "terminals:missing", "rejected"),
        (-1.0, None, None),
    )
    assert (stale.views["cards"].status, stale.views["cards"].values["nb_tx_7d"]) == ("stale", 4)


def test_a_rehearsal_logs_what_it_rejects_beside_what_it_serves(dark: Stack) -> None:
    asked = [{"customer_id": n, "terminal_id": t, "amount_cents": 1} for t, n in enumerate((CARD, NOBODY, CARD))]

    assert rehearse(dark.settings, REJECTING, asked, "rehearsed") == 3

    rows = served(dark, "rehearsed", 3)
    assert [(row.score, row.rejected) for row in rows] == [(0.0, None), (None, "cards:nb_tx_7d"), (0.0, None)]
    assert [row.flags[-1] for row in rows] == ["terminals:missing", "rejected", "terminals:missing"]
