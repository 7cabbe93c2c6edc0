"""What the online store's memory goes to: bytes an entity and a view, measured on the server with a sample of the lake's keys.

The server says what a hash takes, its key and its own bookkeeping included (`MEMORY USAGE key SAMPLES 0`), but not what of it is
whose: that is divided by the bytes of names and values. What the server needs besides its hashes is in none of these figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from lockstep.contract import Column, View, stored_view
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote
from lockstep.online.cluster import ask_each
from lockstep.online.layout import EntityKeys, fields_of
from lockstep.online.store import Store
from lockstep.settings import Settings
from lockstep.views.declare import Entity
from lockstep.views.use_case import UseCase

SAMPLE = 1_000
_BATCH = 500
_CONFIDENT = 1.96  # standard errors to either side: 95 %


@dataclass(frozen=True)
class Estimate:
    """A mean over sampled keys, and what it comes to over all of them.

    Attributes:
        found: how many of the sampled keys have any of it online.
        per_key: bytes of each that has, on average.
        total: bytes over all keys.
        error: how far the total may be off, in bytes, at 95 % confidence; 0 where every key was measured.
    """

    found: int
    per_key: float
    total: int
    error: int


@dataclass(frozen=True)
class Footprint:
    """What the hashes of one entity take.

    Attributes:
        entity: its name.
        keys: how many different keys its views' tables have.
        sampled: how many of them were measured.
        whole: of whole hashes.
        views: of each view's part of them.
        others: of the part of nobody who is declared: deleted views, other writers.
    """

    entity: str
    keys: int
    sampled: int
    whole: Estimate
    views: dict[str, Estimate]
    others: Estimate


def footprints(
    settings: Settings, use_case: UseCase, lake: Lake, store: Store, sample: int = SAMPLE
) -> list[Footprint]:
    """Measure every entity that a stored view is about; nothing is changed.

    Args:
        settings: the engine's limits.
        use_case: what declares entities and views.
        lake: has the keys.
        store: the online store.
        sample: at most so many keys of each entity are measured, chosen by a hash; two at least.

    Raises:
        Transient: the store does not answer.
        Terminal: it does not tell its memory.
    """
    found: list[Footprint] = []
    for entity in use_case.entities:
        views = [stored_view(view) for view in use_case.views if view.entity == entity and lake.exists(view.table)]
        if not views:
            continue
        keys, values = _keys(settings, lake, entity, views, sample)
        layout = EntityKeys(use_case.project, [Column(name=entity.join_key, dtype=entity.dtype)])
        measured = _measure(store, views, layout.encode({entity.join_key: values}))
        parts = [estimate(keys, [row[column] for row in measured]) for column in range(len(views) + 2)]
        named = {view.name: part for view, part in zip(views, parts[1:-1], strict=True)}
        found.append(Footprint(entity.name, keys, len(values), parts[0], named, parts[-1]))
    return found


def estimate(keys: int, sizes: Sequence[float]) -> Estimate:
    """Return what a simple random sample of sizes says of `keys` keys; a size of 0 is of one that is not there.

    The variance of the total is that of sampling without replacement (Cochran, Sampling Techniques, theorem 2.2).
    """
    found = [size for size in sizes if size]
    if not found:
        return Estimate(0, 0.0, 0, 0)
    n = len(sizes)
    mean = sum(sizes) / n
    variance = sum((size - mean) ** 2 for size in sizes) / (n - 1) if n > 1 else 0.0
    error = _CONFIDENT * keys * math.sqrt(variance / n * (1 - n / keys))
    return Estimate(len(found), sum(found) / len(found), round(keys * mean), round(error))


def _keys(
    settings: Settings, lake: Lake, entity: Entity, views: Sequence[View], sample: int
) -> tuple[int, list[object]]:
    """Return how many keys the views' tables have together, and some of them."""
    with connect(settings) as connection:
        for number, view in enumerate(views):
            lake.register(connection, f"view{number}", view.table, columns=[entity.join_key])
        union = " UNION ALL ".join(f"SELECT {quote(entity.join_key)} AS key FROM view{n}" for n in range(len(views)))
        connection.execute(f"CREATE TEMP TABLE keys AS SELECT DISTINCT key FROM ({union})")
        rows = connection.sql(f"SELECT key FROM keys ORDER BY hash(key), key LIMIT {sample:d}").fetchall()
        ((keys,),) = connection.sql("SELECT count(*) FROM keys").fetchall()
    return keys, [key for (key,) in rows]


def _measure(store: Store, views: Sequence[View], keys: Sequence[bytes]) -> list[list[float]]:
    """Return the bytes of each key: of its whole hash, of each view, of all else."""
    fields = [set(fields_of(view)) for view in views]
    measured: list[list[float]] = []
    for start in range(0, len(keys), _BATCH):
        some = keys[start : start + _BATCH]
        commands = [(("MEMORY USAGE", key, "SAMPLES", "0"), ("HGETALL", key)) for key in some]
        answers = ask_each(store, chain.from_iterable(commands))
        for used, stored in zip(answers[::2], answers[1::2], strict=True):
            hash_of = cast("dict[bytes, bytes]", stored)
            # One that came or went between the two commands counts as not there.
            whole = float(used or 0) if hash_of else 0.0
            parts = [sum(len(f) + len(v) for f, v in hash_of.items() if f in own) for own in fields]
            everything = sum(len(f) + len(v) for f, v in hash_of.items()) or 1
            shares = [part / everything for part in (*parts, everything - sum(parts) if hash_of else 0)]
            measured.append([whole, *(whole * share for share in shares)])
    return measured
