"""A model is judged: its fallback, the champion beside it, both clocks; and what is not registered."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import leaky
import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score
from tiny_lake import KNOWN_AT, fill
from whole import Project, Trained, train_whole

from lockstep.errors import BadInput, Refused, Terminal
from lockstep.offline.registry import apply_definitions
from lockstep.serving.artifact import load_artifact
from lockstep.serving.features import feature_matrix
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training import registry
from lockstep.training.clocks import columns_of, exact_features
from lockstep.training.evaluations import keep_evaluation, load_evaluation
from lockstep.training.fit import fit
from lockstep.training.judge import judge
from lockstep.training.logged import open_logged
from lockstep.training.page import headline
from lockstep.training.protocol import TEST
from lockstep.training.register import register
from lockstep.training.spine import rows_of
from lockstep.training.train import train
from lockstep.training.training_set import build_training_set
from lockstep.views import Ceilings, FeatureService, OnDemandView, StoredView, UseCase, days, reject

DAY_US = 86_400_000_000


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def project(new_settings: Callable[[], Settings], use_case: UseCase) -> Project:
    """The tiny lake, and a model of `fraud_v1` with a fallback."""
    service = use_case.model.service
    fallback = FeatureService(
        name="fallback", features=tuple(f for f in service.features if f[0].name != "terminal_risk"), owner="me"
    )
    services = (*use_case.services, fallback)
    use_case = replace(use_case, services=services, model=replace(use_case.model, fallback=fallback))
    return Project.of(new_settings(), use_case)


def test_the_fallback_is_fitted_on_the_same_rows_and_lies_in_the_same_folder(
    project: Project, trained: Trained
) -> None:
    contract = project.training_set.contract
    assert contract.fallback is not None
    names = [f.name for f in contract.fallback.features]
    assert names == [f.name for f in contract.features if f.view != "terminal_risk"]
    assert [v.name for v in contract.fallback.views] == ["customer_spend"]
    assert contract.fallback.cut == contract.cut
    assert contract.fallback.hash != contract.hash

    train_rows, test_rows = (rows_of(project.rows, split) for split in ("train", "test"))
    by_hand = project.use_case.model.estimator().fit(
        feature_matrix(contract.fallback, train_rows), train_rows["tx_fraud"].to_numpy()
    )
    artifact = load_artifact(trained.model_dir)
    given = feature_matrix(contract.fallback, test_rows)
    assert np.array_equal(artifact.fallback.predict_proba(given), by_hand.predict_proba(given))

    told = trained.evaluation.fallback
    assert told is not None
    assert (told.model.contract, told.service, told.features) == (
        contract.fallback.hash,
        "fallback",
        tuple(names),
    )
    scores = by_hand.predict_proba(given)[:, 1]
    expected = average_precision_score(test_rows["tx_fraud"].to_numpy(), scores)
    assert told.metrics.average_precision == pytest.approx(expected)


def test_the_same_cut_gives_the_same_digest_in_another_tracking_store(
    project: Project, trained: Trained, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = project.settings.model_copy(update={"tracking_url": f"sqlite:///{project.settings.home}/other.db"})

    again = train(elsewhere, project.use_case, project.training_set.table)

    assert again.model != trained.model
    assert again.digest == trained.digest
    assert again.model_dir != trained.model_dir
    assert capfd.readouterr() == ("", "")


def test_a_model_is_told_what_it_was_trained_on(project: Project, trained: Trained) -> None:
    used, span = trained.evaluation.training_set, project.training_set

    assert (used.table, used.known_at) == (span.table, KNOWN_AT)
    assert (used.train.start, used.test.end) == (span.start, span.end)
    assert (used.train.rows, used.test.rows) == (72, 48)
    assert used.train.positives + used.test.positives == span.positives
    assert used.left_out["their event lies between the two"] == 24
    assert used.snapshots == {cut.table: cut.snapshot_id for cut in span.contract.cut.tables}


def test_without_a_champion_a_guess_is_beaten_and_with_one_it_is_the_same_rows_that_decide(
    project: Project, trained: Trained
) -> None:
    settings, table = project.settings, project.training_set.table
    assert trained.evaluation.comparison.champion is None
    assert trained.evaluation.comparison.metrics.average_precision == trained.evaluation.performance.no_skill
    registry.set_alias(settings, "fraud", "champion", trained.version)
    coarse = {"max_iter": 1, "max_leaf_nodes": 2, "min_samples_leaf": 36, "random_state": 0}
    weaker = project.with_model(estimator=lambda: HistGradientBoostingClassifier(**coarse))

    judged = judge(settings, weaker, train(settings, weaker, table).model)
    found = judged.comparison

    assert found.champion is not None
    assert (found.champion.version, found.champion.digest) == (trained.version, trained.digest)
    assert found.incomparable is None
    assert found.metrics == trained.evaluation.performance.metrics
    mine, theirs = judged.performance.metrics, trained.evaluation.performance.metrics
    assert found.average_precision.value == mine.average_precision - theirs.average_precision < 0


def test_a_champion_of_another_service_is_asked_with_its_own_features(project: Project, trained: Trained) -> None:
    """`payment` is in no column of the set of `fraud_v1`: its features are retrieved at the set's cut."""
    settings = project.settings
    plain = build_training_set(settings, project.use_case, known_at=KNOWN_AT, service="payment_only")
    version = train_whole(settings, project.use_case, plain.table)
    assert version.evaluation.fallback is None
    assert version.evaluation.clocks is None
    registry.set_alias(settings, "fraud", "champion", version.version)

    found = judge(settings, project.use_case, trained.model).comparison

    assert found.champion is not None
    assert found.champion.digest == version.digest
    assert found.metrics == version.evaluation.performance.metrics


