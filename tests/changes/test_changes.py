"""Each kind of change, made on purpose to the reference use case, and what it is said to take."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from feature_repo.definitions import use_case as reference
from lockstep.changes import Change, Consequence, Definitions, Plan, Subject, compare, describe
from lockstep.changes.describe import OnDemandFacts
from lockstep.contract import Column, FeatureContract
from lockstep.views import NullPolicy, UseCase, days, default, hard, hours, minutes
from lockstep.views.declare import OnDemandView, StoredView

CHAMPION = "fraud 2 (champion)"
NOW = describe(reference)
assert NOW.contract is not None
IN_USE = {CHAMPION: NOW.contract}
NONE, REGISTER, RETRAIN = Consequence.NONE, Consequence.REGISTER, Consequence.RETRAIN
SWEEP, BACKFILL, VERSION, BREAKS = Consequence.SWEEP, Consequence.BACKFILL, Consequence.VERSION, Consequence.BREAKS


def with_view(name: str, **changes: Any) -> UseCase:
    """The reference use case with one stored view changed, wherever it is named."""

    def new(view: StoredView | OnDemandView) -> Any:
        if isinstance(view, OnDemandView):
            return replace(view, reads=tuple((new(source), column) for source, column in view.reads))
        return replace(view, **changes) if view.name == name else view

    services = tuple(
        replace(s, features=tuple((new(view), feature) for view, feature in s.features)) for s in reference.services
    )
    return replace(
        reference,
        views=tuple(map(new, reference.views)),
        on_demand=tuple(map(new, reference.on_demand)),
        services=services,
        model=replace(reference.model, service=next(s for s in services if s.name == reference.model.service.name)),
    )


def the_plan(new: UseCase, models: dict[str, FeatureContract] | None = None, old: Definitions = NOW) -> Plan:
    return compare(old, describe(new), IN_USE if models is None else models)


def the_only(plan: Plan) -> Subject:
    [subject] = plan.subjects
    return subject


def told(subject: Subject) -> list[tuple[str, str, str, Consequence]]:
    return [(c.what, c.old, c.new, c.consequence) for c in subject.changes]


def test_two_equal_revisions_differ_in_nothing() -> None:
    plan = the_plan(reference)
    assert (plan.subjects, plan.changed_views, plan.refused, plan.needs_work) == ((), (), (), False)


SPEND, PROFILE = reference.view("customer_spend"), reference.view("customer_profile")
_TAGS = "domain=customers, pii=yes, tier=3"
LATER = replace(SPEND.source, table="payments_v2")
BY_EVENT = replace(SPEND.source, known_at="tx_datetime")
BY_TEXT = replace(SPEND.entity, dtype="string")


@pytest.mark.parametrize(
    ("view", "changes", "expected"),
    [
        (
            "customer_spend",
            {"windows": [days(1), days(7), days(30), days(90)]},
            [("windows", "1, 7, 30 d", "1, 7, 30, 90 d", VERSION)],
        ),
        (
            "terminal_risk",
            {"delay": days(6)},
            [("delay", "7 d", "6 d", BACKFILL), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        ("customer_spend", {"every": hours(2)}, [("every", "1 h", "2 h", VERSION)]),
        (
            "customer_spend",
            {"every": minutes(30)},
            [("every", "1 h", "30 min", BACKFILL), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        ("customer_spend", {"source": LATER}, [("source", "transactions", "payments_v2", VERSION)]),
        (
            "customer_spend",
            {"source": BY_EVENT},
            [("known at", "ingested_at", "tx_datetime", BACKFILL), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        ("customer_spend", {"entity": BY_TEXT}, [("join key", "customer_id int64", "customer_id string", VERSION)]),
        (
            "customer_spend",
            {"ttl": days(10)},
            [("ttl", "3 d", "10 d", BACKFILL), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        (
            "customer_spend",
            {"ttl": days(2)},
            [("ttl", "3 d", "2 d", REGISTER), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        (
            "customer_spend",
            {"ttl": timedelta(0)},
            [("ttl", "3 d", "for ever", REGISTER), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        (
            "customer_spend",
            {"visible_lag": minutes(9)},
            [("visible lag", "5 min", "9 min", REGISTER), (f"model {CHAMPION}", "", "", RETRAIN)],
        ),
        ("customer_spend", {"compute_lag": minutes(9)}, [("compute lag", "5 min", "9 min", REGISTER)]),
        ("terminal_activity", {"freshness": hard(hours(4))}, [("freshness", "6 h soft", "4 h hard", REGISTER)]),
        ("customer_profile", {"owner": "crm"}, [("owner", PROFILE.owner, "crm", REGISTER)]),
        ("customer_profile", {"tags": {"pii": "yes"}}, [("tags", _TAGS, "pii=yes", REGISTER)]),
        (
            "customer_profile",
            {"columns": {"home_x": "float64", "home_y": "float32", "segment": "string", "zip": "string"}},
            [("columns", "home_y(float64), card_issued_day(int64)", "home_y(float32), zip(string)", VERSION)],
        ),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else None,
)
def test_what_a_change_of_a_stored_view_takes(
    view: str, changes: dict[str, Any], expected: list[tuple[str, str, str, Consequence]]
) -> None:
    subject = the_only(the_plan(with_view(view, **changes)))
    assert (subject.kind, subject.name) == ("stored view", view)
    assert told(subject) == expected


def test_a_sum_of_another_column_is_corrected_in_place_where_the_table_s_columns_stay() -> None:
    measures = [replace(m, column="fee_cents") if m.name == "amount_cents" else m for m in SPEND.measures]
    change = the_only(the_plan(with_view("customer_spend", measures=measures), {})).changes[0]
    assert change == Change(
        "measures",
        "amount_cents(amount_cents)",
        "amount_cents(fee_cents)",
        BACKFILL,
        "live ticks are refused until the computed ones are corrected under this definition",
    )


def test_a_column_that_a_table_does_not_have_is_named_in_the_reason() -> None:
    change = the_only(the_plan(with_view("terminal_activity", windows=[days(1)]))).changes[0]
    assert change.consequence is VERSION
    assert change.why.startswith("table terminal_activity has other columns (-")


@pytest.mark.parametrize(
    ("before", "after", "consequence"),
    [
        (days(30), days(14), BACKFILL),  # repeated every 15 days: beyond the new ttl
        (days(30), days(29), REGISTER),
        (timedelta(0), days(30), BACKFILL),  # never repeated
        (days(30), timedelta(0), REGISTER),
        (days(30), days(60), REGISTER),
    ],
)
def test_a_shorter_ttl_of_a_latest_view_takes_a_back_fill_where_rows_were_repeated_too_seldom(
    before: timedelta, after: timedelta, consequence: Consequence
) -> None:
    old = describe(with_view("customer_profile", ttl=before))
    assert the_only(the_plan(with_view("customer_profile", ttl=after), old=old)).consequence is consequence


@pytest.mark.parametrize("changes", [{"delay": days(6)}, {"ttl": days(9)}, {"visible_lag": minutes(9)}], ids="-".join)
def test_a_change_back_to_what_a_model_was_trained_on_takes_no_training(changes: dict[str, Any]) -> None:
    old = describe(with_view("terminal_risk", **changes))
    consequences = {change.consequence for change in the_only(the_plan(reference, old=old)).changes}
    assert consequences <= {BACKFILL, REGISTER}


def test_whom_a_view_touches_is_read_through_on_demand_views_services_and_contracts() -> None:
    touched = the_only(the_plan(with_view("customer_spend", ttl=days(4)))).touched
    assert touched.tables == ("customer_spend",)
    assert touched.on_demand == ("transaction_context", "amount_deviation")
    assert touched.services == ("fraud_v1", "fraud_v2", "fraud_v2_fallback")
    assert touched.models == (CHAMPION,)
    unread = the_only(the_plan(with_view("terminal_activity", ttl=days(4)))).touched
    assert (unread.services, unread.models) == ((), ())


def without_view(name: str) -> Definitions:
    return NOW.model_copy(update={"views": tuple(v for v in NOW.views if v.name != name)})


def test_a_new_view_is_back_filled() -> None:
    subject = the_only(compare(without_view("customer_profile"), NOW, IN_USE))
    assert told(subject) == [("view", "", "latest view of customer, 4 features, every 1 d", BACKFILL)]
    assert (subject.is_new, subject.is_view) == (True, True)


def test_a_view_that_nothing_reads_goes_and_is_swept_and_one_that_a_model_reads_stays() -> None:
    gone = the_only(compare(NOW, without_view("customer_profile"), IN_USE))
    assert (gone.consequence, gone.is_gone, gone.is_view) == (SWEEP, True, False)
    plan = compare(NOW, without_view("terminal_risk"), IN_USE)
    assert the_only(plan).consequence is BREAKS
    assert plan.refused[0].changes[0].why.startswith(f"{CHAMPION} reads it")
    assert the_only(compare(NOW, without_view("terminal_risk"), {})).consequence is SWEEP


def edited(name: str = "transaction_context", **changes: Any) -> Definitions:
    """The definitions after an on-demand view was changed; with `source_hash` its source was edited."""

    def new(view: OnDemandFacts) -> OnDemandFacts:
        return view.model_copy(update=changes) if view.name == name else view

    views = tuple(map(new, NOW.on_demand))
    return NOW.model_copy(
        update={"on_demand": views, "functions": {v.function: v.source_hash for v in views} | changes.get("at", {})}
    )


def test_a_published_function_is_not_edited_and_an_unpublished_one_is() -> None:
    subject = the_only(compare(NOW, edited(source_hash="f" * 64), IN_USE))
    assert [c.consequence for c in subject.changes] == [VERSION]
    assert f"the contract of {CHAMPION} names the old source" in subject.changes[0].why
    assert the_only(compare(NOW, edited(source_hash="f" * 64), {})).consequence is REGISTER
    # No model reads it.
    assert the_only(compare(NOW, edited("terminal_distance", source_hash="f" * 64), IN_USE)).consequence is REGISTER


def test_an_edit_that_goes_back_to_what_the_model_was_trained_with_is_no_edit_of_it() -> None:
    back = compare(edited(source_hash="f" * 64), NOW, IN_USE)
    assert the_only(back).consequence is REGISTER


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": (Column(name="tx_amount", dtype="float64"),)},
        {"inputs": (Column(name="amount_cents", dtype="float64"),)},
        {"reads": (("customer_spend", "nb_tx_1d"),)},
        {"function": "feature_repo.on_demand.payment:payment"},
    ],
    ids="-".join,
)
def test_what_a_published_on_demand_view_takes_and_gives_is_not_changed(changes: dict[str, Any]) -> None:
    assert the_only(compare(NOW, edited(**changes), IN_USE)).consequence is VERSION
    assert the_only(compare(NOW, edited(**changes), {})).consequence is REGISTER


def test_an_on_demand_view_that_is_gone_breaks_the_models_that_were_trained_with_it() -> None:
    views = tuple(v for v in NOW.on_demand if v.name != "amount_deviation")
    functions = {v.function: v.source_hash for v in views} | {
        "feature_repo.on_demand.deviation:amount_deviation": None
    }
    gone = NOW.model_copy(update={"on_demand": views, "functions": functions})
    assert the_only(compare(NOW, gone, IN_USE)).changes[0].why.endswith("its transformer would not start")
    assert the_only(compare(NOW, gone, {})).consequence is NONE


def with_service(name: str, change: Callable[[tuple[tuple[str, str], ...]], Any]) -> Definitions:
    services = tuple(
        s.model_copy(update={"features": change(s.features)}) if s.name == name else s for s in NOW.services
    )
    return NOW.model_copy(update={"services": services})


def test_a_service_that_a_model_was_trained_on_may_grow_and_not_shrink() -> None:
    grown = the_only(compare(NOW, with_service("fraud_v2", lambda fs: (*fs, ("payment", "tx_amount"))), IN_USE))
    assert told(grown) == [("features", "", "payment:tx_amount", RETRAIN)]
    shrunk = the_only(compare(NOW, with_service("fraud_v2", lambda fs: fs[:-1]), IN_USE))
    assert told(shrunk) == [("features", "amount_deviation:amount_zscore_30d", "", VERSION)]
    assert shrunk.touched.models == (CHAMPION,)
    other = the_only(compare(NOW, with_service("payment_only", lambda fs: fs[:-1]), IN_USE))
    assert other.consequence is REGISTER


def test_a_service_that_is_gone_breaks_its_models_alone() -> None:
    def without(name: str) -> Definitions:
        return NOW.model_copy(update={"services": tuple(s for s in NOW.services if s.name != name)})

    assert the_only(compare(NOW, without("fraud_v2"), IN_USE)).consequence is BREAKS
    assert the_only(compare(NOW, without("fraud_v1"), IN_USE)).consequence is NONE


def with_policy(name: str, **policy: NullPolicy) -> UseCase:
    """The reference use case, one of its services with another policy."""
    new = {s.name: replace(s, policy=policy) if s.name == name else s for s in reference.services}
    recipe = reference.model
    assert recipe.fallback is not None
    made = replace(recipe, service=new[recipe.service.name], fallback=new[recipe.fallback.name])
    return replace(reference, services=tuple(new.values()), model=made)


def test_the_fallback_s_service_is_one_that_a_model_was_trained_on() -> None:
    name = "fraud_v2_fallback"
    assert reference.model.fallback is not None
    first = "{0.view}:{0.feature}".format(reference.model.fallback.refs[0])

    shrunk = the_only(compare(NOW, with_service(name, lambda fs: fs[1:]), IN_USE))
    assert told(shrunk) == [("features", first, "", VERSION)]
    assert shrunk.changes[0].why == f"{CHAMPION} was trained on {first}: its parity could not be verified"
    assert shrunk.touched.models == (CHAMPION,)
    assert the_only(compare(NOW, with_service(name, lambda fs: fs[1:]), {})).consequence is RETRAIN
    assert the_only(the_plan(with_policy(name, tx_amount=default(0)))).consequence is RETRAIN
    unused = with_policy("payment_only", tx_amount=default(0))
    assert the_only(the_plan(unused)).consequence is NONE

    services = tuple(s for s in reference.services if s.name != name)
    gone = the_plan(replace(reference, services=services, model=replace(reference.model, fallback=None)))
    assert [(s.kind, s.consequence, s.touched.models) for s in gone.subjects] == [
        ("service", BREAKS, (CHAMPION,)),
        ("model", RETRAIN, (CHAMPION,)),
    ]


def test_numbers_that_differ_in_a_late_digit_are_told_apart() -> None:
    old = describe(with_policy("fraud_v2", tx_amount=default(1234567)))
    policy = the_only(the_plan(with_policy("fraud_v2", tx_amount=default(1234568)), old=old))
    assert told(policy) == [("policy", "tx_amount: default 1234567", "tx_amount: default 1234568", RETRAIN)]

    recipe = reference.model
    higher = replace(recipe, ceilings=replace(recipe.ceilings, auc=0.9950000001))
    [ceilings] = told(the_only(the_plan(replace(reference, model=higher))))
    assert (ceilings[0], "auc 0.995," in ceilings[1], "auc 0.9950000001," in ceilings[2]) == ("ceilings", True, True)
    lower = replace(recipe, thresholds=replace(recipe.thresholds, auc=0.7500000001))
    assert told(the_only(the_plan(replace(reference, model=lower)))) == [
        ("threshold auc", "0.75", "0.7500000001", NONE)
    ]


def test_what_the_recipe_says_is_in_effect_with_the_next_training_and_its_thresholds_at_once() -> None:
    recipe = reference.model
    shorter = replace(reference, model=replace(recipe, train=days(14)))
    assert told(the_only(the_plan(shorter))) == [
        ("days", "train 21 d, gap 7 d, test 7 d", "train 14 d, gap 7 d, test 7 d", RETRAIN)
    ]
    later = replace(reference, model=replace(recipe, gap=days(7) + hours(12)))
    assert told(the_only(the_plan(later)))[0][2] == "train 21 d, gap 180 h, test 7 d"
    stricter = replace(reference, model=replace(recipe, thresholds=replace(recipe.thresholds, auc=0.8)))
    plan = the_plan(stricter)
    assert told(the_only(plan)) == [("threshold auc", "0.75", "0.8", NONE)]
    assert not plan.needs_work


def test_who_owns_a_raw_table_changes_nothing() -> None:
    sources = tuple(s.model_copy(update={"owner": "x"}) if s.table == "labels" else s for s in NOW.sources)
    subject = the_only(compare(NOW, NOW.model_copy(update={"sources": sources}), IN_USE))
    assert (subject.consequence, subject.touched.views) == (NONE, ("terminal_risk",))


def test_another_project_finds_nothing_of_the_old_one() -> None:
    plan = compare(NOW, NOW.model_copy(update={"project": "scam"}), IN_USE)
    assert [(s.kind, s.consequence) for s in plan.subjects] == [("project", BREAKS)]


def test_a_use_case_that_is_new_is_new_in_all_its_parts() -> None:
    plan = compare(None, NOW, {})
    assert {s.is_new for s in plan.subjects} == {True}
    assert plan.changed_views == tuple(v.name for v in (*NOW.views, *NOW.on_demand))
    assert plan.refused == ()


def test_owner_description_and_tags_make_no_view_a_changed_one() -> None:
    assert the_plan(with_view("customer_profile", owner="crm", description="x")).changed_views == ()
    assert the_plan(with_view("customer_profile", owner="crm", ttl=days(60))).changed_views == ("customer_profile",)
