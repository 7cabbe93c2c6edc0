"""A tiny use case through Feast: definitions applied, history read at a cut, the registry without paths or secrets."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import feast
import pandas as pd
import pyarrow as pa
import pytest
from feast.errors import FeatureViewNotFoundException
from pyiceberg.types import LongType
from tiny_case import context, service, spend, use_case

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, UseCaseError
from lockstep.lake import Lake
from lockstep.offline.cut import Cut, reading
from lockstep.offline.engine import Engine
from lockstep.offline.history import training_features
from lockstep.offline.job import LakeRetrievalJob, LakeRetrievalMetadata
from lockstep.offline.reader import Reader
from lockstep.offline.registry import apply_definitions, feature_store
from lockstep.offline.semantics import ViewRead, check_spine
from lockstep.settings import Settings
from lockstep.views import feast as derived

T = datetime(2018, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
BIG = 2**63 - 2
PROJECT = use_case.project


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Settings:
    """A home with definitions applied and two snapshots of the view's table."""
    settings = Settings(home=tmp_path_factory.mktemp("home")).resolved()
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema, "event_timestamp")
    lake.append(spend.table, rows((1, 3, 600, T), (2, None, BIG, T)))
    lake.append(spend.table, rows((1, 4, 900, T + HOUR)))
    assert apply_definitions(settings, use_case) == ["card", "spend", "context", "tiny_v1"]
    return settings


def rows(*features: tuple[int, int | None, int, datetime]) -> pa.Table:
    card, n, cents, event = zip(*features, strict=True)
    return pa.table([card, n, cents, event, [e + 5 * MINUTE for e in event]], schema=spend.schema)


def spine_of(*asked: tuple[int, int, datetime]) -> pa.Table:
    card, amount, time = zip(*asked, strict=True)
    return pa.table(
        {
            "label": pa.array([True] * len(card)),
            "card_id": pa.array(card, pa.int64()),
            "event_timestamp": pa.array(time, pa.timestamp("us", tz="UTC")),
            "amount": pa.array(amount, pa.int64()),
        }
    )


SPINE = spine_of(
    (2, BIG, T + 10 * MINUTE), (1, 100, T + 10 * MINUTE), (1, 100, T + 9 * MINUTE), (1, 100, T + 2 * HOUR), (9, 7, T)
)


def snapshots(settings: Settings) -> list[int]:
    return [s.id for s in Lake.open(settings, PROJECT).snapshots(spend.table)]


def test_training_features_are_the_spine_and_the_service_in_its_order(home) -> None:
    found = training_features(home, use_case, "tiny_v1", SPINE).rows
    assert found.column_names == [*SPINE.column_names, "mean", "cents_1d", "amount_again", "kinds"]
    assert found.select(SPINE.column_names).equals(SPINE)
    assert [str(t) for t in found.schema.types[4:]] == ["double", "int64", "int64", "string"]
    assert found["cents_1d"].to_pylist() == [BIG, 600, None, 900, None]
    assert found["mean"].to_pylist() == [None, 700 / 4, None, 1000 / 5, None]
    assert found["amount_again"].to_pylist() == [BIG, 100, 100, 100, 7]
    assert found["kinds"].to_pylist() == ["int64"] * 5


def test_an_older_snapshot_is_read_through_a_cut(home) -> None:
    first, _ = snapshots(home)
    found = training_features(home, use_case, "tiny_v1", SPINE, Cut({"spend": first}, T + 2 * HOUR)).rows
    assert found["cents_1d"].to_pylist() == [BIG, 600, None, 600, None]


def test_a_cut_answers_each_row_as_of_its_own_time_unless_corrections_are_asked_for(home) -> None:
    _, last = snapshots(home)
    early = spine_of((1, 0, T + 9 * MINUTE))
    cut = Cut({"spend": last}, T + HOUR)
    assert training_features(home, use_case, "tiny_v1", early, cut).rows["cents_1d"].to_pylist() == [None]
    corrected = replace(cut, corrected=True)
    assert training_features(home, use_case, "tiny_v1", early, corrected).rows["cents_1d"].to_pylist() == [600]


