"""A view's table that was written with a leak is refused by the leak's name; one that is merely wrong is not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from feature_repo.definitions import use_case as fraud
from lockstep.clock import to_micros
from lockstep.contract import TrainingCut
from lockstep.training.contract import compile_contract
from lockstep.training.leaks.flips import flip_leaks
from lockstep.training.leaks.stored import audit
from lockstep.views import UseCase, WindowedView, count, days, hours, latest_view, total
from lockstep.views.naive import SourceRow, value_at

START = to_micros(datetime(2018, 5, 1, tzinfo=UTC))
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
TERMINALS, PAYMENTS, DAYS = 5, 2_000, 30
LABEL = "tx_fraud"

_RISK, _SPEND = fraud.view("terminal_risk"), fraud.view("customer_spend")
assert isinstance(_RISK, WindowedView)
assert isinstance(_SPEND, WindowedView)
RISK: WindowedView = replace(_RISK, windows=[days(1), days(3)], delay=days(4))
SPEND: WindowedView = replace(_SPEND, windows=[days(1), days(3)])


def moments(micros: NDArray[np.int64]) -> pa.Array:
    return pa.array(micros, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def made(view: WindowedView, known_after: int) -> pa.Table:
    """The view's source: a payment every 20 minutes or so, a fifth of them fraud."""
    rng = np.random.default_rng(5)
    time = START + np.sort(rng.integers(0, DAYS * DAY, PAYMENTS))
    return pa.table(
        {
            view.entity.join_key: rng.integers(0, TERMINALS, PAYMENTS),
            view.source.event_time: moments(time),
            view.source.known_at: moments(time + known_after),
            "amount_cents": rng.integers(100, 9_000, PAYMENTS),
            LABEL: (rng.random(PAYMENTS) < 0.2).astype(np.int64),
        }
    )


LABELS, PAID = made(RISK, 4 * DAY), made(SPEND, 2 * SECOND)


def by_key(view: WindowedView, source: pa.Table) -> dict[int, list[SourceRow]]:
    times = (source[name].cast(pa.int64()).to_pylist() for name in (view.source.event_time, view.source.known_at))
    found: dict[int, list[SourceRow]] = {key: [] for key in range(TERMINALS)}
    for key, event, known, row in zip(
        source[view.entity.join_key].to_pylist(), *times, source.to_pylist(), strict=True
    ):
        found[key].append(SourceRow(event, known, row))
    return found


