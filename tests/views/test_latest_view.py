"""Declaring a latest view: its features, its hash, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lockstep.errors import NotYetSupported, UseCaseError
from lockstep.views import Entity, LatestView, Source, days, hours, latest_view, minutes, soft, windowed_view
from lockstep.views.declare import ARROW_TYPES, DataType
from lockstep.views.windowed import count


def declare(columns: Mapping[str, Any] | None = None, **changed: Any) -> LatestView:
    declared: dict[str, Any] = {
        "name": "profile",
        "entity": Entity("customer", "customer_id", "int64", "o"),
        "source": Source("customers", "changed_at", "told_at", "o"),
        "columns": {"home": "string", "segment": "int64"} if columns is None else columns,
        "every": days(1),
        "ttl": days(365),
        "freshness": soft(days(2)),
        "owner": "o",
    }
    return latest_view(**(declared | changed))


def test_features_are_the_columns_in_order() -> None:
    columns: dict[str, DataType] = {f"a_{dtype}": dtype for dtype in ARROW_TYPES}
    view = declare(columns)
    assert view.features == columns
    assert view.schema.names == ["customer_id", *columns, "event_timestamp", "created_timestamp"]


@pytest.mark.parametrize(
    ("ttl", "every", "heartbeat"),
    [(days(365), days(1), 182), (days(3), hours(1), 36), (days(3), days(1), 1), (timedelta(0), days(1), None)],
)
def test_a_heartbeat_comes_every_half_ttl(ttl: timedelta, every: timedelta, heartbeat: int | None) -> None:
    assert declare(ttl=ttl, every=every).heartbeat == heartbeat


def test_the_hash_covers_the_columns_and_their_types() -> None:
    hashes = [
        declare().definition_hash,
        declare({"home": "string"}).definition_hash,
        declare({"home": "string", "segment": "int32"}).definition_hash,
        declare({"segment": "int64", "home": "string"}).definition_hash,
    ]
    assert len(set(hashes)) == 4
    assert declare(owner="p", ttl=days(30)).definition_hash == hashes[0]


def test_the_hash_covers_the_kind() -> None:
    view = declare()
    assert view.rules == {"kind": "latest", "columns": [["home", "string"], ["segment", "int64"]]}
    windowed = windowed_view(
        name=view.name,
        entity=view.entity,
        source=view.source,
        measures=[count("home")],
        windows=[days(1)],
        every=view.every,
        ttl=view.ttl,
        freshness=view.freshness,
        owner=view.owner,
    )
    assert windowed.definition_hash != view.definition_hash
    # Windowed views are older than kinds, and contracts hold their hashes.
    assert windowed.definition_hash == "d9d4257dbab8bd4c57aa842ad053b8feca964526906399f7b09781b4a2bee887"


@pytest.mark.parametrize("name", ["customer_id", "event_timestamp", "created_timestamp", "Event_Timestamp"])
def test_a_column_named_like_another_of_the_table_is_refused(name: str) -> None:
    with pytest.raises(UseCaseError, match=f"view profile: its table has another column named '{name}'"):
        declare({name: "timestamp"})


def test_no_columns_are_refused() -> None:
    with pytest.raises(UseCaseError, match="view profile needs at least one column"):
        declare({})


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UseCaseError, match="column home has the unknown type 'sting'") as refused:
        declare({"home": "sting"})
    assert "string" in str(refused.value)


@pytest.mark.parametrize("dtype", ["list<string>", "set<list<int64>>", "uuid"])
def test_what_only_the_online_store_can_hold_is_not_yet_declared(dtype: DataType) -> None:
    with pytest.raises(NotYetSupported, match=f"view profile: home is a {dtype}"):
        declare({"home": dtype})


@pytest.mark.parametrize("dtype", ["bytes", "timestamp", "float64", "list<int64>"])
def test_a_join_key_that_no_request_carries_is_not_yet_declared(dtype: DataType) -> None:
    with pytest.raises(NotYetSupported, match=f"view profile: its join key customer_id is a {dtype}"):
        declare(entity=Entity("customer", "customer_id", dtype, "o"))


def test_a_changed_copy_is_refused_like_a_declaration() -> None:
    with pytest.raises(UseCaseError, match="view profile needs at least one column"):
        replace(declare(), columns={})
    with pytest.raises(UseCaseError, match="does not divide a day"):
        replace(declare(), every=hours(7))


def test_ticks_that_do_not_tile_a_day_are_refused() -> None:
    with pytest.raises(UseCaseError, match="does not divide a day"):
        declare(every=hours(7))


def test_a_ttl_that_ends_before_the_repeated_row_can_be_read_is_refused() -> None:
    least = 2 * (days(1) + minutes(5) + minutes(5))
    assert declare(ttl=least).heartbeat == 1
    with pytest.raises(UseCaseError, match=r"shorter than 2 days, 0:20:00"):
        declare(ttl=least - timedelta(microseconds=1))


@pytest.mark.parametrize("name", ["wert €", "1st", "a b", "", 'a"b', "名"])
def test_a_name_that_files_spell_differently_is_refused(name: str) -> None:
    with pytest.raises(UseCaseError, match="is no name for a table or a column of one"):
        declare({name: "string"})
