"""The Redis layout and the epoch hash are formats that outlive code: a fixed table must give the committed bytes."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import redis
from stored_rows import EVERY_TYPE, HOUR_US, NOON_US, PROJECT, make_contract, make_rows, make_view

from lockstep.clock import from_micros
from lockstep.online.epoch import Epochs, EpochStore, Mark, ViewEpoch
from lockstep.online.reader import read_online
from lockstep.online.writer import write_rows
from lockstep.settings import Settings

GOLDEN = Path(__file__).parents[1] / "golden" / "redis_layout.json"
NOTE = (
    f"\n\nRunning stores hold these bytes, stock Feast reads the rows, and the served log holds the epoch hash. If the change is "
    f"meant, write a migration note (how a store that is in use gets there), then update {GOLDEN.name}."
)
EVERY = make_view("every", EVERY_TYPE, join_keys={"customer_id": "int64", "shop": "string", "year": "int32"})
SPEND = make_view("spend")
INCARNATION = "0123456789abcdef" * 2
EPOCHS = {
    "every": ViewEpoch(None, Mark(3, 1 << 62, 17, NOON_US)),
    "spend": ViewEpoch(Mark(1, 11, 5, NOON_US - HOUR_US), Mark(2, 12, 6, NOON_US)),
}


def fixed_rows() -> pa.Table:
    time = from_micros(NOON_US)
    return make_rows(
        EVERY,
        (
            1,
            "Käse",
            2018,
            True,
            -5,
            9_007_199_254_740_993,
            0.1,
            -0.1,
            "ß",
            b"\x00\xff",
            time,
            NOON_US + 1,
            NOON_US + 2,
        ),
        (-1, "", -1, False, 0, -(1 << 63), None, float("nan"), "", None, None, -1, 0),
    )


def write_everything(store: redis.Redis) -> None:
    write_rows(store, PROJECT, EVERY, fixed_rows())
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (1, 300, NOON_US, NOON_US)))
    store.hset("lockstep:epoch:fraud", "incarnation", INCARNATION)
    for view, epoch in EPOCHS.items():
        EpochStore(store, PROJECT).restore(view, epoch)


def dump(store: redis.Redis) -> dict[str, Any]:
    """Everything that is stored: rows as hex, the epoch hash as text."""
    hashes = {key: store.hgetall(key) for key in store.scan_iter()}
    epoch = hashes.pop(b"lockstep:epoch:fraud")
    return {
        "rows": {key.hex(): {f.hex(): value.hex() for f, value in fields.items()} for key, fields in hashes.items()},
        "epoch": {
            "key": "lockstep:epoch:fraud",
            "fields": {field.decode(): value.decode() for field, value in epoch.items()},
        },
    }


def test_what_is_written_are_the_golden_bytes(store: redis.Redis) -> None:
    write_everything(store)

    assert dump(store) == orjson.loads(GOLDEN.read_bytes()), NOTE


def test_the_golden_bytes_are_still_read(store: redis.Redis, store_settings: Settings) -> None:
    golden = orjson.loads(GOLDEN.read_bytes())
    for key, fields in golden["rows"].items():
        store.hset(bytes.fromhex(key), mapping={bytes.fromhex(f): bytes.fromhex(v) for f, v in fields.items()})
    store.hset(golden["epoch"]["key"], mapping=golden["epoch"]["fields"])
    rows = fixed_rows()
    entities = {key.name: rows[key.name].to_pylist() for key in EVERY.join_keys}

    reading = read_online(store_settings, make_contract(EVERY, SPEND), entities, [NOON_US] * 2)

    assert reading.before == reading.after == Epochs(INCARNATION, EPOCHS), NOTE
    assert reading.views["every"].event_us == [NOON_US + 1, -1], NOTE
    assert reading.views["every"].created_us == [NOON_US + 2, 0], NOTE
    expected = {name: rows[name].to_pylist() for name in EVERY_TYPE}
    expected["a_float64"][1] = None  # NaN is stored as null
    assert reading.views["every"].values == expected, NOTE
    assert reading.views["spend"].values["n"] == [300, None], NOTE
