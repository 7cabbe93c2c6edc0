"""What the spine's SQL works out of rows that nobody knew yet is refused by name; what serving could know is not."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tiny_lake import KNOWN_AT, payments

from feature_repo.definitions import use_case as fraud
from lockstep.clock import MICROSECOND, to_micros
from lockstep.errors import UseCaseError
from lockstep.training.leaks.alarm import Alarm
from lockstep.training.leaks.spine import SpineProbe
from lockstep.training.leaks.spine_tables import SpineTables, as_it_is
from lockstep.training.span import Span
from lockstep.views import ModelRecipe, days, load_use_case

RECIPE = replace(fraud.model, train=days(3), gap=days(1), test=days(2))
TIMES = {"transactions": "tx_datetime", "labels": "tx_datetime"}
LATELY = "OVER (PARTITION BY customer_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL 9 DAYS PRECEDING AND {})"
SAME_CARD = "t.customer_id = transactions.customer_id"
KNOWN_RATE = f"""(
    SELECT avg(l.tx_fraud) FROM labels AS l JOIN transactions AS t USING (transaction_id)
    WHERE l.labelled_at <= transactions.tx_datetime AND {SAME_CARD}
)"""
BEFORE = LATELY.format("INTERVAL 1 MICROSECOND PRECEDING")
TERMINAL = "OVER (PARTITION BY terminal_id ORDER BY tx_datetime RANGE BETWEEN {} AND {})"


def spine(extras: Sequence[str], where: str = "", label: str = "tx_fraud") -> str:
    named = "".join(f", {extra} AS extra_{n}" for n, extra in enumerate(extras))
    return f"""
        SELECT customer_id, terminal_id, tx_datetime AS event_timestamp, amount_cents, {label}, COLUMNS('extra_.*') FROM (
            SELECT *, 1 AS extra_none {named} FROM transactions JOIN labels USING (transaction_id, tx_datetime) {where}
        ) WHERE tx_datetime >= $start AND tx_datetime < $end AND labelled_at <= $known_at
    """


@pytest.fixture(scope="module")
def tables() -> Mapping[str, pa.Table]:
    return payments()


def look(
    recipe: ModelRecipe,
    tables: Mapping[str, pa.Table],
    event_times: Mapping[str, str],
    inputs: list[str],
    keys: list[str],
    known_at: datetime,
) -> list[Alarm]:
    span = Span.of(recipe, known_at)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(as_it_is(name), table)
        parameters = {"start": span.start, "end": span.end, "known_at": known_at}
        opened = SpineTables(connection, recipe, event_times, keys, parameters)
        held_out = to_micros(span.test_start), to_micros(span.end)
        probe = SpineProbe(
            tables=opened,
            rows=opened.run(),
            inputs=inputs,
            gap_us=recipe.gap // MICROSECOND,
            cut_us=sum(held_out) // 2,
            sampled_us=held_out,
            seed=0,
        )
        return probe.alarms()


def alarms(tables: Mapping[str, pa.Table], *extras: str, where: str = "") -> list[Alarm]:
    """Return the alarms of a spine that hands in some more inputs: extra_0, extra_1, ..."""
    recipe = replace(RECIPE, spine=spine(extras, where))
    names = [f"extra_{n}" for n in range(len(extras))]
    return look(recipe, tables, TIMES, ["amount_cents", *names], ["customer_id", "terminal_id"], KNOWN_AT)


def test_each_input_that_leaks_is_named_after_its_leak(tables: Mapping[str, pa.Table]) -> None:
    leaks = {
        "label_without_delay": [
            f"avg(tx_fraud) {TERMINAL.format('INTERVAL 2 DAYS PRECEDING', 'INTERVAL 1 SECOND PRECEDING')}",
            f"sum(tx_fraud) {TERMINAL.format('INTERVAL 2 DAYS PRECEDING', 'INTERVAL 6 HOURS PRECEDING')}",
        ],
        "future_window": [
            f"avg(tx_fraud) {TERMINAL.format('INTERVAL 1 SECOND FOLLOWING', 'INTERVAL 1 DAY FOLLOWING')}",
            f"count(*) {TERMINAL.format('CURRENT ROW', 'INTERVAL 5 SECONDS FOLLOWING')}",
        ],
        "current_row": [f"sum(amount_cents) {LATELY.format('CURRENT ROW')}", "10 * tx_fraud"],
        "whole_history_rate": [
            "avg(tx_fraud) OVER (PARTITION BY terminal_id)",
            f"(SELECT avg(amount_cents) FROM transactions AS t WHERE {SAME_CARD})",
        ],
    }
    extras = [extra for of_kind in leaks.values() for extra in of_kind]
    expected = [name for name, of_kind in leaks.items() for _ in of_kind]
    found = {alarm.subject: alarm.name for alarm in alarms(tables, *extras)}
    assert found == {f"extra_{n} (spine)": name for n, name in enumerate(expected)}


def test_inputs_of_what_was_known_raise_no_alarm(tables: Mapping[str, pa.Table]) -> None:
    found = alarms(
        tables,
        "amount_cents / 7",
        f"sum(amount_cents) {BEFORE}",
        f"avg(amount_cents / 7.0) {BEFORE}",
        f"avg(tx_fraud) {TERMINAL.format('INTERVAL 9 DAYS PRECEDING', 'INTERVAL 1 DAY PRECEDING')}",
        KNOWN_RATE,
    )
    assert found == []


def test_a_label_that_hides_in_the_last_digits_is_found_and_the_order_of_a_sum_is_none(
    tables: Mapping[str, pa.Table],
) -> None:
    found = alarms(
        tables,
        "amount_cents::DOUBLE * (1 + 5e-10 * tx_fraud)",
        "epoch(tx_datetime)::DOUBLE + tx_fraud",
        f"avg(ln(amount_cents)) {BEFORE}",
        f"sum(amount_cents / 3.0 - 5000) {BEFORE}",
        f"stddev_pop(amount_cents / 7.0) {BEFORE}",
        f"avg(epoch(tx_datetime)::DOUBLE + 0.1) {BEFORE}",
    )
    assert [(a.name, a.subject) for a in found] == [
        ("current_row", "extra_0 (spine)"),
        ("current_row", "extra_1 (spine)"),
    ]


def test_the_evidence_counts_and_says_when_but_names_no_key(tables: Mapping[str, pa.Table]) -> None:
    (found,) = alarms(tables, "avg(tx_fraud) OVER (PARTITION BY terminal_id)")
    assert found.evidence == (
        "without what happened from 2018-05-18T00:00:00+00:00 on it changes in 120 of 120 rows, "
        "the latest at 2018-05-17T23:00:00+00:00; in the earliest as often as in the latest"
    )


def test_rows_that_are_chosen_by_what_comes_later_are_named(tables: Mapping[str, pa.Table]) -> None:
    chosen = """WHERE terminal_id IN (
        SELECT terminal_id FROM labels JOIN transactions USING (transaction_id)
        WHERE labels.tx_datetime > '2018-05-18' AND labels.tx_datetime < '2018-05-18 12:00:00' AND tx_fraud = 1)"""
    (found,) = alarms(tables, where=chosen)
    assert (found.name, found.subject) == ("whole_history_rate", "rows (spine)")


@pytest.mark.parametrize(
    "last_of",
    [
        "customer_id, (tx_datetime + INTERVAL 7 HOURS)::DATE",
        "customer_id",
        "1",  # none before the cut
    ],
)
def test_rows_that_are_there_only_as_long_as_nothing_follows_are_named(
    tables: Mapping[str, pa.Table], last_of: str
) -> None:
    chosen = f"QUALIFY row_number() OVER (PARTITION BY {last_of} ORDER BY tx_datetime DESC) = 1"
    found = alarms(tables, where=chosen)
    assert [(a.name, a.subject) for a in found if "rows" in a.subject] == [("future_window", "rows (spine)")]


def test_rows_to_train_on_may_be_left_out_by_their_own_label_and_those_held_out_not(
    tables: Mapping[str, pa.Table],
) -> None:
    some = "tx_fraud = 1 OR transaction_id % 2 = 0"
    assert alarms(tables, where=f"WHERE {some} OR tx_datetime >= $end - INTERVAL 2 DAYS") == []
    for chosen in (some, "tx_fraud = 0 OR amount_cents > 27000"):
        found = alarms(tables, where=f"WHERE {chosen}")
        assert [(a.name, a.subject) for a in found] == [("current_row", "rows (spine)")]


def test_an_input_at_random_is_not_repeatable(tables: Mapping[str, pa.Table]) -> None:
    (found,) = alarms(tables, "random()")
    assert (found.name, found.subject) == ("not_repeatable", "extra_0 (spine)")


def test_rows_twice_and_labels_that_are_late_raise_no_alarm(tables: Mapping[str, pa.Table]) -> None:
    labels = tables["labels"]
    late = [t + timedelta(hours=30) if n % 5 == 0 else t for n, t in enumerate(labels["labelled_at"].to_pylist())]
    place = labels.column_names.index("labelled_at")
    labels = labels.set_column(
        place, labels.schema.field("labelled_at"), pa.array(late, labels.schema.field("labelled_at").type)
    )
    twice = {name: pa.concat_tables([rows, rows]) for name, rows in {**tables, "labels": labels}.items()}
    assert alarms(twice, f"sum(amount_cents) {BEFORE}") == []


def relabelled(tables: Mapping[str, pa.Table], *known_after: timedelta) -> Mapping[str, pa.Table]:
    """Return the tables with a label row an event for each of these delays: the last says what it is, those before it 0."""
    labels = tables["labels"]
    place, known = labels.column_names.index("tx_fraud"), labels.column_names.index("labelled_at")
    parts: list[pa.Table] = []
    for number, after in enumerate(known_after, start=1):
        at = pa.array([t + after for t in labels["tx_datetime"].to_pylist()], labels.schema.field("labelled_at").type)
        part = labels.set_column(known, labels.schema.field("labelled_at"), at)
        if number < len(known_after):
            none = pa.array([0] * labels.num_rows)
            part = part.set_column(place, labels.schema.field("tx_fraud"), none)
        parts.append(part)
    return {**tables, "labels": pa.concat_tables(parts)}


def test_a_rate_of_labels_that_are_known_long_before_the_gap_is_over_raises_no_alarm(
    tables: Mapping[str, pa.Table],
) -> None:
    assert alarms(relabelled(tables, timedelta(minutes=10)), KNOWN_RATE) == []
    assert alarms(relabelled(tables, timedelta(hours=12)), KNOWN_RATE) == []


def test_labels_that_are_known_soon_leak_as_long_as_they_are_not(tables: Mapping[str, pa.Table]) -> None:
    whole = f"avg(tx_fraud) {TERMINAL.format('INTERVAL 2 DAYS PRECEDING', 'INTERVAL 1 SECOND PRECEDING')}"
    found = alarms(relabelled(tables, timedelta(hours=12)), whole, "10 * tx_fraud")
    assert {a.subject: a.name for a in found} == {
        "extra_0 (spine)": "label_without_delay",
        "extra_1 (spine)": "current_row",
    }
    (found,) = alarms(relabelled(tables, timedelta(minutes=10)), "10 * tx_fraud")
    assert (found.name, found.subject) == ("current_row", "extra_0 (spine)"), "none is unknown at midnight"


def test_labels_that_are_known_later_than_the_gap_leak_until_then(tables: Mapping[str, pa.Table]) -> None:
    older = f"avg(tx_fraud) {TERMINAL.format('INTERVAL 9 DAYS PRECEDING', 'INTERVAL 1 DAY PRECEDING')}"
    (found,) = alarms(relabelled(tables, timedelta(days=2)), older)
    assert (found.name, found.subject) == ("label_without_delay", "extra_0 (spine)")


def asked_at(time: str) -> str:
    """Return the SQL of rows that ask at that time."""
    return f"""
        SELECT customer_id, terminal_id, {time} AS event_timestamp, amount_cents, tx_fraud
        FROM transactions JOIN labels USING (transaction_id, tx_datetime)
        WHERE tx_datetime >= $start AND tx_datetime < $end AND labelled_at <= $known_at
    """


@pytest.mark.parametrize(
    ("time", "moved"),
    [
        ("labelled_at", "142 of 144"),
        ("tx_datetime + INTERVAL 1 MINUTE", "144 of 144"),
        ("CASE WHEN tx_fraud = 1 THEN tx_datetime + INTERVAL 7 HOURS ELSE tx_datetime END", "37 of 144"),
    ],
)
def test_rows_that_ask_when_nothing_happened_to_their_keys_are_refused(
    tables: Mapping[str, pa.Table], time: str, moved: str
) -> None:
    recipe = replace(RECIPE, spine=asked_at(time))
    found = look(recipe, tables, TIMES, ["amount_cents"], ["customer_id", "terminal_id"], KNOWN_AT)[0]
    assert (found.name, found.subject) == ("moved_time", "event_timestamp (spine)")
    assert found.evidence.startswith(
        f"nothing happened to their keys at the time of {moved} rows, the latest at 2018-"
    )


def test_when_its_own_label_became_known_is_no_input(tables: Mapping[str, pa.Table]) -> None:
    took = "epoch(labelled_at - tx_datetime)::BIGINT"
    for known_after in (timedelta(hours=12), timedelta(minutes=10)):
        found = alarms(relabelled(tables, known_after), took, KNOWN_RATE)
        assert [(a.name, a.subject) for a in found] == [("label_without_delay", "extra_0 (spine)")]


def test_a_label_that_is_looked_at_twice_may_be_used_as_it_was_known(tables: Mapping[str, pa.Table]) -> None:
    first_known = """(
        SELECT coalesce(sum(l2.tx_fraud), 0)::BIGINT FROM labels AS l2 JOIN transactions AS t2 USING (transaction_id)
        WHERE t2.customer_id = t.customer_id AND l2.labelled_at <= t.tx_datetime
    )"""
    latest = f"""
        SELECT customer_id, terminal_id, t.tx_datetime AS event_timestamp, amount_cents, {first_known} AS known, l.tx_fraud
        FROM transactions AS t JOIN (
            SELECT transaction_id, arg_max(tx_fraud, labelled_at) AS tx_fraud, max(labelled_at) AS labelled_at
            FROM labels WHERE labelled_at <= $known_at GROUP BY ALL
        ) AS l USING (transaction_id)
        WHERE t.tx_datetime >= $start AND t.tx_datetime < $end
    """
    twice = relabelled(tables, timedelta(hours=1), timedelta(hours=23))
    inputs, keys = ["amount_cents", "known"], ["customer_id", "terminal_id"]
    assert look(replace(RECIPE, spine=latest), twice, TIMES, inputs, keys, KNOWN_AT) == []


def test_the_recipe_as_it_is_raises_no_alarm(tables: Mapping[str, pa.Table]) -> None:
    assert look(RECIPE, tables, TIMES, ["amount_cents"], ["customer_id", "terminal_id"], KNOWN_AT) == []


def test_the_second_use_cases_recipe_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "use_cases")
    recipe = load_use_case("pump_care").model
    plant = importlib.import_module("pump_care.plant")
    made = {name: rows for name, rows in plant.make_plant(24, 40).items() if name in recipe.spine_tables}
    found = look(
        recipe,
        made,
        {"readings": "read_at", "outcomes": "read_at"},
        ["vibration_um", "pressure_kpa"],
        ["pump_id", "site_id"],
        plant.START + timedelta(days=40),
    )
    assert found == []


def test_a_label_of_another_name_in_its_table_is_refused(tables: Mapping[str, pa.Table]) -> None:
    renamed = replace(RECIPE, label="is_fraud", spine=spine([], label="tx_fraud AS is_fraud"))
    with pytest.raises(
        UseCaseError, match="none of the tables that the spine of model 'fraud' reads has a column 'is_fraud'"
    ):
        look(renamed, tables, TIMES, ["amount_cents"], ["customer_id", "terminal_id"], KNOWN_AT)
