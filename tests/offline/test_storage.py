"""What Feast is asked to keep: saved datasets and its log of served features, in tables of the lake."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import feast
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from tiny_case import spend, use_case

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, Transient
from lockstep.lake import Lake
from lockstep.offline.cut import CUT_PROPERTY, Cut
from lockstep.offline.registry import apply_definitions, feature_store
from lockstep.offline.storage import LakeLoggingDestination, SavedDatasetLakeStorage

T = datetime(2018, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UTC_US = pa.timestamp("us", tz="UTC")
PROJECT = use_case.project
# Feast calls both experimental.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{what} an experimental feature:RuntimeWarning")
    for what in ("Saving dataset is", "Retrieving datasets is")
]


@pytest.fixture
def lake(settings) -> Lake:
    lake = Lake.open(settings, PROJECT)
    lake.ensure_table(spend.table, spend.schema, "event_timestamp")
    rows = [[1, 2, 3], [3, None, 4], [600, 7, 800], [T, T, T], [T, T, T]]
    lake.append(spend.table, pa.table(rows, schema=spend.schema))
    return lake


@pytest.fixture
def store(settings, lake) -> feast.FeatureStore:
    apply_definitions(settings.model_copy(update={"retrieval_rows": 2}), use_case)
    return feature_store(settings.model_copy(update={"retrieval_rows": 2}), use_case)


def spine_of(*cards: int) -> pa.Table:
    times = pa.array([T + HOUR] * len(cards), UTC_US)
    return pa.table(
        {
            "card_id": pa.array(cards, pa.int64()),
            "event_timestamp": times,
            "amount": pa.array([10] * len(cards), pa.int64()),
        }
    )


def retrieval(store: feast.FeatureStore, *cards: int):
    return store.get_historical_features(
        spine_of(*cards), features=["spend:cents_1d", "context:mean", "context:kinds"]
    )


def test_a_result_is_kept_part_by_part_in_one_commit_that_names_its_cut_and_is_read_back(store, lake) -> None:
    storage = SavedDatasetLakeStorage(PROJECT, "kept")
    job = retrieval(store, 3, 1, 2, 9, 1)
    assert [part.num_rows for part in job.parts()] == [2, 2, 1]
    store.create_saved_dataset(job, "five_rows", storage)
    (snapshot,) = lake.snapshots("kept")
    assert (
        Cut.from_json(snapshot.properties[CUT_PROPERTY])
        == job.metadata.cut
        == Cut({"spend": lake.current("spend").id})
    )
    assert lake.table("kept").scan().to_arrow()["cents_1d"].to_pylist() == [800, 600, 7, None, 600]
    found = store.get_saved_dataset("five_rows")
    assert (found.storage.project, found.storage.table) == (PROJECT, "kept")
    assert found.to_df()["cents_1d"].to_list()[:3] == [800, 600, 7]


def test_what_is_kept_is_replaced_only_if_that_is_allowed(store, lake) -> None:
    storage = SavedDatasetLakeStorage(PROJECT, "kept")
    retrieval(store, 3, 1).persist(storage)
    with pytest.raises(SavedDatasetLocationAlreadyExists, match="kept already exists"):
        retrieval(store, 2).persist(storage)
    assert lake.table("kept").scan().to_arrow()["card_id"].to_pylist() == [3, 1]
    retrieval(store, 2, 1, 2).persist(storage, allow_overwrite=True)
    assert lake.table("kept").scan().to_arrow()["card_id"].to_pylist() == [2, 1, 2]


def test_a_result_without_rows_is_kept_too(store, lake) -> None:
    retrieval(store).persist(SavedDatasetLakeStorage(PROJECT, "kept"))
    assert lake.table("kept").scan().to_arrow().num_rows == 0


def test_a_dataset_of_other_columns_or_elsewhere_is_refused(store, lake) -> None:
    with pytest.raises(SchemaDrift, match="spend: the rows do not fit the table"):
        retrieval(store, 1).persist(SavedDatasetLakeStorage(PROJECT, "spend"), allow_overwrite=True)
    assert lake.table("spend").scan().to_arrow().num_rows == 3
    with pytest.raises(NotYetSupported, match="SavedDatasetFileStorage is not supported"):
        retrieval(store, 1).persist(SavedDatasetFileStorage("kept.parquet"))


def logging_service(store: feast.FeatureStore, destination, name: str = "logged") -> feast.FeatureService:
    service = feast.FeatureService(
        name=name,
        features=[store.get_feature_view("spend")[["cents_1d"]]],
        logging_config=LoggingConfig(destination=destination),
    )
    store.apply(service)
    return store.get_feature_service(name)


def logged_rows(store: feast.FeatureStore, service: feast.FeatureService, *cards: int) -> pa.Table:
    """Return rows as Feast's servers log them."""
    schema = FeatureServiceLoggingSource(service, PROJECT).get_schema(store.registry)
    given = {"card_id": 1, "__log_timestamp": T + HOUR, "__log_date": date(2018, 6, 1), "spend__cents_1d": 2**63 - 1}
    rows = [{**given, "card_id": card, "__request_id": f"r{card}"} for card in cards]
    return pa.Table.from_pylist(rows, schema=schema)


