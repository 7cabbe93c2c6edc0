"""A training set: which rows, which values, the same bytes again; and what is refused before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from tiny_lake import KNOWN_AT, fill

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, UseCaseError
from lockstep.lake import Lake
from lockstep.offline.registry import apply_definitions
from lockstep.settings import Settings
from lockstep.training.spine import table_digest
from lockstep.training.training_set import TrainingSet, build_training_set, read_left_out, read_training_set
from lockstep.views import ModelRecipe, UseCase

COLUMNS = (
    "customer_id, terminal_id, tx_datetime AS event_timestamp, amount_cents, tx_fraud, tx_fraud_scenario, labelled_at"
)
SPINE = (
    "SELECT {columns} FROM transactions JOIN (SELECT transaction_id, tx_fraud, tx_fraud_scenario, labelled_at FROM labels) "
    "USING (transaction_id) WHERE tx_datetime >= $start AND tx_datetime < $end AND labelled_at <= $known_at {extra}"
)

Filled = tuple[Settings, Lake]


def utc(day: int, hour: int = 0) -> datetime:
    return datetime(2018, 5, day, hour, tzinfo=UTC)


def spine(columns: str = COLUMNS, extra: str = "") -> str:
    return SPINE.format(columns=columns, extra=extra)


def with_recipe(use_case: UseCase, **changes: Any) -> UseCase:
    return replace(use_case, model=replace(use_case.model, **changes))


def refused(filled: Filled, use_case: UseCase, **changes: Any) -> str:
    """Build with a changed recipe; return the refusal's first line, after checking that nothing was written."""
    settings, lake = filled
    before = lake.tables()
    with pytest.raises((BadInput, UseCaseError)) as failure:
        build_training_set(settings, with_recipe(use_case, **changes), known_at=KNOWN_AT)
    assert lake.tables() == before
    return str(failure.value).splitlines()[0]


@pytest.fixture(scope="module")
def built(filled: Filled, use_case: UseCase) -> tuple[TrainingSet, pa.Table, FeatureContract]:
    settings, lake = filled
    done = build_training_set(settings, use_case, known_at=KNOWN_AT)
    return done, *read_training_set(lake, done.table)


def test_the_test_ends_on_the_last_day_whose_labels_are_known(built: tuple[TrainingSet, pa.Table, Any]) -> None:
    done, rows, _ = built

    assert (done.start, done.end) == (utc(13), utc(19)), "known on the 20th at 15:00, labels take a day"
    times = {split: [] for split in ("train", "test")}
    for time, split in zip(rows["event_timestamp"].to_pylist(), rows["split"].to_pylist(), strict=True):
        times[split].append(time)
    assert (times["train"][0], times["train"][-1], len(times["train"])) == (utc(13), utc(15, 23), 72)
    assert (times["test"][0], times["test"][-1], len(times["test"])) == (utc(17), utc(18, 23), 48)
    assert (done.rows, done.positives) == (120, sum(rows["tx_fraud"].to_pylist()))


def test_a_row_holds_the_entity_row_the_features_in_order_and_the_split(
    built: tuple[TrainingSet, pa.Table, FeatureContract], use_case: UseCase
) -> None:
    _, rows, contract = built

    assert rows.column_names == [
        "customer_id",
        "terminal_id",
        "event_timestamp",
        "amount_cents",
        "tx_fraud",
        "tx_fraud_scenario",
        "labelled_at",
        "request_time_us",
        *(ref.feature for ref in use_case.model.service.refs),
        "split",
    ]
    assert [str(rows[f.name].type).replace("double", "float64") for f in contract.features] == [
        f.dtype for f in contract.features
    ]


def test_the_values_are_those_of_the_newest_row_visible_at_the_time(
    built: tuple[TrainingSet, pa.Table, Any],
) -> None:
    """At 00:00 the day's own row is not visible yet: it is created at 00:05 and readable at 00:10."""
    _, rows, _ = built
    for row in rows.to_pylist():
        time = row["event_timestamp"]
        assert row["request_time_us"] == to_micros(time)
        day = (time - utc(1)).days - (time.hour == 0)
        card, terminal, cents = row["customer_id"], row["terminal_id"], row["amount_cents"]
        if card == 29:
            assert row["customer_nb_tx_7d"] is None
        else:
            assert row["customer_nb_tx_7d"] == 100 + 10 * card + day + 1
            assert row["customer_avg_amount_7d"] == (400 + 10 * card + day + cents) / (
                100 * (100 + 10 * card + day + 1)
            )
        assert row["risk_30d"] == (None if terminal == 5 else (800 + 10 * terminal + day) / 1_000)


