"""One view alone: its own service, its past by the definition, and what was served of it, text included."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.definitions import use_case
from lockstep.clock import parse_time, to_micros
from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.offline.registry import apply_definitions
from lockstep.offline.semantics import FeatureRow, as_known
from lockstep.online.epoch import Epochs
from lockstep.parity import one_view
from lockstep.parity.one_view import Alone, alone, hold_history, hold_served, rows_to_ask
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.serving.features import build_vectors
from lockstep.settings import Settings
from lockstep.views import OnDemandView, UseCase, latest_view
from lockstep.views.declare import DataType

MAY, JUNE = parse_time("2018-05-01T00:00:00Z"), parse_time("2018-06-01T00:00:00Z")
HOUR_US = 3_600_000_000
PROFILE = use_case.view("customer_profile")
ROWS = [
    {"customer_id": key, "home_x": float(day), "home_y": None, "segment": f"s{key}{day}", "card_issued_day": key * day}
    for day in (1, 2)
    for key in (1, 2)
]


def times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def at(day: int, minutes: int) -> Any:
        return parse_time(f"2018-05-0{day}T00:{minutes:02}:00Z")

    days = [int(row["home_x"]) for row in rows]
    return [
        row | {"event_timestamp": at(day, 0), "created_timestamp": at(day, 5)}
        for row, day in zip(rows, days, strict=True)
    ]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Lake, Alone]:
    """A home in which two customers have a profile of two days each."""
    home = tmp_path_factory.mktemp("profile")
    settings = Settings(home=home, clock_file=home / "clock").resolved()
    settings.clock.advance_to(JUNE)
    lake, it = Lake.open(settings, use_case.project), alone(use_case, "customer_profile", JUNE)
    lake.ensure_table(PROFILE.table, PROFILE.schema)
    lake.append(PROFILE.table, pa.Table.from_pylist(times(ROWS), PROFILE.schema))
    source = pa.table({"customer_id": pa.array([2, 1, 2, 3], pa.int64())})
    lake.ensure_table(PROFILE.source.table, source.schema)
    lake.append(PROFILE.source.table, source)
    apply_definitions(settings, it.use_case)
    return settings, lake, it


ASKED = [
    ({"customer_id": key}, to_micros(MAY) + hour * HOUR_US) for key in (1, 2, 3) for hour in (0, 1, 24, 25, 9_000)
]


def test_a_view_alone_has_a_service_of_all_its_features_and_texts_are_no_features_of_a_model(
    profile: tuple[Settings, Lake, Alone],
) -> None:
    _, _, it = profile
    assert it.contract.feature_service == "customer_profile_alone"
    assert [feature.name for feature in it.contract.features] == ["home_x", "home_y", "card_issued_day"]
    assert [column.name for column in it.contract.views[0].columns] == list(PROFILE.features)
    assert (it.texts, it.left_out) == (("segment",), ())


def test_keys_are_asked_for_in_one_order_and_one_that_nobody_has_among_them(
    profile: tuple[Settings, Lake, Alone],
) -> None:
    settings, lake, it = profile
    asked = [row["customer_id"] for row in rows_to_ask(settings, lake, it, 10)]
    assert sorted(asked) == [-(2**31), 1, 2, 3]
    assert [row["customer_id"] for row in rows_to_ask(settings, lake, it, 10)] == asked


def test_the_past_is_what_the_definition_says_text_included(profile: tuple[Settings, Lake, Alone]) -> None:
    held = hold_history(*profile, ASKED)
    assert (held.rows, held.values, held.differing) == (15, 60, {})


def test_a_past_that_is_not_by_the_definition_is_told_by_feature(
    profile: tuple[Settings, Lake, Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_lag(rows: Any, key: Any, t: int, a: int, ttl: int, lag: int) -> FeatureRow | None:
        return as_known(rows, key, t, a + HOUR_US, ttl, lag)

    monkeypatch.setattr(one_view, "as_known", without_lag)
    held = hold_history(*profile, ASKED)
    # At midnight the row of the day is not known yet; what it is later is the same.
    assert held.differing == {"home_x": 4, "card_issued_day": 4, "segment": 4}
    assert held.examples[0] == "home_x: training has None, by definition it is 1.0"


def served(key: int, status: str, segment: str | None) -> ServedRow:
    view = ServedView(status, None, None, {"segment": segment})
    nothing = Epochs(None, {})
    return ServedRow(
        *("r", 0, to_micros(MAY) + 48 * HOUR_US, 0, {}, {"customer_id": key}, nothing, nothing),
        *({"customer_profile": view}, (), "c", "m", 0.0, (), True, "p", key),
    )


def numbers_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have numbers be compared by parity's own tests, and only texts here."""
    for stage, gives in (("gather", None), ("investigate", None), ("explain", {})):
        monkeypatch.setattr(one_view, stage, lambda *_, gives=gives: gives)


