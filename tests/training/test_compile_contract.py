"""The contract: compiled from declarations value by value, and its JSON, which outlives the code that wrote it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from feature_repo.definitions import use_case as fraud
from feature_repo.entities import customer
from feature_repo.sources import transactions
from lockstep.contract import Column, Feature, FeatureContract, OnDemand, TableCut, TrainingCut, View
from lockstep.errors import BadInput, UseCaseError
from lockstep.training.contract import compile_contract
from lockstep.views import FeatureService, OnDemandView, UseCase, count, days, hours, soft, windowed_view
from lockstep.views.declare import DataType
from lockstep.views.windowed import WindowedView

GOLDEN = Path(__file__).parents[1] / "golden" / "contract.json"
CUT = TrainingCut(
    tables=(TableCut(table="customer_spend", snapshot_id=7, tag="training-0123456789ab"),),
    spine_hash="5" * 64,
    known_at=datetime(2018, 8, 15, tzinfo=UTC),
)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def ints(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name=name, dtype="int64") for name in names)


def passing(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    return columns


def on_demand(name: str, *reads: tuple[WindowedView, str], **inputs: DataType) -> OnDemandView:
    return OnDemandView(
        name=name, function=passing, inputs=inputs, reads=reads, outputs={f"{name}_out": "float64"}, owner="me"
    )


def with_service(*features: tuple[WindowedView | OnDemandView, str]) -> UseCase:
    return replace(fraud, services=(FeatureService(name="tried", features=features, owner="me"),))


@pytest.fixture(scope="module")
def contract() -> FeatureContract:
    return compile_contract(fraud, "fraud_v1", CUT)


def test_the_contract_lists_the_service_in_its_order(contract: FeatureContract) -> None:
    assert (contract.project, contract.feature_service, contract.version, contract.entity_key_version) == (
        "fraud",
        "fraud_v1",
        2,
        3,
    )
    assert tuple((f.view, f.name) for f in contract.features) == tuple(
        (ref.view, ref.feature) for ref in fraud.service("fraud_v1").refs
    )
    assert [f.dtype for f in contract.features] == ["float64"] * 9 + ["int64", "float64"] * 3
    assert {f.tolerance for f in contract.features} == {None}
    assert contract.cut == CUT
    assert contract.fallback is None


def test_a_view_lists_just_the_columns_that_are_read_in_its_own_order(contract: FeatureContract) -> None:
    spend, risk = contract.views

    assert spend == View(
        name="customer_spend",
        kind="ticked",
        table="customer_spend",
        join_keys=ints("customer_id"),
        columns=ints("nb_tx_1d", "nb_tx_7d", "nb_tx_30d", "amount_cents_1d", "amount_cents_7d", "amount_cents_30d"),
        ttl_us=3 * DAY_US,
        every_us=HOUR_US,
        compute_lag_us=300_000_000,
        visible_lag_us=300_000_000,
        freshness_us=3 * HOUR_US,
        freshness_hard=False,
        owner="payments-analytics",
        definition_hash=fraud.view("customer_spend").definition_hash,
    )
    assert [(c.name, c.dtype) for c in risk.columns] == [
        ("nb_tx_1d", "int64"),
        ("nb_tx_7d", "int64"),
        ("nb_tx_30d", "int64"),
        ("risk_1d", "float64"),
        ("risk_7d", "float64"),
        ("risk_30d", "float64"),
    ], "nb_fraud is stored and not read"
    assert (risk.ttl_us, risk.freshness_us, risk.freshness_hard) == (7 * DAY_US, 6 * HOUR_US, True)


def test_keys_and_inputs_are_those_of_all_views_together(contract: FeatureContract) -> None:
    assert contract.join_keys == ints("customer_id", "terminal_id")
    assert contract.request_inputs == ints("amount_cents", "request_time_us")


def test_an_on_demand_function_is_named_with_the_hash_of_its_source(contract: FeatureContract) -> None:
    (context,) = contract.on_demand

    assert context.function == "feature_repo.on_demand.transaction:transaction_context"
    assert context.source_hash == fraud.on_demand_view("transaction_context").source_hash
    assert len(context.source_hash) == 64
    assert context.inputs == ints("amount_cents", "request_time_us")
    assert context.reads[0] == ("customer_spend", "nb_tx_1d")
    assert context.outputs[0] == Column(name="tx_amount", dtype="float64")


def test_join_keys_are_sorted_by_name_whatever_is_read_first() -> None:
    spend, risk = fraud.view("customer_spend"), fraud.view("terminal_risk")

    found = compile_contract(with_service((risk, "risk_7d"), (spend, "nb_tx_1d")), "tried", CUT)

    assert [v.name for v in found.views] == ["terminal_risk", "customer_spend"]
    assert [k.name for k in found.join_keys] == ["customer_id", "terminal_id"]
    assert found.on_demand == ()
    assert found.request_inputs == ()


def test_inputs_shared_by_two_functions_are_listed_once() -> None:
    spend = fraud.view("customer_spend")
    first = on_demand("first", (spend, "nb_tx_7d"), amount_cents="int64")
    second = on_demand("second", (spend, "nb_tx_1d"), channel="string", amount_cents="int64")

    found = compile_contract(with_service((first, "first_out"), (second, "second_out")), "tried", CUT)

    assert found.request_inputs == (Column(name="amount_cents", dtype="int64"), Column(name="channel", dtype="string"))
    assert [c.name for c in found.views[0].columns] == ["nb_tx_1d", "nb_tx_7d"]


def test_the_hash_follows_the_definitions_and_the_cut(contract: FeatureContract) -> None:
    faster = windowed_view(
        name="customer_spend",
        entity=customer,
        source=transactions,
        measures=[count("nb_tx")],
        windows=[days(1)],
        every=hours(2),
        ttl=days(3),
        freshness=soft(hours(3)),
        owner="payments-analytics",
    )
    slow = compile_contract(with_service((fraud.view("customer_spend"), "nb_tx_1d")), "tried", CUT)
    fast = compile_contract(with_service((faster, "nb_tx_1d")), "tried", CUT)
    later = compile_contract(fraud, "fraud_v1", CUT.model_copy(update={"spine_hash": "6" * 64}))

    assert compile_contract(fraud, "fraud_v1", CUT).hash == contract.hash
    assert slow.views[0].definition_hash != fast.views[0].definition_hash
    assert len({slow.hash, fast.hash, later.hash, contract.hash}) == 4


def test_a_service_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"there is no feature service 'fraud_v9'\n\nHint: did you mean 'fraud_v"):
        compile_contract(fraud, "fraud_v9", CUT)


def test_a_feature_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(UseCaseError) as failure:
        compile_contract(with_service((fraud.view("terminal_risk"), "risk_2d")), "tried", CUT)

    assert str(failure.value).startswith(
        "service tried names terminal_risk:risk_2d, which is not there\n\nHint: did you"
    )


def test_a_function_that_reads_what_is_not_there_is_refused() -> None:
    wrong = on_demand("wrong", (fraud.view("customer_spend"), "nb_tx_2d"))

    with pytest.raises(UseCaseError, match="on-demand view wrong names customer_spend:nb_tx_2d, which is not there"):
        compile_contract(with_service((wrong, "wrong_out")), "tried", CUT)


def test_two_features_of_one_name_are_refused() -> None:
    spend, risk = fraud.view("customer_spend"), fraud.view("terminal_risk")

    with pytest.raises(UseCaseError, match="service tried lists nb_tx_1d twice"):
        compile_contract(with_service((spend, "nb_tx_1d"), (risk, "nb_tx_1d")), "tried", CUT)


def test_a_function_that_takes_one_name_from_two_places_is_refused() -> None:
    both = on_demand("both", (fraud.view("customer_spend"), "nb_tx_1d"), (fraud.view("terminal_risk"), "nb_tx_1d"))

    with pytest.raises(UseCaseError, match="on-demand view both takes nb_tx_1d from two places"):
        compile_contract(with_service((both, "both_out")), "tried", CUT)


def test_an_input_of_two_types_is_refused() -> None:
    first, second = on_demand("first", amount="int64"), on_demand("second", amount="float64")

    with pytest.raises(UseCaseError, match="amount is both int64 and float64"):
        compile_contract(with_service((first, "first_out"), (second, "second_out")), "tried", CUT)


def test_a_fallback_without_features_is_refused() -> None:
    empty = FeatureService(name="empty", features=(), owner="me")
    use_case = replace(fraud, services=(*fraud.services, empty), model=replace(fraud.model, fallback=empty))

    with pytest.raises(UseCaseError, match="the fallback empty takes no features"):
        compile_contract(use_case, fraud.model.service.name, CUT)


def fixed_contract() -> FeatureContract:
    """A contract that uses every field, of values that no declaration changes."""
    fallback = FeatureContract(
        project="fraud",
        feature_service="fraud_fallback",
        join_keys=(),
        request_inputs=(),
        features=(),
        views=(),
        on_demand=(),
        cut=CUT,
    )
    return FeatureContract(
        project="fraud",
        feature_service="fraud_v1",
        join_keys=ints("customer_id"),
        request_inputs=ints("amount_cents", "request_time_us"),
        features=(
            Feature(name="tx_amount", view="transaction_context", dtype="float64", tolerance=1e-9),
            Feature(name="nb_tx_1d", view="customer_spend", dtype="int64", when_null="default", default=0.0),
            Feature(name="nb_tx_7d", view="customer_spend", dtype="int64", when_null="reject"),
        ),
        views=(
            View(
                name="customer_spend",
                table="customer_spend",
                join_keys=ints("customer_id"),
                columns=ints("nb_tx_1d", "nb_tx_7d"),
                ttl_us=3 * DAY_US,
                every_us=HOUR_US,
                compute_lag_us=300_000_000,
                visible_lag_us=300_000_000,
                freshness_us=3 * HOUR_US,
                freshness_hard=False,
                owner="payments-analytics",
                definition_hash="d" * 64,
            ),
        ),
        on_demand=(
            OnDemand(
                name="transaction_context",
                function="feature_repo.on_demand.transaction:transaction_context",
                source_hash="f" * 64,
                inputs=ints("amount_cents", "request_time_us"),
                reads=(("customer_spend", "nb_tx_1d"),),
                outputs=(Column(name="tx_amount", dtype="float64"),),
                owner="fraud-ml",
            ),
        ),
        cut=CUT,
        fallback=fallback,
    )


def test_the_contracts_json_is_the_golden_one() -> None:
    golden = orjson.loads(GOLDEN.read_bytes())
    contract = fixed_contract()
    note = (
        f"\n\nThe contract's JSON is a format that outlives code: models in the registry carry it and the served log names "
        f"its hash. If the change is meant, raise CONTRACT_VERSION, write a migration note, then update {GOLDEN.name}."
    )

    assert orjson.loads(contract.to_json()) == golden["contract"], note
    assert contract.hash == golden["hash"], note


def test_a_contract_of_long_ago_is_still_read() -> None:
    golden = orjson.loads(GOLDEN.read_bytes())

    found = FeatureContract.from_json(orjson.dumps(golden["contract"]))

    assert found == fixed_contract()
    assert found.hash == golden["hash"]


def test_a_contract_of_another_version_is_told_by_that_alone() -> None:
    old = orjson.loads(fixed_contract().to_json())
    for feature in old["features"]:
        feature["when_missing"] = feature.pop("when_null")

    with pytest.raises(BadInput) as failure:
        FeatureContract.from_json(orjson.dumps(old | {"version": 1}))
    with pytest.raises(BadInput) as later:
        FeatureContract.from_json(orjson.dumps(old | {"version": 3}))

    assert str(failure.value) == (
        "this is a feature contract of version 1; this release reads 2\n\nHint: train the model again"
    )
    assert str(later.value) == (
        "this is a feature contract of version 3; this release reads 2\n\n"
        "Hint: take the release that trained the model"
    )


def test_of_a_contract_that_is_wrong_everywhere_three_errors_are_told() -> None:
    wrong = orjson.loads(fixed_contract().to_json())
    wrong["views"][0] |= {"ttl_us": -1, "every_us": 0, "freshness_us": 0, "owner": 7}
    wrong["kind"] = "other"

    with pytest.raises(BadInput) as failure:
        FeatureContract.from_json(orjson.dumps(wrong))

    assert str(failure.value).splitlines() == [
        "this is no feature contract of version 2:",
        "views.0.ttl_us: Input should be greater than or equal to 0",
        "views.0.every_us: Input should be greater than 0",
        "views.0.freshness_us: Input should be greater than 0",
        "and 2 more",
    ]
    with pytest.raises(BadInput, match="the whole: Input should be an object"):
        FeatureContract.from_json("[]")
    with pytest.raises(BadInput, match="the whole: Invalid JSON"):
        FeatureContract.from_json("{")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fallback": fixed_contract().fallback}, "the fallback fraud_fallback has a fallback itself"),
        ({"project": "other"}, "the fallback fraud_fallback is of another project or cut"),
        (
            {"cut": CUT.model_copy(update={"spine_hash": "6" * 64})},
            "the fallback fraud_fallback is of another project or cut",
        ),
        (
            {
                "features": (
                    Feature(name="nb_tx_1d", view="customer_spend", dtype="int64"),
                    Feature(name="nb_tx_7d", view="other_view", dtype="int64"),
                )
            },
            "the fallback fraud_fallback takes other_view:nb_tx_7d, which fraud_v1 does not",
        ),
    ],
    ids=["fallback", "project", "cut", "features"],
)
def test_a_fallback_of_another_set_or_with_one_of_its_own_is_no_contract(
    changes: dict[str, Any], message: str
) -> None:
    whole = fixed_contract()
    assert whole.fallback is not None
    wrong = whole.model_copy(update={"fallback": whole.fallback.model_copy(update=changes)})

    with pytest.raises(BadInput, match=f"the whole: Value error, {message}$"):
        FeatureContract.from_json(wrong.to_json())
