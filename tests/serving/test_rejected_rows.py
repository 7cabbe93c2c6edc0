"""A transformer whose contract rejects rows, behind the edge: what is answered, and what is counted."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import fraud_case
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.online.reader import Reading, Status, ViewRows
from lockstep.serving.answers import Prepared, Scored
from lockstep.serving.edge import Edge
from lockstep.serving.log_rows import Served
from lockstep.serving.transformer import Transformer
from lockstep.settings import Settings

NOW = datetime(2018, 6, 1, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
KNOWN, UNKNOWN = 5, 6


class Outage(Transformer):
    """Reads every card, and the terminal KNOWN alone; scores whatever it is given with 0.25."""

    def __init__(self, settings: Settings, *, shadow: bool = False) -> None:
        rejecting = {"when_null": "reject"}
        features = tuple(
            f.model_copy(update=rejecting if f.view == "terminals" else {}) for f in fraud_case.contract().features
        )
        contract = fraud_case.contract(features=features)
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


def test_a_rejected_row_is_answered_422_with_its_features_and_is_not_logged(of_the_case: Settings) -> None:
    transformer = Outage(of_the_case)

    answer = ask(transformer, KNOWN, UNKNOWN)

    assert answer.status_code == 422
    assert answer.json()["reason"] == "row_rejected"
    assert answer.json()["error"].startswith("instances[1] cannot be scored: terminals:risk_28d has no value\n\nHint:")
    assert transformer.logged == []
    assert ask(transformer, KNOWN, KNOWN).json()["predictions"] == [0.25, 0.25]
    assert [served.scores for served in transformer.logged] == [[0.25, 0.25]]


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
