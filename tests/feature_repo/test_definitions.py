"""The reference use case: what it declares, view by view and service by service, and how a use case fails to load."""

import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feature_repo.definitions import use_case
from lockstep.contract import TrainingCut
from lockstep.errors import UseCaseError
from lockstep.training.contract import compile_contract
from lockstep.views import LatestView, OnDemandView, Source, StoredView, Thresholds, WindowedView, load_use_case
from lockstep.views.feast import objects

WINDOWS = (1, 7, 30)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PUBLISHED = [
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
CUT = TrainingCut(tables=(), spine_hash="", known_at=datetime(2018, 6, 1, tzinfo=UTC))
EVERY_VIEW = (*use_case.views, *use_case.on_demand)


def features_of(service: str) -> list[str]:
    return [f"{ref.view}:{ref.feature}" for ref in use_case.service(service).refs]


def test_the_use_case_loads_by_its_name() -> None:
    assert load_use_case("feature_repo") is use_case
    assert use_case.project == "fraud"


# --- views ---


@pytest.mark.parametrize(
    ("name", "key", "source", "every", "ttl", "objective", "owner"),
    [
        ("customer_profile", "customer_id", "customers", DAY, 365 * DAY, "soft 48 h", "customer-data"),
        ("customer_spend", "customer_id", "transactions", HOUR, 3 * DAY, "soft 3 h", "payments-analytics"),
        ("terminal_static", "terminal_id", "terminals", DAY, 365 * DAY, "soft 168 h", "acquiring"),
        ("terminal_activity", "terminal_id", "transactions", HOUR, 7 * DAY, "soft 6 h", "acquiring"),
        ("terminal_risk", "terminal_id", "labels", HOUR, 7 * DAY, "hard 6 h", "risk-operations"),
    ],
)
def test_a_stored_view_is_declared_as_specified(
    name: str, key: str, source: str, every: timedelta, ttl: timedelta, objective: str, owner: str
) -> None:
    view = use_case.view(name)

    assert (view.entity.join_key, view.source.table) == (key, source)
    assert (view.every, view.ttl, view.owner) == (every, ttl, owner)
    hardness = "hard" if view.freshness.hard else "soft"
    assert f"{hardness} {view.freshness.objective // HOUR} h" == objective


def test_five_views_are_stored_and_four_are_computed_on_demand() -> None:
    assert [view.name for view in use_case.views] == [
        "customer_profile",
        "customer_spend",
        "terminal_static",
        "terminal_activity",
        "terminal_risk",
    ]
    assert [view.name for view in use_case.on_demand] == [
        "transaction_context",
        "amount_deviation",
        "payment",
        "terminal_distance",
    ]


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: view.name)
def test_a_view_has_a_file_an_owner_a_description_and_the_three_tags(view: StoredView | OnDemandView) -> None:
    module = importlib.import_module(f"feature_repo.views.{view.name}")

    assert getattr(module, view.name) is view
    assert (module.__doc__ or "").splitlines()[0].endswith(f" Owner: {view.owner}.")
    assert view.description.endswith(".")
    assert view.tags.keys() == {"domain", "pii", "tier"}
    assert (view.tags["pii"] in {"yes", "no"}, view.tags["tier"] in {"1", "2", "3"}) == (True, True)


def test_a_hard_objective_is_of_the_first_tier_and_a_soft_one_is_not() -> None:
    assert {view.name: view.tags["tier"] == "1" for view in use_case.views} == {
        view.name: view.freshness.hard for view in use_case.views
    }


def test_customer_spend_sums_what_mean_and_deviation_are_made_of() -> None:
    view = use_case.view("customer_spend")

    assert isinstance(view, WindowedView)
    assert view.features == {
        f"{measure}_{days}d": "int64"
        for measure in ("nb_tx", "amount_cents", "amount_cents_squared")
        for days in WINDOWS
    }
    assert view.delay == timedelta(0)