def test_rows_later_than_the_cut_and_tables_it_does_not_name_are_refused(home) -> None:
    _, last = snapshots(home)
    with pytest.raises(BadInput, match="knows nothing after"):
        training_features(home, use_case, "tiny_v1", SPINE, Cut({"spend": last}, T + HOUR))
    with pytest.raises(BadInput, match="no snapshot of 'spend'"):
        training_features(home, use_case, "tiny_v1", SPINE, Cut({}))


def test_a_job_reads_what_was_current_when_it_was_created(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema)
    first = lake.append(spend.table, rows((1, 3, 600, T)))
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    job = store.get_historical_features(entity_df=SPINE, features=["spend:cents_1d"])
    lake.append(spend.table, rows((1, 4, 900, T + HOUR)))
    assert job.metadata.cut == Cut({"spend": first.id})
    assert job.to_arrow()["cents_1d"].to_pylist() == [None, 600, None, 600, None]
    with reading(Cut({"spend": first.id})):
        under = store.get_historical_features(entity_df=SPINE, features=["spend:cents_1d"])
    assert under.to_arrow()["cents_1d"].to_pylist() == [None, 600, None, 600, None]


def test_a_pandas_frame_and_sql_are_entity_rows_too_and_integers_stay_integers(home) -> None:
    store = feature_store(home, use_case)
    features = ["spend:cents_1d", "context:amount_again"]
    frame = store.get_historical_features(entity_df=SPINE.to_pandas(), features=features).to_df()
    assert frame["cents_1d"].tolist() == [BIG, 600, pd.NA, 900, pd.NA]
    assert frame["amount_again"].tolist() == [BIG, 100, 100, 100, 7]
    sql = "SELECT card_id, event_timestamp + INTERVAL 1 HOUR AS event_timestamp FROM spend ORDER BY ALL"
    job = store.get_historical_features(entity_df=sql, features=["spend:cents_1d"])
    assert job.to_arrow()["cents_1d"].to_pylist() == [600, 900, BIG]
    assert job.metadata.cut == Cut({"spend": snapshots(home)[-1]})


def test_entity_rows_that_cannot_be_answered_are_refused_when_the_job_is_created(home) -> None:
    store = feature_store(home, use_case)

    def refused(entity_df, features=("spend:cents_1d",)) -> str:
        with pytest.raises((BadInput, NotYetSupported)) as refusal:
            store.get_historical_features(entity_df=entity_df, features=list(features))
        return str(refusal.value)

    frame = SPINE.to_pandas()
    assert "have no zone" in refused(frame.assign(event_timestamp=frame.event_timestamp.dt.tz_localize(None)))
    assert "is not one query" in refused("SELECT * FRO spend")
    assert "does not run" in refused("SELECT nobody FROM spend")
    assert "did you mean 'spend'" in refused("SELECT * FROM spent")
    assert "lacks amount, which context takes" in refused(SPINE.drop_columns(["amount"]), ["context:mean"])
    assert "would add the column mean" in refused(SPINE.append_column("mean", SPINE["amount"]), ["context:mean"])
    assert "would add the column 'n_1d'" in refused(SPINE.append_column("n_1d", SPINE["amount"]), ["spend:n_1d"])
    with pytest.raises(NotYetSupported, match="needs entity rows"):
        store.get_historical_features(features=["spend:n_1d"], start_date=T, end_date=T + HOUR)