def test_logged_features_are_appended_and_read_back(store, lake, tmp_path) -> None:
    service = logging_service(store, LakeLoggingDestination(PROJECT, "feature_log"))
    store.write_logged_features(logged_rows(store, service, 1, 2), service)
    folder = tmp_path / "log"
    folder.mkdir()
    pq.write_table(logged_rows(store, service, 3), folder / "part.parquet")
    store.write_logged_features(folder, service)
    assert len(lake.snapshots("feature_log")) == 2
    span = (T, T + 2 * HOUR)
    job = store._get_provider().retrieve_feature_service_logs(service, *span, store.config, store.registry)
    found = job.to_arrow().sort_by("card_id")
    assert found["card_id"].to_pylist() == [1, 2, 3]
    assert found["spend__cents_1d"].to_pylist() == [2**63 - 1] * 3


def test_a_log_that_is_not_whole_or_goes_elsewhere_is_refused(store, tmp_path) -> None:
    service = logging_service(store, LakeLoggingDestination(PROJECT, "feature_log"))
    rows = logged_rows(store, service, 1)
    with pytest.raises(BadInput, match="the log lacks __request_id"):
        store.write_logged_features(rows.drop_columns(["__request_id"]), service)
    elsewhere = logging_service(store, FileLoggingDestination(path=str(tmp_path)), "elsewhere")
    with pytest.raises(NotYetSupported, match="FileLoggingDestination is not supported"):
        store.write_logged_features(rows, elsewhere)


def test_a_registry_holds_no_place_of_what_is_kept(store, settings) -> None:
    store.create_saved_dataset(retrieval(store, 1), "one_row", SavedDatasetLakeStorage(PROJECT, "kept"))
    held = store.registry.proto().SerializeToString()
    assert b"kept" in held
    assert str(settings.home).encode() not in held


def test_a_storage_is_what_a_source_of_the_lake_reads() -> None:
    storage = SavedDatasetLakeStorage(PROJECT, "kept")
    again = SavedDatasetLakeStorage.from_data_source(storage.to_data_source())
    assert (again.project, again.table) == (PROJECT, "kept")
    with pytest.raises(TypeError, match="no table of the lake"):
        SavedDatasetLakeStorage.from_data_source(feast.FileSource(name="file", path="x.parquet"))


def test_times_that_the_lake_cannot_hold_are_refused_when_they_are_written(store, lake) -> None:
    view = store.get_feature_view("spend")
    rows = pa.table([[1], [1], [1], [T], [T]], schema=replace(spend).schema)
    finer = rows.set_column(3, "event_timestamp", pa.array([1], pa.timestamp("ns", "UTC")))
    with pytest.raises(BadInput, match="does not fit whole microseconds"):
        store._get_provider().offline_store.offline_write_batch(store.config, view, finer, None)


def test_a_dataset_of_another_project_or_without_feast_s_name_for_its_times_is_refused(store, lake) -> None:
    with pytest.raises(BadInput, match="of the project tiny, its storage of elsewhere"):
        retrieval(store, 1).persist(SavedDatasetLakeStorage("elsewhere", "kept"))
    spine = spine_of(1).rename_columns(["card_id", "at", "amount"])
    job = store.get_historical_features(spine, features=["spend:cents_1d"])
    with pytest.raises(BadInput, match="needs its times in event_timestamp"):
        job.persist(SavedDatasetLakeStorage(PROJECT, "kept"))
    assert not lake.exists("kept")


def test_times_in_other_units_are_kept_in_microseconds(store, lake) -> None:
    spine = spine_of(1, 2)
    times = spine["event_timestamp"].cast(pa.timestamp("ns", "America/New_York"))
    job = store.get_historical_features(spine.set_column(1, "event_timestamp", times), features=["spend:cents_1d"])
    job.persist(SavedDatasetLakeStorage(PROJECT, "kept"))
    assert lake.table("kept").scan().to_arrow()["event_timestamp"].to_pylist() == [T + HOUR] * 2


def test_rows_that_another_writer_brought_meanwhile_are_not_replaced(store, lake) -> None:
    retrieval(store, 1).persist(SavedDatasetLakeStorage(PROJECT, "other"))
    job = retrieval(store, 1, 2, 3)
    parts = job.parts

    def interrupted():
        yield from parts()
        retrieval(store, 2).persist(SavedDatasetLakeStorage(PROJECT, "kept"))

    job.parts = interrupted
    with pytest.raises(Transient, match="another writer committed first"):
        job.persist(SavedDatasetLakeStorage(PROJECT, "kept"))
    assert lake.table("kept").scan().to_arrow()["card_id"].to_pylist() == [2]