def edited(project: Project, change: Callable[[StoredView | OnDemandView], Any], **service: Any) -> UseCase:
    """The project with other views, in whatever names them."""
    stored = {view.name: change(view) for view in project.use_case.views}
    on_demand = {
        view.name: replace(view, reads=tuple((stored[source.name], column) for source, column in view.reads))
        for view in project.use_case.on_demand
    }
    views = stored | on_demand

    def of(given: FeatureService, **changes: Any) -> FeatureService:
        return replace(given, features=tuple((views[view.name], name) for view, name in given.features), **changes)

    recipe = project.use_case.model
    assert recipe.fallback is not None
    main, fallback = of(recipe.service, **service), of(recipe.fallback)
    return replace(
        project.use_case,
        views=tuple(stored.values()),
        on_demand=tuple(on_demand.values()),
        services=(main, fallback, of(project.use_case.service("payment_only"))),
        model=replace(recipe, service=main, fallback=fallback),
    )


def test_a_champion_of_other_definitions_is_not_compared_with_and_why_is_said(
    project: Project, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    settings = project.settings
    registry.set_alias(settings, "fraud", "champion", trained.version)
    longer = edited(project, lambda v: replace(v, ttl=v.ttl + days(1)) if v.name == "terminal_risk" else v)
    apply_definitions(settings, longer)
    done = build_training_set(settings, longer, known_at=KNOWN_AT)

    evaluation = judge(settings, longer, train(settings, longer, done.table).model)

    apply_definitions(settings, project.use_case)
    assert evaluation.comparison.champion is None
    assert evaluation.comparison.incomparable == (
        f"champion {trained.version} was trained on other definitions than today's of fraud_v1"
    )
    assert "not compared with the champion" in caplog.text
    assert headline(evaluation).sign != "pass", "a guess is beaten, the champion was not asked"


def test_what_decides_no_value_keeps_no_champion_from_being_asked(project: Project, trained: Trained) -> None:
    """Another owner, another policy, no fallback: the champion answers as it always did."""
    settings = project.settings
    registry.set_alias(settings, "fraud", "champion", trained.version)
    other = edited(project, lambda v: replace(v, owner="somebody else"), policy={"risk_7d": reject()})
    other = replace(other, model=replace(other.model, fallback=None))
    apply_definitions(settings, other)
    done = build_training_set(settings, other, known_at=KNOWN_AT)

    evaluation = judge(settings, other, train(settings, other, done.table).model)

    apply_definitions(settings, project.use_case)
    assert evaluation.comparison.champion is not None
    assert evaluation.comparison.metrics == trained.evaluation.performance.metrics
    # Terminal 5 has no row in `terminal_risk`: such a row is not trained on, and the score of one held out is 0.
    told = evaluation.training_set.left_out
    counts = {why: count for why, count in told.items() if why.startswith("the policy rejects them")}
    assert sum(counts.values()) == sum(key == 5 for key in project.rows["terminal_id"].to_pylist()) > 0
    assert (evaluation.training_set.train.rows, evaluation.performance.rows) == (72, 48), "all are judged on all rows"


def test_a_damaged_champion_does_not_stand_in_the_way_of_a_new_model(project: Project, trained: Trained) -> None:
    settings, table = project.settings, project.training_set.table
    other = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0))
    version = train_whole(settings, other, table)
    registry.set_alias(settings, "fraud", "champion", version.version)
    (version.model_dir / "model.skops").write_bytes(b"PK")

    evaluation = judge(settings, project.use_case, trained.model)

    assert evaluation.comparison.incomparable is not None
    assert "is no skops file" in evaluation.comparison.incomparable
    assert "Hint" not in evaluation.comparison.incomparable
    again = train(settings, other, table)
    assert (again.digest, again.model == version.model) == (version.digest, False), "what was damaged is fitted anew"
    registry.set_alias(settings, "fraud", "champion", trained.version)