def written(view: WindowedView, source: pa.Table, leak: str = "", rows: int = 120) -> pa.Table:
    """The view's table as somebody would write it: by its definition, or with a leak, each value summed in plain Python."""
    rng, sources = np.random.default_rng(6), by_key(view, source)
    ticks = START + rng.integers(8 * 24, (DAYS - 4) * 24, rows) * HOUR
    key = rng.integers(0, TERMINALS, rows)
    told: list[dict[str, Any]] = []
    if leak == "current_row":  # a row for each event, at its very time
        place = rng.integers(PAYMENTS // 3, PAYMENTS, rows)
        ticks = source[view.source.event_time].cast(pa.int64()).to_numpy()[place]
        key = source[view.entity.join_key].to_numpy()[place]
    for tick, of in zip(ticks.tolist(), key.tolist(), strict=True):
        known = sources[of]
        if not leak:
            told.append(value_at(view, known, tick, tick + 5 * 60 * SECOND) or {})
            continue
        values: dict[str, Any] = {}
        for window in view.windows:
            width = window // timedelta(microseconds=1)
            reach = {
                "label_without_delay": (tick - width, tick),
                "future_window": (tick, tick + width),
                "current_row": (tick - width, tick + 1),
                "whole_history_rate": (0, 1 << 62),
            }[leak]
            inside = [row.values for row in known if reach[0] <= row.event_us < reach[1]]
            for measure in view.measures:
                numbers = [1 if measure.column is None else row[measure.column] for row in inside]
                values[view.column(measure.name, window)] = sum(n**2 if measure.squared else n for n in numbers)
            for share in view.ratios:
                above, below = (values[view.column(of, window)] for of in (share.numerator, share.denominator))
                values[view.column(share.name, window)] = above / below if below else share.empty
        told.append(values)
    columns = {name: [values[name] for values in told] for name in view.features}
    times = {"event_timestamp": moments(ticks), "created_timestamp": moments(ticks + 5 * 60 * SECOND)}
    return pa.table({view.entity.join_key: key, **columns, **times}).cast(view.schema)


@pytest.mark.parametrize(("view", "source"), [(RISK, LABELS), (SPEND, PAID)], ids=["labels", "payments"])
def test_a_table_that_says_what_its_view_declares_raises_no_alarm(view: WindowedView, source: pa.Table) -> None:
    found = audit(view, LABEL, written(view, source), source)
    assert (found.alarms, found.rows, found.unexplained) == ((), 120, {})


@pytest.mark.parametrize(
    ("view", "source", "leak"),
    [
        (RISK, LABELS, "label_without_delay"),
        (RISK, LABELS, "future_window"),
        (RISK, LABELS, "whole_history_rate"),
        (SPEND, PAID, "future_window"),
        (SPEND, PAID, "current_row"),
        (SPEND, PAID, "whole_history_rate"),
    ],
)
def test_a_table_that_was_written_with_a_leak_is_named_after_it(
    view: WindowedView, source: pa.Table, leak: str
) -> None:
    found = audit(view, LABEL, written(view, source, leak), source)
    assert {(a.name, a.subject) for a in found.alarms} == {(leak, f"{view.name}:{name}") for name in view.features}
    assert found.unexplained == {}


def test_a_correction_says_what_was_read_the_first_time_and_is_no_other_value() -> None:
    late = made(SPEND, 2 * SECOND)
    time = late["tx_datetime"].cast(pa.int64()).to_numpy()
    known = moments(time + np.where(np.arange(PAYMENTS) % 4 == 0, 2 * DAY, 2 * SECOND))
    late = late.set_column(late.column_names.index("ingested_at"), "ingested_at", known)
    first = written(SPEND, late)
    ticks = first["event_timestamp"].cast(pa.int64()).to_numpy()
    place = first.column_names.index("created_timestamp")
    corrected = first.set_column(place, first.schema.field("created_timestamp"), moments(ticks + 9 * DAY))
    assert audit(SPEND, LABEL, corrected, late).alarms == ()
    too_much = corrected.set_column(
        first.column_names.index("nb_tx_1d"), "nb_tx_1d", pa.array(first["nb_tx_1d"].to_numpy() + 1_000)
    )
    assert [a.subject for a in audit(SPEND, LABEL, too_much, late).alarms] == ["customer_spend:nb_tx_1d"]


def test_of_a_table_only_the_feature_that_leaks_is_named_with_an_example() -> None:
    right, leaking = written(RISK, LABELS), written(RISK, LABELS, "label_without_delay")
    place = right.column_names.index("risk_3d")
    (found,) = audit(RISK, LABEL, right.set_column(place, "risk_3d", leaking["risk_3d"]), LABELS).alarms
    assert (found.name, found.subject) == ("label_without_delay", "terminal_risk:risk_3d")
    assert "of 120 sampled rows are not what the view declares" in found.evidence
    assert "windows without the delay, known or not, as 0." in found.evidence
    assert RISK.entity.join_key not in found.evidence, "an erased key is not looked for in evaluations"


def test_a_table_that_is_wrong_in_another_way_is_counted_and_said() -> None:
    right = written(SPEND, PAID)
    doubled = pa.array(right["amount_cents_1d"].to_numpy() * 2 + 1)
    nothing = pa.array(np.zeros(120, np.int64))
    wrong = right.set_column(right.column_names.index("amount_cents_1d"), "amount_cents_1d", doubled)
    wrong = wrong.set_column(right.column_names.index("nb_tx_3d"), "nb_tx_3d", nothing)
    found = audit(SPEND, LABEL, wrong, PAID, tolerated=1.0)
    assert (found.alarms, dict(found.unexplained)) == ((), {"amount_cents_1d": 120, "nb_tx_3d": 120})
    strict = audit(SPEND, LABEL, wrong, PAID)
    assert strict.unexplained == found.unexplained
    assert [(a.name, a.subject) for a in strict.alarms] == [
        ("not_as_declared", "customer_spend:nb_tx_3d"),
        ("not_as_declared", "customer_spend:amount_cents_1d"),
    ]
    assert strict.alarms[0].evidence.startswith(
        "120 of 120 sampled rows are not what the view declares, by no leak known"
    )


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_what_is_wrong_in_another_way_is_an_alarm_above_the_share_that_a_recipe_tolerates(share: float) -> None:
    right = written(SPEND, PAID)
    values = right["amount_cents_1d"].to_numpy().copy()
    values[:6] += 1
    wrong = right.set_column(right.column_names.index("amount_cents_1d"), "amount_cents_1d", pa.array(values))
    found = audit(SPEND, LABEL, wrong, PAID, tolerated=share)
    assert [a.name for a in found.alarms] == (["not_as_declared"] if share < 6 / 120 else [])


def test_attributes_that_a_latest_view_does_not_declare_are_an_alarm() -> None:
    view = latest_view(
        name="last_paid",
        entity=SPEND.entity,
        source=SPEND.source,
        columns={"amount_cents": "int64"},
        every=hours(1),
        ttl=days(30),
        freshness=SPEND.freshness,
        owner="me",
        description="What was paid last.",
    )
    ticks, sources = START + np.arange(9 * 24, 15 * 24) * HOUR, by_key(SPEND, PAID)
    key = np.arange(len(ticks)) % TERMINALS
    newest = [
        max(
            (row for row in sources[of] if row.event_us < tick and row.known_us <= tick + SECOND),
            key=lambda row: row.event_us,
        ).values["amount_cents"]
        for of, tick in zip(key.tolist(), ticks.tolist(), strict=True)
    ]
    times = {"event_timestamp": moments(ticks), "created_timestamp": moments(ticks + SECOND)}
    rows = pa.table({SPEND.entity.join_key: key, "amount_cents": newest, **times}).cast(view.schema)
    assert audit(view, LABEL, rows, PAID).alarms == ()
    newest[7] += 1
    wrong = rows.set_column(1, "amount_cents", pa.array(newest, pa.int64()))
    (found,) = audit(view, LABEL, wrong, PAID).alarms
    assert (found.name, found.subject) == ("not_as_declared", "last_paid:amount_cents")


def test_a_few_rows_that_a_leak_explains_are_no_leak() -> None:
    right, leaking = written(SPEND, PAID), written(SPEND, PAID, "future_window")
    mixed = pa.concat_tables([right.slice(0, 116), leaking.slice(116)])
    found = audit(SPEND, LABEL, mixed, PAID)
    assert {a.name for a in found.alarms} == {"not_as_declared"}
    assert found.unexplained["nb_tx_3d"] <= 4


def test_an_average_that_another_engine_divided_is_the_same_value() -> None:
    right = written(RISK, LABELS)
    nearly = pa.array(np.nextafter(right["risk_3d"].to_numpy(), 2))
    changed = right.set_column(right.column_names.index("risk_3d"), "risk_3d", nearly)
    assert audit(RISK, LABEL, changed, LABELS).unexplained == {}


def case(view: WindowedView) -> UseCase:
    """The use case with another `terminal_risk` and a model of it, whose labels nobody knows for four days."""
    service = replace(
        fraud.service("payment_only"), features=tuple((view, n) for n in ("nb_tx_1d", "risk_1d", "risk_3d"))
    )
    views = tuple(view if v.name == view.name else v for v in fraud.views)
    model = replace(fraud.model, service=service, fallback=None, gap=days(4))
    return replace(fraud, views=views, services=(service,), model=model)


def flips(view: WindowedView, source: pa.Table, known_after: int | None = None) -> list[tuple[str, str, str]]:
    """Return the alarms of 60 rows, one for each of the last events of ten days before; their spine may say what was known."""
    use_case = case(view)
    contract = compile_contract(
        use_case, "payment_only", TrainingCut(tables=(), spine_hash="", known_at=datetime.now(UTC))
    )
    time = source["tx_datetime"].cast(pa.int64()).to_numpy()
    asked = np.flatnonzero(time < START + 20 * DAY)[-60:]
    rows = pa.table({"terminal_id": source["terminal_id"].take(asked), "event_timestamp": moments(time[asked])})
    if known_after is not None:
        rows = rows.append_column("labelled_at", moments(time[asked] + known_after))
    found = flip_leaks(use_case, contract, {view.name: source}, rows, lambda vectors: vectors[:, 2])
    return [(a.name, a.subject, a.evidence) for a in found]


AT_ONCE = replace(RISK, delay=days(0), source=replace(RISK.source, known_at="tx_datetime"))
"""The view of a source that is declared to know its labels at once, whatever their own column says."""


def test_scores_stay_when_labels_are_flipped_that_the_views_delay_leaves_out() -> None:
    assert flips(RISK, LABELS) == []


def test_scores_stay_when_the_source_says_that_labels_were_not_known_yet() -> None:
    assert flips(replace(RISK, delay=days(0)), LABELS) == []


def test_labels_that_are_known_long_before_the_gap_is_over_may_be_used_then() -> None:
    fast = made(RISK, DAY)
    assert flips(replace(RISK, delay=days(1)), fast, DAY) == []
    assert flips(replace(AT_ONCE, delay=days(1)), fast, DAY) == []
    assert {f[:2] for f in flips(replace(AT_ONCE, delay=hours(23)), fast, DAY)} == {
        ("label_without_delay", f"terminal_risk:{name}") for name in ("nb_tx_1d", "risk_1d", "risk_3d")
    }


def test_known_times_of_another_name_are_believed_as_far_as_the_spine_confirms_them() -> None:
    names = ["seen_at" if name == "labelled_at" else name for name in LABELS.column_names]
    view = replace(RISK, delay=days(0), source=replace(RISK.source, known_at="seen_at"))
    fast = made(RISK, DAY).rename_columns(names)
    assert flips(view, fast, DAY) == []
    assert {f[0] for f in flips(view, fast, 2 * DAY)} == {"label_without_delay"}, "claimed a day too early"
    assert {f[0] for f in flips(view, fast)} == {"label_without_delay"}, "nothing confirms them"


def test_known_times_earlier_than_the_spine_says_are_not_believed() -> None:
    lying = made(RISK, 0)
    assert {f[0] for f in flips(replace(RISK, delay=days(2)), lying, 4 * DAY)} == {"label_without_delay"}
    assert flips(replace(RISK, delay=days(4)), lying, 4 * DAY) == []


def test_scores_that_change_with_labels_which_nobody_knew_name_the_features() -> None:
    found = flips(AT_ONCE, LABELS)
    assert [f[:2] for f in found] == [
        ("label_without_delay", "terminal_risk:nb_tx_1d"),
        ("label_without_delay", "terminal_risk:risk_1d"),
        ("label_without_delay", "terminal_risk:risk_3d"),
    ], "that there is a label, nobody knew either"
    assert found[1][2] == (
        "with other labels, or none, where none was known yet, it changes in 60 of 60 held-out rows, the latest at "
        "2018-05-20T23:54:34.258720+00:00; 60 scores change"
    )


def test_kinds_of_positives_are_labels_too() -> None:
    kinds = LABELS.rename_columns(["tx_fraud_scenario" if name == LABEL else name for name in LABELS.column_names])
    measured = replace(
        AT_ONCE,
        measures=[count("nb_tx"), total("tx_fraud_scenario", "nb_fraud")],
    )
    assert ("label_without_delay", "terminal_risk:risk_3d") in {f[:2] for f in flips(measured, kinds)}