def test_the_contract_names_the_snapshots_and_tags_keep_them(
    built: tuple[TrainingSet, pa.Table, FeatureContract], filled: Filled
) -> None:
    done, _, contract = built
    _, lake = filled

    assert contract == done.contract
    assert [cut.table for cut in contract.cut.tables] == ["customer_spend", "labels", "terminal_risk", "transactions"]
    for cut in contract.cut.tables:
        assert cut.tag == done.table.replace("_", "-")
        assert lake.table(cut.table).metadata.refs[cut.tag].snapshot_id == cut.snapshot_id
    assert contract.cut.known_at == KNOWN_AT


def test_the_same_again_is_found_and_not_built_again(
    built: tuple[TrainingSet, pa.Table, FeatureContract], filled: Filled, use_case: UseCase
) -> None:
    done, _, _ = built
    settings, lake = filled

    assert build_training_set(settings, use_case, known_at=KNOWN_AT) == done
    assert len(lake.snapshots(done.table)) == 1


def test_built_anew_it_has_the_same_bytes(
    built: tuple[TrainingSet, pa.Table, FeatureContract], filled: Filled, use_case: UseCase
) -> None:
    done, rows, _ = built
    settings, lake = filled
    lake.drop(done.table)

    assert build_training_set(settings, use_case, known_at=KNOWN_AT) == done
    again, _ = read_training_set(lake, done.table)
    assert ipc(again) == ipc(rows)


def ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_how_the_rows_were_ingested_does_not_matter(
    built: tuple[TrainingSet, pa.Table, FeatureContract],
    new_settings: Callable[[], Settings],
    use_case: UseCase,
) -> None:
    done, rows, _ = built
    settings = new_settings()
    lake = fill(settings, use_case, parts=3, backwards=True)

    other = build_training_set(settings, use_case, known_at=KNOWN_AT)

    assert other.contract.cut.spine_hash == done.contract.cut.spine_hash
    assert other.table != done.table, "its snapshots are others"
    assert ipc(read_training_set(lake, other.table)[0]) == ipc(rows)


def test_another_definition_is_another_training_set(
    built: tuple[TrainingSet, pa.Table, FeatureContract], filled: Filled, use_case: UseCase
) -> None:
    done, _, _ = built
    settings = filled[0].model_copy(update={"registry_url": f"sqlite:///{filled[0].home}/other.db"})
    service = replace(use_case.model.service, features=use_case.model.service.features[::-1])
    reversed_ = with_recipe(replace(use_case, services=(service,)), service=service)
    apply_definitions(settings, reversed_)

    other = build_training_set(settings, reversed_, known_at=KNOWN_AT)

    assert other.table != done.table
    assert other.contract.cut.spine_hash == done.contract.cut.spine_hash