def test_a_model_whose_run_was_deleted_is_fitted_anew(project: Project, trained: Trained) -> None:
    settings, table = project.settings, project.training_set.table
    other = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=4, random_state=0))
    first = train(settings, other, table)
    registry.open_client(settings).delete_run(first.run)

    again = train(settings, other, table)

    assert again.model != first.model
    assert judge(settings, other, again.model).model.digest == first.digest
    with pytest.raises(BadInput, match=r"the run of the model .* was deleted"):
        judge(settings, other, first.model)


def test_a_model_is_not_judged_twice_by_the_same_rules_beside_the_same_champion(
    project: Project, trained: Trained
) -> None:
    settings = project.settings
    registry.set_alias(settings, "fraud", "champion", trained.version)
    first = judge(settings, project.use_case, trained.model)
    kept = project.lake.table("evaluations").scan().to_arrow().num_rows

    assert judge(settings, project.use_case, trained.model) == first
    assert project.lake.table("evaluations").scan().to_arrow().num_rows == kept


def test_what_the_gate_decided_on_stays_the_versions_evaluation(project: Project, trained: Trained) -> None:
    settings = project.settings
    other = project.with_model(estimator=lambda: HistGradientBoostingClassifier(max_iter=8, random_state=0))
    done = train_whole(settings, other, project.training_set.table)
    second = done.evaluation.model_copy(update={"created_at": done.evaluation.created_at + timedelta(hours=1)})
    name = keep_evaluation(settings, project.lake, second)

    def tagged() -> str:
        return registry.require_model(settings, "fraud", str(done.version)).tags["lockstep.evaluation"]

    register(settings, other, done.model, name)
    assert tagged() == name
    registry.set_alias(settings, "fraud", "somewhere", done.version, {"lockstep.parity": "passed"})
    register(settings, other, done.model, done.evaluation.hash)
    assert tagged() == name


def test_an_evaluation_by_looser_rules_registers_nothing(project: Project, trained: Trained) -> None:
    """Judged with ceilings that nothing reaches, and then brought to a recipe that has some."""
    strict = project.with_model(ceilings=Ceilings())
    before = project.versions()

    with pytest.raises(Refused, match="it was judged by other rules than today's: ceilings changed"):
        register(project.settings, strict, trained.model, trained.evaluation.hash)

    assert project.versions() == before


def test_a_set_that_todays_recipe_would_not_give_is_not_judged(project: Project, trained: Trained) -> None:
    for changes in (
        {"train": days(2)},
        {"gap": days(0)},
        {"protocol": replace(project.use_case.model.protocol, leave_known_out=True)},
        {"spine": project.use_case.model.spine + " AND transactions.amount_cents < 29000"},
    ):
        with pytest.raises(BadInput, match="was built by another recipe than today's"):
            judge(project.settings, project.with_model(**changes), trained.model)


def test_a_model_of_definitions_that_changed_since_is_not_registered(project: Project, trained: Trained) -> None:
    other = edited(project, lambda v: v, policy={"risk_7d": reject()})

    with pytest.raises(BadInput, match=r"was built from other definitions than today's: features.* changed"):
        register(project.settings, other, trained.model, trained.evaluation.hash)


def test_exact_features_count_what_happened_and_was_known_before_each_row(project: Project) -> None:
    contract, rows = project.training_set.contract, project.rows
    found = exact_features(project.settings, project.use_case, project.lake, contract, rows)

    raw = project.lake.table("transactions").scan().to_arrow().to_pylist()
    names = [f.name for f in contract.features]
    counted = found.vectors[:, names.index("customer_nb_tx_7d")]
    for number, row in list(enumerate(rows.to_pylist()))[::10]:
        t = row["event_timestamp"]
        before = [
            r
            for r in raw
            if r["customer_id"] == row["customer_id"]
            and (t - r["tx_datetime"]).total_seconds() < 7 * 86_400
            and r["ingested_at"] < t
        ]
        assert counted[number] == len(before) + 1, "and the payment at hand"
    assert not np.isnan(found.vectors[:, names.index("risk_7d")]).any(), "an empty window is no null"