def test_each_bad_question_has_its_own_answer_and_a_hint_before_any_data_is_read(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema, "event_timestamp")
    lake.append(spend.table, rows((1, 3, 600, T)))
    retyped = pa.schema(
        [f.with_type(pa.int32()) if f.name == "n_1d" else f for f in spend.schema if f.name != "cents_1d"]
    )
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    for file in Path(settings.warehouse.removeprefix("file://")).rglob("*.parquet"):
        file.unlink()

    def said(entity_df: Any, features: Sequence[str] = ("spend:n_1d",)) -> str:
        with pytest.raises((BadInput, SchemaDrift)) as refusal:
            store.get_historical_features(entity_df=entity_df, features=list(features))
        assert refusal.value.hint
        return str(refusal.value)

    naive = SPINE["event_timestamp"].cast(pa.timestamp("us"))
    answers = [
        said(SPINE.set_column(2, "event_timestamp", naive)),
        said(SPINE.drop_columns(["card_id"])),
        said(SPINE.set_column(1, "card_id", SPINE["card_id"].cast(pa.string()))),
        said(SPINE.append_column("n_1d", SPINE["amount"])),
        said(SPINE.set_column(2, "event_timestamp", pa.array([None] * 5, pa.timestamp("us", "UTC")))),
    ]
    with reading(Cut({"spend": 1})):
        answers.append(said(SPINE))
    lake.drop(spend.table)
    answers.append(said(SPINE))
    lake.ensure_table(spend.table, retyped)
    answers += [said(SPINE), said(SPINE, ["spend:cents_1d"])]
    assert [answer.partition("\n")[0] for answer in answers] == [
        "the times in the spine's event_timestamp have no zone",
        "the spine lacks the join key 'card_id' of spend",
        "the spine's card_id is string, the join key of spend is int64",
        "spend would add the column 'n_1d', which the spine has already",
        "5 of 5 rows of the spine have no event_timestamp",
        "spend has no snapshot 1",
        "the lake has no table 'spend'",
        "the table spend has n_1d as int32, the view spend declares int64",
        "the table spend has no column 'cents_1d'",
    ]


def test_a_feature_that_the_view_does_not_have_is_named(home) -> None:
    store = feature_store(home, use_case)
    with pytest.raises(FeatureViewNotFoundException, match="spent"):
        store.get_historical_features(entity_df=SPINE, features=["spent:n_1d"])
    with pytest.raises(KeyError, match="n_2d"):
        store.get_historical_features(entity_df=SPINE, features=["spend:n_2d"])
    reader = Reader(Lake.open(home, PROJECT), cast("Engine", None), PROJECT)
    with pytest.raises(BadInput, match="spend has no feature 'n_2d'") as refused:
        reader.read(store.get_feature_view("spend"), ["spend:n_2d"], full_feature_names=False)
    assert "did you mean 'n_1d'" in refused.value.hint


def test_a_source_with_other_time_columns_is_refused(home) -> None:
    store = feature_store(home, use_case)
    view = store.get_feature_view("spend")
    view.batch_source.created_timestamp_column = ""
    reader = Reader(Lake.open(home, PROJECT), cast("Engine", None), PROJECT)
    with pytest.raises(NotYetSupported, match="spend has its times in event_timestamp and no column"):
        reader.read(view, ["spend:n_1d"], full_feature_names=False)


def test_names_that_the_result_would_have_twice_are_refused(home) -> None:
    spine = SPINE.append_column("mean", SPINE["amount"])
    with pytest.raises(BadInput, match="gives mean, which the result would have twice"):
        training_features(home, use_case, "tiny_v1", spine)


def test_a_null_in_an_integer_of_the_request_is_refused(home) -> None:
    spine = SPINE.set_column(3, "amount", pa.array([1, None, 1, 1, 1], pa.int64()))
    with pytest.raises(BadInput, match="amount holds float64, not whole numbers"):
        training_features(home, use_case, "tiny_v1", spine)


def test_an_empty_spine_gives_an_empty_table_of_the_declared_types(home) -> None:
    found = training_features(home, use_case, "tiny_v1", SPINE.slice(0, 0)).rows
    assert found.num_rows == 0
    assert [str(t) for t in found.schema.types[4:]] == ["double", "int64", "int64", "string"]


def test_definitions_that_were_changed_and_not_applied_are_refused(home) -> None:
    slower = replace(spend, visible_lag=timedelta(minutes=6))
    other = replace(service, features=((slower, "cents_1d"),))
    changed = replace(use_case, views=(slower,), on_demand=(), services=(other,))
    with pytest.raises(BadInput, match="is not the use case's"):
        training_features(home, changed, "tiny_v1", SPINE)
    unknown = replace(use_case, services=(replace(service, name="tiny_v2"),))
    with pytest.raises(BadInput, match="apply the definitions first"):
        training_features(home, unknown, "tiny_v2", SPINE)
    with pytest.raises(BadInput, match="no feature service 'tiny_v3'"):
        training_features(home, use_case, "tiny_v3", SPINE)


