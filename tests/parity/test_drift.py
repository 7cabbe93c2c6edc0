"""What is no longer as the contract describes it makes a failing report that says so, and no exception."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from profile_world import MODEL, NOON, PROFILE, SERVICES, TICK, USE_CASE, Read, World, open_world
from sklearn.linear_model import LogisticRegression

from feature_repo.definitions import use_case as fraud
from lockstep.clock import parse_time
from lockstep.contract import Column, FeatureContract, TrainingCut
from lockstep.parity.drift import drifted_views, functions_of
from lockstep.parity.report import ParityReport
from lockstep.parity.verdict import Verdict
from lockstep.parity.verify import Question, measure
from lockstep.serving.features import load_functions
from lockstep.training.contract import compile_contract
from lockstep.training.registry import Registered
from lockstep.views import FeatureService, UseCase, latest_view
from lockstep.views.declare import DAY

JUNE = parse_time("2018-06-01T00:00:00Z")
STORED = {n: {"home_x": float(n), "home_y": 3.0 + n, "segment": "s", "card_issued_day": 10 * n} for n in range(1, 5)}
PAYMENT = next(view for view in fraud.on_demand if view.name == "payment")
MADE = FeatureService("made", ((PROFILE, "home_x"), (PAYMENT, next(iter(PAYMENT.outputs)))), "o")
GIVEN = replace(USE_CASE, on_demand=(PAYMENT,), services=(*USE_CASE.services, MADE))
MADE_MODEL = LogisticRegression().fit(np.eye(4, 2), [0, 1, 0, 1])
ROWS = [Read(n % 4 + 1, at=NOON + timedelta(minutes=n)) for n in range(8)]


@pytest.fixture(autouse=True)
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {Path(name): SimpleNamespace(estimator=m, fallback=None) for name, m in (("m", MODEL), ("n", MADE_MODEL))}
    monkeypatch.setattr("lockstep.parity.facts.load_artifact", found.__getitem__)
    monkeypatch.setattr("lockstep.parity.facts.versions", lambda *_: {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    opened = open_world(tmp_path_factory.mktemp("drift"), JUNE, STORED, GIVEN)
    opened.bring(1)
    return opened


def contract_of(service: str) -> FeatureContract:
    return compile_contract(GIVEN, service, TrainingCut(tables=(), spine_hash="h", known_at=JUNE))


DEFAULTS = contract_of(next(iter(SERVICES)))
STORED_VIEW = DEFAULTS.views[0]


def verdict(
    world: World, contract: FeatureContract, folder: str = "m", use_case: UseCase = GIVEN, digest: str = "d"
) -> ParityReport:
    model = Registered(1, Path(folder), digest, contract, {}, {})
    question = Question(True, TICK, TICK + DAY, rows=10)
    return measure(world.settings, use_case, world.lake, world.ledger, model, question)


def with_view(**changes: Any) -> FeatureContract:
    return DEFAULTS.model_copy(update={"views": (STORED_VIEW.model_copy(update=changes),)})


def renamed(column: Column) -> Column:
    return column.model_copy(update={"name": "home_z"}) if column.name == "home_x" else column


def retyped(column: Column) -> Column:
    return column.model_copy(update={"dtype": "string"}) if column.name == "home_x" else column


def columns_by(change: Callable[[Column], Column]) -> tuple[Column, ...]:
    return tuple(map(change, STORED_VIEW.columns))


@pytest.mark.parametrize(
    ("contract", "told"),
    [
        (with_view(columns=columns_by(renamed)), "table customer_profile: it has no column home_z"),
        (
            with_view(columns=columns_by(retyped)),
            "table customer_profile: home_x is double, the contract says string",
        ),
        (
            with_view(join_keys=(Column(name="customer_id", dtype="string"),)),
            "table customer_profile: customer_id is int64, the contract says string",
        ),
        (
            with_view(definition_hash="0" * 64),
            f"view customer_profile has the definition {STORED_VIEW.definition_hash[:12]} now, the contract names 000000000000",
        ),
        (with_view(table="elsewhere"), "the lake has no table elsewhere"),
    ],
)
def test_each_way_in_which_a_stored_view_can_drift_is_told(world: World, contract: FeatureContract, told: str) -> None:
    assert drifted_views(GIVEN, world.lake, contract) == {"customer_profile": told}
    assert drifted_views(GIVEN, world.lake, DEFAULTS) == {}


def test_a_view_that_the_use_case_declares_no_more_has_drifted(world: World) -> None:
    gone = replace(GIVEN, views=())
    assert drifted_views(gone, world.lake, DEFAULTS) == {
        "customer_profile": "the use case declares no view customer_profile"
    }


def fails(report: ParityReport, cause: str, view: str, evidence: str) -> None:
    assert report.verdict is Verdict.FAIL
    assert (report.sample.uniform, report.mismatches, report.scores) == (len(ROWS), len(ROWS), None)
    assert set(report.causes) == {cause}
    found = report.differences[0]
    assert (found.kind, found.view, found.feature, found.cause) == ("consistency", view, None, cause)
    assert evidence in found.evidence


def changed_table(world: World, change: Callable[[pa.Table], pa.Table]) -> None:
    """Have somebody make the table anew, with its rows in other columns."""
    table = change(world.lake.table(PROFILE.table).scan().to_arrow())
    world.lake.drop(PROFILE.table)
    world.lake.ensure_table(PROFILE.table, table.schema)
    world.lake.append(PROFILE.table, table)


def as_integers(table: pa.Table) -> pa.Table:
    at = table.column_names.index("home_x")
    return table.set_column(at, "home_x", table["home_x"].cast(pa.int64()))


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        (
            lambda table: table.rename_columns({"home_x": "home_east"}),
            "table customer_profile: it has no column home_x",
        ),
        (as_integers, "table customer_profile: home_x is int64, the contract says double"),
    ],
)
def test_a_column_that_was_renamed_or_retyped_under_a_model_makes_a_failing_report(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], evidence: str
) -> None:
    world = open_world(tmp_path, JUNE, STORED, GIVEN)
    world.bring(1)
    world.log(DEFAULTS, "d", ROWS)
    changed_table(world, change)
    fails(verdict(world, DEFAULTS), "schema_drift", "customer_profile", evidence)


def test_a_definition_that_was_changed_under_a_model_makes_a_failing_report(world: World) -> None:
    world.log(DEFAULTS, "defined", ROWS)
    assert verdict(world, DEFAULTS, digest="defined").causes == {}
    other = latest_view(
        name=PROFILE.name,
        entity=PROFILE.entity,
        source=PROFILE.source,
        columns={"home_x": "float64", "home_y": "float64", "card_issued_day": "int64"},
        every=PROFILE.every,
        ttl=PROFILE.ttl * 2,
        freshness=PROFILE.freshness,
        owner=PROFILE.owner,
    )
    features = ((other, "home_x"), (other, "home_y"), (other, "card_issued_day"))
    service = FeatureService("defaults", features, "o", policy=SERVICES["defaults"])
    changed = replace(GIVEN, views=(other,), on_demand=(), services=(service,))
    report = verdict(world, DEFAULTS, use_case=changed, digest="defined")
    fails(report, "schema_drift", "customer_profile", "view customer_profile has the definition ")


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ({"source_hash": "0" * 64}, "on-demand view payment: the source of "),
        ({"function": "feature_repo.on_demand.payment:paid"}, "does not import"),
        ({"function": "feature_repo.on_demand.pay:payment"}, "does not import"),
        ({"function": "os:system"}, "is not in the use case"),
    ],
)
def test_an_on_demand_function_that_is_another_one_or_gone_makes_a_failing_report(
    world: World, change: dict[str, str], evidence: str
) -> None:
    contract = contract_of("made")
    functions = load_functions(contract, "feature_repo")
    (payment,) = contract.on_demand
    drifted = contract.model_copy(update={"on_demand": (payment.model_copy(update=change),)})
    digest = str(change)
    world.log(drifted, digest, ROWS, model=MADE_MODEL, functions=functions)
    report = verdict(world, drifted, "n", digest=digest)
    fails(report, "transform", "payment", evidence)


def test_functions_that_are_what_the_contract_names_are_given(world: World) -> None:
    contract = contract_of("made")
    functions, drifted = functions_of(contract, "feature_repo")
    assert (list(functions), drifted) == (["payment"], {})
    digest = "as named"
    world.log(contract, digest, ROWS, model=MADE_MODEL, functions=functions)
    assert verdict(world, contract, "n", digest=digest).causes == {}