def test_a_views_price_is_about_the_features_made_of_it(project: Project, trained: Trained) -> None:
    contract = project.training_set.contract
    made_of = {view: {contract.features[n].view for n in numbers} for view, numbers in columns_of(contract).items()}
    assert made_of == {
        "customer_spend": {"transaction_context"},
        "terminal_risk": {"terminal_risk"},
    }
    clocks = trained.evaluation.clocks
    assert clocks is not None
    assert clocks.metrics["served"] == trained.evaluation.performance.metrics
    assert [(price.view, price.late_s) for price in clocks.prices] == [
        ("customer_spend", 2_400.0),
        ("terminal_risk", 2_400.0),
    ]


def test_a_model_that_raises_an_alarm_is_refused_by_name_kept_and_never_registered(
    project: Project, trained: Trained
) -> None:
    settings, before = project.settings, project.versions()
    strict = project.with_model(ceilings=Ceilings(average_precision=1.0, auc=1.0, one_feature_auc=1.0))
    logged = train(settings, strict, project.training_set.table)

    with pytest.raises(Refused, match=r"leaks: not_as_declared \(customer_spend:nb_tx_1d\)") as refused:
        judge(settings, strict, logged.model)

    kept = refused.value.hint.rpartition(" ")[2]
    with pytest.raises(Refused, match="is not registered: its training raised the alarm not_as_declared"):
        register(settings, strict, logged.model, kept)
    assert project.versions() == before


def test_each_kind_of_leak_that_a_spine_hands_in_is_refused_by_its_name(
    new_settings: Callable[[], Settings], use_case: UseCase
) -> None:
    settings = new_settings().model_copy(update={"use_case": "leaky"})
    recipe = replace(use_case.model, service=leaky.SERVICE, spine=leaky.SPINE)
    columns = ("customer_id", "terminal_id", *recipe.spine_tables["labels"])
    recipe = replace(recipe, spine_tables={**recipe.spine_tables, "labels": columns})
    leaking = replace(use_case, on_demand=(leaky.GIVEN,), services=(leaky.SERVICE,), model=recipe)
    lake = fill(settings, leaking)
    done = build_training_set(settings, leaking, known_at=KNOWN_AT)
    logged = train(settings, leaking, done.table)

    with pytest.raises(Refused) as refused:
        judge(settings, leaking, logged.model)

    for leak in leaky.LEAKS:
        assert f"{leak} ({leak}_in (spine))" in str(refused.value)
    kept = load_evaluation(settings, lake, refused.value.hint.rpartition(" ")[2])
    assert {a.name: a.subject for a in kept.alarms} == {leak: f"{leak}_in (spine)" for leak in leaky.LEAKS}
    assert registry.find_model(settings, "fraud", "challenger") is None


def test_an_evaluation_of_another_model_registers_none(project: Project, trained: Trained) -> None:
    foreign = trained.evaluation.model_copy(
        update={"model": trained.evaluation.model.model_copy(update={"digest": "f" * 64})}
    )
    name = keep_evaluation(project.settings, project.lake, foreign)

    with pytest.raises(Refused, match=f"the evaluation is of model ffffffffffff, not {trained.digest[:12]}"):
        register(project.settings, project.use_case, trained.model, name)
    with pytest.raises(BadInput, match="there is no evaluation 'made-up'"):
        register(project.settings, project.use_case, trained.model, "made-up")


def test_a_model_that_is_not_there_or_was_changed_is_not_judged(project: Project, trained: Trained) -> None:
    with pytest.raises(BadInput, match="there is no model 'm-nope'"):
        judge(project.settings, project.use_case, "m-nope")
    described = trained.model_dir / "MLmodel"
    text = described.read_text()
    described.write_text(text.replace("owner: fraud-ml", "owner: somebody"))
    try:
        with pytest.raises(Terminal, match=f"the model {trained.model} is not what was logged"):
            open_logged(project.settings, trained.model)
    finally:
        described.write_text(text)


def test_a_feature_without_any_value_is_refused_before_an_estimator_fails_at_it(project: Project) -> None:
    empty = project.rows.set_column(
        project.rows.column_names.index("risk_7d"), "risk_7d", pa.nulls(project.rows.num_rows, pa.float64())
    )
    with pytest.raises(BadInput, match="none of the 72 rows to train on has a value of terminal_risk:risk_7d"):
        fit(project.use_case.model, project.training_set.contract, empty)


def test_the_report_lies_beside_the_run(project: Project, trained: Trained) -> None:
    client = registry.open_client(project.settings)
    run = open_logged(project.settings, trained.model).run

    assert {artifact.path for artifact in client.list_artifacts(run)} >= {"evaluation.html", "evaluation.json"}
    page = registry.local_folder(client.get_run(run).info.artifact_uri) / "evaluation.html"
    assert "frauds" in page.read_text()
    assert rows_of(project.rows, TEST).num_rows == trained.evaluation.performance.rows