def test_applying_again_and_applying_less_deletes_nothing(home) -> None:
    assert apply_definitions(home, replace(use_case, on_demand=(), services=())) == ["card", "spend"]
    store = feature_store(home, use_case)
    assert [v.name for v in store.list_on_demand_feature_views()] == ["context"]
    assert [s.name for s in store.list_feature_services()] == ["tiny_v1"]


# Feast's own export uses what Feast deprecates.
@pytest.mark.filterwarnings("ignore:list_project_metadata is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:We will be deprecating the usage of spec.userDefinedFunction:DeprecationWarning")
def test_the_registry_holds_neither_a_path_nor_the_catalog(home) -> None:
    registry = feature_store(home, use_case).registry
    proto = registry.proto().SerializeToString()
    exported = str(registry.to_dict(PROJECT)).encode()
    stored = Path(home.registry_url.removeprefix("sqlite:///")).read_bytes()
    for held in (proto, exported, stored):
        assert b"spend" in held
        for secret in (str(home.home), home.catalog_uri, home.warehouse, home.ledger_url):
            assert secret.encode() not in held


def test_the_objects_carry_what_serving_and_monitoring_need(home) -> None:
    store = feature_store(home, use_case)
    view = store.get_feature_view("spend")
    assert view == derived.feature_view(spend, PROJECT)
    assert view.tags == {
        "tier": "gold",
        "lockstep.compute_lag_us": "300000000",
        "lockstep.visible_lag_us": "300000000",
        "lockstep.every_us": "3600000000",
        "lockstep.freshness_us": "10800000000",
        "lockstep.freshness_kind": "soft",
        "lockstep.definition_hash": spend.definition_hash,
    }
    assert (view.ttl, view.owner, view.description) == (timedelta(days=3), "cards", "What a card has spent")
    assert (view.batch_source.namespace, view.batch_source.iceberg_table) == (PROJECT, "spend")
    odfv = store.get_on_demand_feature_view("context")
    assert odfv == derived.on_demand_feature_view(context, PROJECT)
    assert list(odfv.source_request_sources) == ["context_request"]
    assert odfv.tags["lockstep.function"] == "tiny_case:fold"
    assert store.get_entity("card").join_key == "card_id"


ELSEWHERE = """
import sys
import pandas as pd
from feast import FeatureStore, RepoConfig
path = sys.argv[1]
config = RepoConfig(project="tiny", provider="local", registry={"registry_type": "sql", "path": path}, online_store=None)
view = FeatureStore(config=config).get_on_demand_feature_view("context")
assert not {"lockstep", "tiny_case"} & set(sys.modules)
frame = pd.DataFrame({"amount": [2**63 - 2], "spend__n_1d": [None], "spend__cents_1d": [5]})
print(view.feature_transformation.udf(frame).to_dict("list"))
"""