def test_a_served_text_is_held_against_training_and_one_past_its_ttl_counts_as_none(
    profile: tuple[Settings, Lake, Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lake, it = profile
    numbers_are_equal(monkeypatch)
    ledger = Ledger.open(settings, use_case.project)
    right = [served(1, "present", "s12"), served(2, "present", "s22"), served(3, "stale", "s32")]
    assert hold_served(settings, lake, ledger, it, right).differing == {}
    wrong = hold_served(settings, lake, ledger, it, [served(1, "present", "s11"), served(2, "stale", "s22")])
    assert wrong.differing == {"segment (training)": 2}
    assert wrong.examples == ("segment: served s11, training says s12", "segment: served None, training says s22")
    assert wrong.status == {"present": 1, "stale": 1}
    assert hold_served(
        settings, lake, ledger, it, [*right, served(3, "missing", None), served(4, "missing", None)]
    ).with_value == {"customer_profile": (2, 4)}


def test_times_are_compared_nowhere_and_a_view_without_a_number_is_refused() -> None:
    def with_columns(**columns: Any) -> UseCase:
        fields = {name: getattr(PROFILE, name) for name in ("entity", "source", "every", "ttl", "freshness", "owner")}
        return replace(use_case, views=(latest_view(name="v", columns=columns, **fields),))

    assert alone(with_columns(a="int64", b="timestamp", c="bytes"), "v", JUNE).left_out == ("b", "c")
    with pytest.raises(NotYetSupported, match="no feature that is a number"):
        alone(with_columns(a="string"), "v", JUNE)
    with pytest.raises(BadInput, match="there is no view 'w'"):
        alone(with_columns(a="int64"), "w", JUNE)


def banded(given: Mapping[str, Any]) -> Mapping[str, Any]:
    amounts = given["amount_cents"]
    return {"euros": amounts / 100, "band": np.where(amounts > 5_000, "high", "low")}


def test_a_text_that_is_made_on_demand_is_left_out_and_said_to_be(
    profile: tuple[Settings, Lake, Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lake, _ = profile
    outputs: dict[str, DataType] = {"euros": "float64", "band": "string"}
    view = OnDemandView("bands", banded, {"amount_cents": "int64"}, (), outputs, "o")
    it = alone(replace(use_case, on_demand=(*use_case.on_demand, view)), "bands", JUNE)
    assert (it.texts, it.left_out) == ((), ("band",))
    usable = build_vectors(it.contract, {"bands": banded}, {}, {"amount_cents": [100, 9_000]})
    assert usable.tolist() == [[1.0], [90.0]]
    numbers_are_equal(monkeypatch)
    ledger = Ledger.open(settings, use_case.project)
    rows = [replace(served(n, "present", None), views={}, vector=(made,)) for n, made in enumerate((1.0, None))]
    held = hold_served(settings, lake, ledger, it, rows)
    assert (held.values, held.with_value) == (2, {"bands": (1, 2)})