def test_terminal_risk_and_its_denominator_end_a_week_ago_and_terminal_activity_ends_now() -> None:
    risk, activity = use_case.view("terminal_risk"), use_case.view("terminal_activity")

    assert isinstance(risk, WindowedView)
    assert isinstance(activity, WindowedView)
    assert list(risk.features) == [f"{name}_{days}d" for name in ("nb_tx", "nb_fraud", "risk") for days in WINDOWS]
    assert activity.features == {f"payments_{days}d": "int64" for days in WINDOWS}
    assert (risk.delay, activity.delay) == (7 * DAY, timedelta(0))


def test_what_is_on_file_has_no_column_of_a_name_that_two_views_share() -> None:
    profile, static = use_case.view("customer_profile"), use_case.view("terminal_static")

    assert isinstance(profile, LatestView)
    assert isinstance(static, LatestView)
    places = {"home_x": "float64", "home_y": "float64"}
    assert profile.features == places | {"segment": "string", "card_issued_day": "int64"}
    places = {"terminal_x": "float64", "terminal_y": "float64"}
    assert static.features == places | {"category": "string", "installed_day": "int64"}


def test_every_source_says_when_a_row_became_known_and_who_owns_it() -> None:
    def said(source: Source) -> tuple[str, str, str]:
        return source.event_time, source.known_at, source.owner

    assert {source.table: said(source) for source in use_case.sources} == {
        "customers": ("changed_at", "known_at", "customer-data"),
        "terminals": ("changed_at", "known_at", "acquiring"),
        "transactions": ("tx_datetime", "ingested_at", "payments-analytics"),
        "labels": ("tx_datetime", "labelled_at", "risk-operations"),
    }


# --- services ---


def test_the_first_service_has_the_15_features_of_the_published_baseline_in_its_order() -> None:
    assert features_of("fraud_v1") == PUBLISHED


def test_the_second_service_goes_on_from_the_first() -> None:
    assert features_of("fraud_v2") == [
        *PUBLISHED,
        "amount_deviation:amount_to_avg_7d",
        "amount_deviation:amount_to_avg_30d",
        "amount_deviation:amount_zscore_7d",
        "amount_deviation:amount_zscore_30d",
    ]


def test_the_service_without_feature_views_reads_none() -> None:
    contract = compile_contract(use_case, "payment_only", CUT)

    assert [feature.name for feature in contract.features] == ["tx_amount", "tx_during_weekend", "tx_during_night"]
    assert (contract.views, contract.join_keys) == ((), ())
    assert [column.name for column in contract.request_inputs] == ["amount_cents", "request_time_us"]


@pytest.mark.parametrize("service", ["fraud_v1", "fraud_v2"])
def test_both_fraud_services_read_the_same_two_stored_views(service: str) -> None:
    contract = compile_contract(use_case, service, CUT)

    assert [view.name for view in contract.views] == ["customer_spend", "terminal_risk"]
    assert [column.name for column in contract.join_keys] == ["customer_id", "terminal_id"]
    assert [column.name for column in contract.request_inputs] == ["amount_cents", "request_time_us"]


def test_feast_has_an_object_for_everything_declared() -> None:
    made = objects(use_case)

    assert [thing.name for thing in made] == [
        declared.name for declared in (*use_case.entities, *use_case.views, *use_case.on_demand, *use_case.services)
    ]
    sources = {
        thing.name: sorted([*thing.source_request_sources, *thing.source_feature_view_projections])
        for thing in made
        if hasattr(thing, "source_request_sources")
    }
    assert sources == {
        "transaction_context": ["customer_spend", "transaction_context_request"],
        "amount_deviation": ["amount_deviation_request", "customer_spend"],
        "payment": ["payment_request"],
        "terminal_distance": ["customer_profile", "terminal_static"],
    }


# --- the model ---


def test_the_model_takes_the_second_service_and_is_promoted_by_these_thresholds() -> None:
    recipe = use_case.model

    assert recipe.service is use_case.service("fraud_v2")
    assert recipe.thresholds == Thresholds(average_precision=0.4, auc=0.75, decision=0.3)


def test_the_estimator_is_made_anew_each_time_and_always_the_same() -> None:
    first, second = use_case.model.estimator(), use_case.model.estimator()
    assert first is not second
    assert first.get_params() == second.get_params()
    assert first.random_state == 0


# --- a use case that does not load ---


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