def test_another_process_reads_the_definitions_without_our_code_and_imports_the_function_to_call_it(home) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, home.registry_url],
        env={**os.environ, "PYTHONPATH": f"{root}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'mean': [nan], 'amount_again': [9223372036854775806], 'kinds': ['int64']}"


def test_importing_feast_leaves_nothing_in_the_environment() -> None:
    assert not {"PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"} & set(os.environ)


def test_a_function_that_does_not_give_what_is_declared_is_named() -> None:
    frame = pd.DataFrame({"amount": [1, 2], "spend__n_1d": [1, 2], "spend__cents_1d": [1, 2]})
    reads = {"n_1d": "spend__n_1d", "cents_1d": "spend__cents_1d"}
    with pytest.raises(UseCaseError, match="tiny_case:fold gives no 'median'"):
        derived.evaluate(
            frame, "tiny_case:fold", inputs={"amount": "int64"}, reads=reads, outputs={"median": "float64"}
        )
    with pytest.raises(UseCaseError, match="gives mean as float64, not the declared int64"):
        derived.evaluate(frame, "tiny_case:fold", inputs={"amount": "int64"}, reads=reads, outputs={"mean": "int64"})


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(UseCaseError, match="two inputs named n_1d"):
        derived.on_demand_feature_view(replace(context, inputs={"n_1d": "int64"}), PROJECT)


def test_the_newest_rows_and_all_rows_are_pulled_and_written_through_feast(home) -> None:
    store = feature_store(home, use_case)
    offline = store._get_provider().offline_store
    view = store.get_feature_view("spend")
    columns = (["card_id"], ["cents_1d"], "event_timestamp", "created_timestamp")
    newest = offline.pull_latest_from_table_or_query(store.config, view.batch_source, *columns, T, T + HOUR)
    found = newest.to_arrow().sort_by("card_id")
    assert found.column_names == ["card_id", "cents_1d", "event_timestamp", "created_timestamp"]
    assert found["cents_1d"].to_pylist() == [900, BIG]
    every = offline.pull_all_from_table_or_query(store.config, view.batch_source, *columns, T, T)
    assert sorted(every.to_arrow()["cents_1d"].to_pylist()) == [600, BIG]
    assert dict(offline.get_table_column_names_and_types_from_data_source(store.config, view.batch_source)) == {
        "card_id": "long",
        "n_1d": "long",
        "cents_1d": "long",
        "event_timestamp": "timestamptz",
        "created_timestamp": "timestamptz",
    }
    unkeyed = offline.pull_latest_from_table_or_query(
        store.config, view.batch_source, [], ["cents_1d"], "event_timestamp", None, T, T + HOUR
    )
    assert unkeyed.to_arrow()["cents_1d"].to_pylist() == [900]


def test_rows_are_written_through_feast_in_the_tables_own_types(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema)
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    offline = store._get_provider().offline_store
    given = pa.Table.from_pandas(rows((1, 3, 600, T)).to_pandas(), preserve_index=False)
    fields = [f.with_type(pa.timestamp("ns", "UTC")) if pa.types.is_timestamp(f.type) else f for f in given.schema]
    written: list[int] = []
    offline.offline_write_batch(
        store.config, store.get_feature_view("spend"), given.cast(pa.schema(fields)), written.append
    )
    assert written == [1]
    assert lake.table("spend").scan().to_arrow()["cents_1d"].to_pylist() == [600]
    with pytest.raises(SchemaDrift, match="lacks n_1d"):
        offline.offline_write_batch(store.config, store.get_feature_view("spend"), given.drop_columns(["n_1d"]), None)


QUERIES = {
    "SELECT card_id, s.event_timestamp + INTERVAL 1 HOUR AS event_timestamp FROM spend s JOIN spend USING (card_id)": 5,
    "WITH spend AS (SELECT * FROM spend WHERE card_id = 2) SELECT card_id, event_timestamp FROM spend": 1,
    "WITH own AS (SELECT DISTINCT card_id FROM spend) SELECT card_id, now() AS event_timestamp FROM own NATURAL JOIN spend": 3,
    """SELECT "card_id", "event_timestamp" FROM "spend" WHERE card_id IN (SELECT max(card_id) FROM spend)""": 1,
    "SELECT card_id, event_timestamp FROM spend UNION ALL FROM spend SELECT card_id, event_timestamp": 6,
}


@pytest.mark.parametrize("sql", QUERIES)
def test_any_one_query_gives_entity_rows(sql, home) -> None:
    job = feature_store(home, use_case).get_historical_features(entity_df=sql, features=["spend:n_1d"])
    assert job.to_arrow().num_rows == QUERIES[sql]
    assert job.metadata.cut == Cut({"spend": snapshots(home)[-1]})


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE MACRO greatest(a, b) AS a",
        "SET GLOBAL default_collation = 'NOCASE'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.db'",
        "DROP TABLE spend",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_what_is_not_one_query_is_refused_and_not_run(sql, home, tmp_path) -> None:
    store = feature_store(home, use_case)
    with pytest.raises(BadInput, match="the SQL is not one query") as refused:
        store.get_historical_features(entity_df=sql.format(folder=tmp_path), features=["spend:n_1d"])
    assert "write one SELECT" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_had_no_row_when_the_job_was_made_has_none_in_its_result_and_in_its_cut(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema)
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    job = store.get_historical_features(entity_df=SPINE, features=["spend:cents_1d"])
    lake.append(spend.table, rows((1, 3, 600, T)))
    assert job.to_arrow()["cents_1d"].to_pylist() == [None] * 5
    with reading(job.metadata.cut):
        again = store.get_historical_features(entity_df=SPINE, features=["spend:cents_1d"])
    assert again.to_arrow()["cents_1d"].to_pylist() == [None] * 5


def test_a_cut_is_read_with_the_columns_of_its_time(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema, "event_timestamp")
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    old = Cut({"spend": lake.append(spend.table, rows((1, 3, 600, T))).id})
    with lake.table(spend.table).update_schema() as change:
        change.rename_column("cents_1d", "cents")
        change.add_column("later", LongType())
    question = {"entity_df": SPINE, "features": ["spend:cents_1d", "spend:n_1d"]}
    with reading(old):
        job = store.get_historical_features(**question)
        asked = store.get_historical_features(entity_df="SELECT * EXCLUDE (n_1d) FROM spend", features=["spend:n_1d"])
    assert job.to_arrow()["cents_1d"].to_pylist() == [None, 600, None, 600, None]
    assert asked.to_arrow().column_names == ["card_id", "cents_1d", "event_timestamp", "created_timestamp", "n_1d"]
    schema = lake.schema(spend.table)
    lake.append(spend.table, pa.table([[2], [1], [7], [T], [T], [8]], schema=schema))
    with pytest.raises(SchemaDrift, match="no column 'cents_1d'"):
        store.get_historical_features(**question)


def test_columns_that_differ_in_case_alone_are_refused(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    schema = pa.schema([*spend.schema, pa.field("N_1D", pa.int64())])
    lake.ensure_table(spend.table, schema)
    lake.append(spend.table, rows((1, 3, 600, T)).append_column("N_1D", pa.array([77])))
    apply_definitions(settings, use_case)
    job = feature_store(settings, use_case).get_historical_features(entity_df=SPINE, features=["spend:n_1d"])
    with pytest.raises(SchemaDrift, match="spend has the columns n_1d and N_1D, which differ in case alone"):
        job.to_arrow()


def test_an_on_demand_view_under_another_name_is_refused_instead_of_left_out(home) -> None:
    store = feature_store(home, use_case)
    service = feast.FeatureService(
        name="renamed", features=[store.get_on_demand_feature_view("context").with_name("ctx")[["mean"]]]
    )
    store.apply(service)
    with pytest.raises(NotYetSupported, match="nothing answers ctx:mean"):
        store.get_historical_features(entity_df=SPINE, features=service)


def test_a_type_that_engines_give_back_each_in_its_own_way_is_refused(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    kinds = {"n_1d": pa.map_(pa.string(), pa.int64()), "cents_1d": pa.int64()}
    lake.ensure_table(spend.table, pa.schema([f.with_type(kinds.get(f.name, f.type)) for f in spend.schema]))
    read = ViewRead(spend.table, {"card_id": "card_id"}, {"n_1d": "n_1d"})
    with pytest.raises(NotYetSupported, match="spend has n_1d as map"):
        check_spine(SPINE, [read], {spend.table: lake.schema(spend.table)}, "event_timestamp")


def test_integers_in_lists_stay_integers_in_a_data_frame(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    big = 2**53 + 1
    table = pa.table({"k": [1, 2], "v": pa.array([[big, None], [big]], pa.list_(pa.int64()))})
    job = LakeRetrievalJob(
        lake, lambda: iter([table]), LakeRetrievalMetadata(features=[], keys=[], first=None, last=None, cut=Cut({}))
    )
    assert job.to_df()["v"].tolist() == [[big, None], [big]]


def test_rows_without_a_key_or_a_time_are_not_pulled_as_newest(settings) -> None:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, pa.schema([f.with_nullable(True) for f in spend.schema]))
    times = [T, T + HOUR, T]
    given = [[1, 1, None], [3, 4, 5], [600, 700, 800], times, [T, None, T]]
    lake.append(spend.table, pa.table(given, schema=pa.schema([f.with_nullable(True) for f in spend.schema])))
    apply_definitions(settings, use_case)
    store = feature_store(settings, use_case)
    view = store.get_feature_view("spend")
    columns = (["card_id"], ["cents_1d"], "event_timestamp", "created_timestamp")
    pulled = store._get_provider().offline_store.pull_latest_from_table_or_query(
        store.config, view.batch_source, *columns, T, T + HOUR
    )
    assert pulled.to_arrow()["cents_1d"].to_pylist() == [600]
