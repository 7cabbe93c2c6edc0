"""The reference use case: its declarations, its one function against numbers worked out by hand, and how it fails to load."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.definitions import use_case
from feature_repo.on_demand.transaction import transaction_context
from lockstep.clock import to_micros
from lockstep.errors import UseCaseError
from lockstep.views import load_use_case

WINDOWS = (1, 7, 30)


def fold(cents: int, time: datetime, stored: float = 0.0) -> dict[str, float]:
    """Run the function on one payment; every stored value is `stored`."""
    columns = {
        "amount_cents": np.array([cents]),
        "request_time_us": np.array([to_micros(time)]),
        **{f"{name}_{days}d": np.array([stored]) for name in ("nb_tx", "amount_cents") for days in WINDOWS},
    }
    return {name: float(values[0]) for name, values in transaction_context(columns).items()}


def test_the_use_case_loads_by_its_name() -> None:
    assert load_use_case("feature_repo") is use_case
    assert use_case.project == "fraud"


def test_the_service_has_the_15_published_features_in_the_published_order() -> None:
    assert [f"{ref.view}:{ref.feature}" for ref in use_case.service("fraud_v1").refs] == [
        "transaction_context:tx_amount",
        "transaction_context:tx_during_weekend",
        "transaction_context:tx_during_night",
        "transaction_context:customer_nb_tx_1d",
        "transaction_context:customer_avg_amount_1d",
        "transaction_context:customer_nb_tx_7d",
        "transaction_context:customer_avg_amount_7d",
        "transaction_context:customer_nb_tx_30d",
        "transaction_context:customer_avg_amount_30d",
        "terminal_risk:nb_tx_1d",
        "terminal_risk:risk_1d",
        "terminal_risk:nb_tx_7d",
        "terminal_risk:risk_7d",
        "terminal_risk:nb_tx_30d",
        "terminal_risk:risk_30d",
    ]


def test_every_feature_of_the_service_is_one_its_view_gives() -> None:
    for view, feature in use_case.service("fraud_v1").features:
        assert feature in view.features, f"{view.name}:{feature}"


def test_customer_spend_is_declared_as_specified() -> None:
    view = use_case.view("customer_spend")

    assert view.features == {
        "nb_tx_1d": "int64",
        "nb_tx_7d": "int64",
        "nb_tx_30d": "int64",
        "amount_cents_1d": "int64",
        "amount_cents_7d": "int64",
        "amount_cents_30d": "int64",
    }
    assert (view.entity.join_key, view.source.table, view.source.known_at) == (
        "customer_id",
        "transactions",
        "ingested_at",
    )
    assert (view.every, view.ttl, view.delay) == (timedelta(hours=1), timedelta(days=3), timedelta(0))
    assert (view.freshness.objective, view.freshness.hard) == (timedelta(hours=3), False)


def test_terminal_risk_is_declared_as_specified() -> None:
    view = use_case.view("terminal_risk")

    assert list(view.features) == [f"{name}_{days}d" for name in ("nb_tx", "nb_fraud", "risk") for days in WINDOWS]
    assert (view.entity.join_key, view.source.table, view.source.known_at) == ("terminal_id", "labels", "labelled_at")
    assert (view.every, view.ttl, view.delay) == (timedelta(hours=1), timedelta(days=7), timedelta(days=7))
    assert (view.freshness.objective, view.freshness.hard) == (timedelta(hours=6), True)


def test_the_payment_at_hand_is_counted_into_what_is_stored() -> None:
    columns = {
        "amount_cents": np.array([1_050, 1_050]),
        "request_time_us": np.array([to_micros(datetime(2018, 4, 3, 12, tzinfo=UTC))] * 2),
        **{f"nb_tx_{days}d": np.array([n, np.nan]) for days, n in zip(WINDOWS, (0.0, 2.0, 6.0), strict=True)},
        **{
            f"amount_cents_{days}d": np.array([cents, np.nan])
            for days, cents in zip(WINDOWS, (0.0, 3_000.0, 10_000.0), strict=True)
        },
    }

    found = transaction_context(columns)

    assert {name: values[0] for name, values in found.items()} == {
        "tx_amount": 10.5,
        "tx_during_weekend": 0.0,
        "tx_during_night": 0.0,
        "customer_nb_tx_1d": 1.0,
        "customer_nb_tx_7d": 3.0,
        "customer_nb_tx_30d": 7.0,
        "customer_avg_amount_1d": 10.5,
        "customer_avg_amount_7d": 13.5,
        "customer_avg_amount_30d": 11_050 / 700,
    }
    assert {name for name, values in found.items() if np.isnan(values[1])} == {
        f"customer_{name}_{days}d" for name in ("nb_tx", "avg_amount") for days in WINDOWS
    }, "a card never seen has no history, but its payment has an amount and a time"
    assert {values.dtype for values in found.values()} == {np.dtype(np.float64)}


def test_the_function_gives_what_is_declared_and_takes_what_is_declared() -> None:
    view = use_case.on_demand_view("transaction_context")

    found = view.function({name: np.array([1]) for name in (*view.inputs, *(column for _, column in view.reads))})

    assert set(found) == set(view.outputs)
    assert view.reference == "feature_repo.on_demand.transaction:transaction_context"


@pytest.mark.parametrize(
    ("time", "night"),
    [
        ("2018-04-03T00:00:00+00:00", 1.0),
        ("2018-04-03T06:59:59.999999+00:00", 1.0),
        ("2018-04-03T07:00:00+00:00", 0.0),
        ("2018-04-03T23:59:59+00:00", 0.0),
        ("2018-04-03T08:30:00+02:00", 1.0),
    ],
)
def test_night_ends_at_seven_utc(time: str, night: float) -> None:
    assert fold(100, datetime.fromisoformat(time))["tx_during_night"] == night


@pytest.mark.parametrize(
    ("time", "weekend"),
    [
        ("2018-04-06T23:59:59.999999+00:00", 0.0),  # a Friday
        ("2018-04-07T00:00:00+00:00", 1.0),
        ("2018-04-08T23:59:59+00:00", 1.0),
        ("2018-04-09T00:00:00+00:00", 0.0),
    ],
)
def test_the_weekend_is_saturday_and_sunday_utc(time: str, weekend: float) -> None:
    assert fold(100, datetime.fromisoformat(time))["tx_during_weekend"] == weekend


def test_the_source_hash_is_that_of_the_function_alone() -> None:
    """A change of a view's declaration is in the view's own hash; it must not look like a change of the function."""
    module = Path(inspect.getfile(transaction_context)).read_text()
    assert "import feature_repo" not in module
    assert "from feature_repo" not in module


def test_the_estimator_is_made_anew_each_time_and_always_the_same() -> None:
    first, second = use_case.model.estimator(), use_case.model.estimator()
    assert first is not second
    assert first.get_params() == second.get_params()
    assert first.random_state == 0


def test_the_definitions_are_plain_data_that_a_caller_can_vary() -> None:
    shorter = replace(use_case, model=replace(use_case.model, train=timedelta(days=3)))
    assert shorter.model.train == timedelta(days=3)
    assert use_case.model.train == timedelta(days=21)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable folder for use cases whose names begin with `broken_`."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("broken_")]:
        del sys.modules[name]


def write(folder: Path, package: str, **modules: str) -> None:
    (folder / package).mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (folder / package / f"{name}.py").write_text(text)


def test_a_use_case_that_fails_while_it_loads_names_the_file_and_the_line(folder: Path) -> None:
    write(
        folder,
        "broken_view",
        definitions="from broken_view import views\n",
        views=(
            "from lockstep.views import *\n"
            "from feature_repo.entities import customer\n"
            "from feature_repo.sources import transactions\n"
            "view = windowed_view(name='spend', entity=customer, source=transactions, measures=[count('n')],\n"
            "    windows=[days(1)], every=hours(7), ttl=days(3), freshness=soft(hours(3)), owner='me')\n"
        ),
    )

    with pytest.raises(UseCaseError) as failure:
        load_use_case("broken_view")

    assert str(failure.value) == (
        f"the use case 'broken_view' does not import: {folder}/broken_view/views.py:4: "
        "UseCaseError: view spend: every=7:00:00 does not divide a day into whole ticks"
    )


def test_a_use_case_that_is_no_python_names_the_file_and_the_line(folder: Path) -> None:
    write(folder, "broken_syntax", definitions="from lockstep.views import UseCase\nuse_case = UseCase(\n")

    with pytest.raises(UseCaseError, match=r"broken_syntax/definitions\.py:2: SyntaxError: '\(' was never closed"):
        load_use_case("broken_syntax")


def test_a_use_case_that_declares_nothing_is_refused(folder: Path) -> None:
    write(folder, "broken_empty", definitions="")

    with pytest.raises(UseCaseError, match=r"broken_empty/definitions\.py declares no `use_case = UseCase\(\.\.\.\)`"):
        load_use_case("broken_empty")


def test_a_use_case_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UseCaseError, match="'broken_absent' does not import: ModuleNotFoundError"):
        load_use_case("broken_absent")