def test_a_column_of_the_spine_that_nobody_needs_is_kept(filled: Filled, use_case: UseCase) -> None:
    settings, lake = filled
    wider = with_recipe(use_case, spine=spine(f"{COLUMNS}, 'row ' || transaction_id AS note"))

    done = build_training_set(settings, wider, known_at=KNOWN_AT)

    rows, _ = read_training_set(lake, done.table)
    assert rows["note"][0].as_py() == "row 288"
    assert rows["note"].type == pa.string()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spine": spine(extra="AND (tx_fraud = 0 OR tx_datetime < '2018-05-17')")},
            (
                "there is no positive label among the 31 rows to test on in "
                "[2018-05-17T00:00:00+00:00, 2018-05-19T00:00:00+00:00)"
            ),
        ),
        (
            {"spine": spine(extra="AND (tx_fraud = 1 OR tx_datetime >= '2018-05-17')")},
            (
                "there is no negative label among the 16 rows to train on in "
                "[2018-05-13T00:00:00+00:00, 2018-05-16T00:00:00+00:00)"
            ),
        ),
        (
            {"spine": spine(extra="AND customer_id < 0")},
            "there is no row to train on in [2018-05-13T00:00:00+00:00, 2018-05-16T00:00:00+00:00)",
        ),
        (
            {"spine": spine("customer_id, tx_datetime AS event_timestamp, tx_fraud, labelled_at")},
            "the spine lacks terminal_id, amount_cents, tx_fraud_scenario",
        ),
        (
            {"spine": spine(COLUMNS.replace(" AS event_timestamp", ""))},
            "the spine lacks event_timestamp, request_time_us",
        ),
        (
            {"spine": spine(f"{COLUMNS}, epoch_us(labelled_at) AS request_time_us")},
            "the spine gives request_time_us itself",
        ),
        ({"label": "fraud"}, "the spine lacks fraud"),
        ({"spine": spine(f"{COLUMNS}, 1 AS risk_7d")}, "the spine's risk_7d collides with a feature"),
        ({"spine": spine(f"{COLUMNS}, 1 AS split")}, "the spine's split collides with a feature"),
        (
            {"spine": spine(COLUMNS.replace("amount_cents", "amount_cents / 100 AS amount_cents"))},
            "the spine's amount_cents is double, not int64",
        ),
        (
            {"spine": spine(COLUMNS.replace("tx_datetime AS", "tx_datetime::TIMESTAMP AS"))},
            "the spine's event_timestamp is timestamp[us], not timestamp[us, tz=UTC]",
        ),
        (
            {"spine": spine(COLUMNS.replace("tx_fraud,", "nullif(tx_fraud, 1) AS tx_fraud,"))},
            "the spine has nulls in tx_fraud",
        ),
        ({"spine": spine(COLUMNS.replace("tx_fraud,", "3 * tx_fraud AS tx_fraud,"))}, "the label tx_fraud holds 3"),
        ({"spine": spine(COLUMNS.replace("tx_fraud,", "'no' AS tx_fraud,"))}, "the label tx_fraud is string"),
        (
            {"spine": spine().replace("tx_datetime >= $start", "$start IS NOT NULL")},
            "the spine has rows outside [2018-05-13T00:00:00+00:00, 2018-05-19T00:00:00+00:00)",
        ),
        (
            {"spine": spine(COLUMNS.replace("labelled_at", "labelled_at + INTERVAL 5 DAY AS labelled_at"))},
            "104 labels of the spine became known after 2018-05-20T15:00:00+00:00",
        ),
        (
            {"spine": spine(COLUMNS.replace("labelled_at", "labelled_at - INTERVAL 2 DAY AS labelled_at"))},
            "144 labels of the spine became known before their event",
        ),
        (
            {"spine": spine(COLUMNS.replace("tx_fraud_scenario", "1 AS tx_fraud_scenario"))},
            "106 rows of the spine have a tx_fraud_scenario that contradicts their tx_fraud",
        ),
        ({"spine": "SELECT nonsense"}, "the spine of model 'fraud' does not run: "),
        (
            {"spine_tables": {"transaction": ("transaction_id",)}},
            "the lake has no table 'transaction'",
        ),
    ],
)
def test_what_is_wrong_with_the_spine_is_said_and_nothing_is_written(
    filled: Filled, use_case: UseCase, changes: dict[str, Any], message: str
) -> None:
    found = refused(filled, use_case, **changes)
    assert found.startswith(message) if message.endswith(" ") else found == message


def test_a_time_in_the_future_or_without_a_zone_is_refused(filled: Filled, use_case: UseCase) -> None:
    settings, _ = filled
    with pytest.raises(BadInput, match=r"known_at 2018-07-01T00:00:00\+00:00 is in the future"):
        build_training_set(settings, use_case, known_at=datetime(2018, 7, 1, tzinfo=UTC))
    with pytest.raises(BadInput, match="known_at has no time zone"):
        build_training_set(settings, use_case, known_at=KNOWN_AT.replace(tzinfo=None))


def test_a_view_never_computed_is_refused(new_settings: Callable[[], Settings], use_case: UseCase) -> None:
    settings = new_settings()
    lake = Lake.open(settings, use_case.project)
    view = use_case.view("customer_spend")
    lake.ensure_table(view.table, view.schema)

    with pytest.raises(BadInput, match="the table 'customer_spend' is empty"):
        build_training_set(settings, use_case, known_at=KNOWN_AT)


def test_a_table_that_is_no_training_set_is_refused(filled: Filled) -> None:
    with pytest.raises(BadInput, match="the table 'labels' is no training set"):
        read_training_set(filled[1], "labels")


def test_a_label_not_known_yet_is_not_used(filled: Filled, use_case: UseCase) -> None:
    """With a gap shorter than the label delay, the spine's own filter leaves out what nobody knows yet."""
    settings, lake = filled
    hasty = with_recipe(use_case, gap=timedelta(0))

    done = build_training_set(settings, hasty, known_at=KNOWN_AT)

    rows, _ = read_training_set(lake, done.table)
    assert done.end == utc(20)
    assert rows["event_timestamp"][-1].as_py() == utc(19, 15), "labelled at the very time asked for"


def test_the_digest_sees_values_and_not_how_they_are_stored() -> None:
    whole = pa.table(
        {"a": [1, None, 3], "b": ["x", None, "yz"], "c": [True, None, False], "d": [0.5, None, float("nan")]}
    )
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2)])

    assert table_digest(pieces) == table_digest(whole)
    assert table_digest(whole.slice(1, 2)) == table_digest(pa.Table.from_pylist(whole.to_pylist()[1:], whole.schema))
    others = [
        whole.rename_columns(["z", "b", "c", "d"]),
        whole.set_column(0, "a", pa.array([1, 0, 3])),
        whole.set_column(0, "a", pa.array([1, None, 3], pa.int32())),
        whole.set_column(1, "b", pa.array(["xy", None, "z"])),
        whole.set_column(1, "b", pa.array(["x", "", "yz"])),
        whole.slice(0, 2),
    ]
    assert len({table_digest(t) for t in [whole, *others]}) == 7


def test_the_recipe_of_the_reference_use_case_gives_what_the_spine_needs(filled: Filled, use_case: UseCase) -> None:
    recipe: ModelRecipe = use_case.model
    settings, _ = filled
    theirs = build_training_set(settings, use_case, known_at=KNOWN_AT)
    ours = build_training_set(settings, with_recipe(use_case, spine=spine()), known_at=KNOWN_AT)

    assert ours == theirs, "the spine's text does not matter, its rows do"
    assert recipe.label == "tx_fraud"


def left_out(filled: Filled, use_case: UseCase, **changes: Any) -> tuple[TrainingSet, pa.Table]:
    settings, lake = filled
    done = build_training_set(settings, with_recipe(use_case, **changes), known_at=KNOWN_AT)
    assert read_left_out(lake, done.table) == done.left_out
    return done, read_training_set(lake, done.table)[0]


def test_rows_of_an_entity_that_is_known_to_be_positive_are_left_out_of_the_days_that_begin_after(
    filled: Filled, use_case: UseCase
) -> None:
    """A label takes a day: what happened on day D is known by the time D + 2 begins, gap or not."""
    everyone, rows = left_out(filled, use_case)
    protocol = replace(use_case.model.protocol, leave_known_out=True)
    done, kept = left_out(filled, use_case, protocol=protocol)

    _, span = left_out(filled, use_case, train=timedelta(days=6), gap=timedelta(0), test=timedelta(days=1))
    frauds = [(r["customer_id"], r["labelled_at"]) for r in span.to_pylist() if r["tx_fraud"]]
    expected = [
        row
        for row in rows.to_pylist()
        if row["split"] == "train"
        or not any(
            card == row["customer_id"] and known < row["event_timestamp"].replace(hour=0) for card, known in frauds
        )
    ]
    assert 0 < len(expected) < rows.num_rows
    assert kept.to_pylist() == expected
    assert (everyone.left_out.known, done.left_out.known) == (0, rows.num_rows - len(expected))
    assert everyone.left_out.gap == done.left_out.gap == 24


def test_a_label_that_is_not_known_when_the_test_begins_is_not_trained_on(filled: Filled, use_case: UseCase) -> None:
    """Labels of the last day to train on that take twelve hours more than the gap allows."""
    late = COLUMNS.replace(
        "labelled_at",
        "CASE WHEN amount_cents % 2 = 0 THEN labelled_at + INTERVAL 36 HOUR ELSE labelled_at END AS labelled_at",
    )
    done, rows = left_out(filled, use_case, spine=spine(late, "AND labelled_at <= $known_at - INTERVAL 36 HOUR"))

    fitted = [r for r in rows.to_pylist() if r["split"] == "train"]
    assert max(r["labelled_at"] for r in fitted) <= utc(17), "when the test begins"
    assert done.left_out.label_unknown > 0
    assert done.left_out.label_unknown + len(fitted) == 72
