"""Served rows and all that is known of them, in memory: a lake of Python lists that is looked up by a few naive lines.

Two stored views, `spend` of a card and `risk` of a shop, have a row of each key at each tick; two on-demand views make
features of a request. Snapshot, interval and tick have one number. A row is served as the store would, unless a test changes what
was read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lockstep.clock import parse_time
from lockstep.contract import Column, Feature, FeatureContract, OnDemand, TrainingCut, View
from lockstep.lake.files import Past
from lockstep.online.epoch import Epochs, Mark, ViewEpoch
from lockstep.parity.cause import Cause
from lockstep.parity.compare import Difference, What, compare
from lockstep.parity.elsewhere import Elsewhere
from lockstep.parity.expect import Looked, Stored, TrainingRows, Version, allowed_snapshots, expired, version_of
from lockstep.parity.explain import explain
from lockstep.parity.facts import Facts, remade
from lockstep.parity.investigate import Case
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.serving.features import Function

HOUR, MINUTE = 3_600_000_000, 60_000_000
LAG, TTL, FRESHNESS = 5 * MINUTE, 48 * HOUR, 3 * HOUR
T0 = 1_000 * 24 * HOUR
TICKS = range(1, 9)
KEYS = range(1, 13)
NOW = 5
"""The tick that rows are served from, half an hour after it."""
MOST_APART = 5 * MINUTE


def view(name: str, keys: Sequence[str], columns: Mapping[str, Any], ttl_us: int = TTL) -> View:
    return View(
        name=name,
        table=name,
        join_keys=tuple(Column(name=key, dtype="int64") for key in keys),
        columns=tuple(Column(name=column, dtype=dtype) for column, dtype in columns.items()),
        ttl_us=ttl_us,
        every_us=HOUR,
        compute_lag_us=LAG,
        visible_lag_us=LAG,
        freshness_us=FRESHNESS,
        freshness_hard=False,
        owner="o",
        definition_hash="d",
    )


SPEND = view("spend", ["card"], {"nb": "int64", "total": "float64", "limit": "float64"})
RISK = view("risk", ["shop"], {"calls": "int64", "risk_1d": "float64", "risk_7d": "float64"})


def on_demand(name: str, given: str, reads: tuple[tuple[str, str], ...], output: str) -> OnDemand:
    return OnDemand(
        name=name,
        function=f"x:{name}",
        source_hash="h",
        inputs=(Column(name=given, dtype="int64"),),
        reads=reads,
        outputs=(Column(name=output, dtype="float64"),),
        owner="o",
    )


SHARE = on_demand("share", "amount", (("spend", "total"),), "of_total")
NIGHT = on_demand("night", "request_time_us", (), "hour")
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(*SPEND.join_keys, *RISK.join_keys),
    request_inputs=(*SHARE.inputs, *NIGHT.inputs),
    features=(
        *(Feature(name=c.name, view=v.name, dtype=c.dtype) for v in (SPEND, RISK) for c in v.columns),
        Feature(name="of_total", view="share", dtype="float64"),
        Feature(name="hour", view="night", dtype="float64"),
    ),
    views=(SPEND, RISK),
    on_demand=(SHARE, NIGHT),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=parse_time("2018-06-01T00:00:00Z")),
)
FUNCTIONS: Mapping[str, Function] = {
    "share": lambda given: {"of_total": given["amount"] / (given["total"] + 1)},
    "night": lambda given: {"hour": given["request_time_us"] // HOUR % 24},
}
PLACES = {(f.view, f.name): n for n, f in enumerate(CONTRACT.features)}


@dataclass(frozen=True)
class LakeRow:
    """A row of a table: from which snapshot on it is there, and the first one without it."""

    key: tuple[Any, ...]
    event_us: int
    created_us: int
    values: Mapping[str, Any]
    born: int
    died: int | None = None

    @property
    def version(self) -> Version:
        return Version(self.event_us, self.created_us)

    def within(self, sequence: int) -> bool:
        return self.born <= sequence and (self.died is None or sequence < self.died)


Rows = Mapping[str, Sequence[LakeRow]]


def event_of(tick: int) -> int:
    return T0 + tick * HOUR


def values_of(view: str, key: int, tick: int) -> dict[str, Any]:
    """Values of which no two are the same, nor one a conversion of another."""
    part = (key * 31 + tick * 7) / 1_000
    if view == "spend":
        return {"nb": key * 1_009 + tick * 13, "total": key * 7.013 + tick + 0.001, "limit": 500.25 + part}
    return {"calls": key * 523 + tick * 11, "risk_1d": 0.1003 + part, "risk_7d": 3.2007 + part * 1.3}


def lake_row(view: str, key: int, tick: int, **changes: Any) -> LakeRow:
    plain = LakeRow((key,), event_of(tick), event_of(tick) + LAG, values_of(view, key, tick), tick)
    return replace(plain, **changes)


LAKE: Rows = {name: [lake_row(name, key, tick) for key in KEYS for tick in TICKS] for name in ("spend", "risk")}


def without(view: str, *keys: int) -> Rows:
    """The lake without the rows of some keys."""
    return {**LAKE, view: [row for row in LAKE[view] if row.key[0] not in keys]}


def mark(tick: int) -> Mark:
    return Mark(interval=tick, snapshot_id=tick, sequence=tick, watermark_us=event_of(tick))


def epoch(committed: int, writing: int | None = None) -> ViewEpoch:
    return ViewEpoch(committed=mark(committed), writing=mark(writing) if writing else None)


def epochs(committed: int, writing: int | None = None, incarnation: str | None = "i") -> Epochs:
    return Epochs(incarnation, {name: epoch(committed, writing) for name in ("spend", "risk")})


def read_of(row: LakeRow | None, status: str = "present", **values: Any) -> ServedView:
    """What a store says that holds this row, or none, but for some values."""
    if row is None:
        return ServedView("missing", None, None, {})
    return ServedView(status, row.event_us, row.created_us, {**row.values, **values})


def newest(of: View, rows: Sequence[LakeRow], key: tuple[Any, ...], sequence: int) -> LakeRow | None:
    found = [row for row in rows if row.key == key and row.within(sequence)]
    return max(found, key=lambda row: (row.event_us, row.created_us), default=None)


def served(number: int = 1, rows: Rows = LAKE, **changes: Any) -> ServedRow:
    """Return what is served for a key at a tick; a vector and a score that are not given are what was read makes of it.

    Args:
        number: counts the rows of the process; without another key it chooses that, too.
        rows: the lake.
        changes: `key`, `tick`, what was `read` of some views, and any field of the row.
    """
    key, tick = changes.pop("key", (number - 1) % len(KEYS) + 1), changes.pop("tick", NOW)
    at = changes.get("request_us", event_of(tick) + HOUR // 2)
    reads: dict[str, ServedView] = {}
    for of in (SPEND, RISK):
        row = newest(of, rows[of.name], (key,), tick)
        reads[of.name] = read_of(row, "stale" if row and expired(of, row.event_us, at) else "present")
    plain: dict[str, Any] = {
        "request_id": "r",
        "row": 0,
        "request_us": at,
        "read_us": at,
        "inputs": {"amount": 100 + number},
        "keys": {"card": key, "shop": key},
        "before": epochs(tick),
        "after": epochs(tick),
        "views": {**reads, **changes.pop("read", {})},
        "vector": (),
        "contract": CONTRACT.hash,
        "model": "m",
        "score": None,
        "flags": (),
        "uniform": True,
        "process": "p",
        "counter": number,
    }
    row = ServedRow(**(plain | changes))
    if "vector" not in changes:
        row = replace(row, vector=folded(row))
    return row if "score" in changes else replace(row, score=score_of(row.vector))


def folded(row: ServedRow, moved_us: int = 0) -> tuple[float | None, ...]:
    """Return the vector that a transformer makes of what was read."""
    made = remade(CONTRACT, FUNCTIONS, [row], moved_us).vectors[0].tolist()
    return tuple(None if value != value else value for value in made)


def with_feature(row: ServedRow, view: str, feature: str, value: float | None) -> ServedRow:
    """Return a row whose vector, and so its score, has another value of a feature."""
    vector = tuple(value if n == PLACES[view, feature] else old for n, old in enumerate(row.vector))
    return replace(row, vector=vector, score=score_of(vector))


def score_of(vector: Sequence[float | None]) -> float:
    """Return what the model says."""
    weighed = sum((value or 0.0) * (n + 1) / 10_000 for n, value in enumerate(vector))
    return float(1 / (1 + np.exp(-weighed)))


def stored_of(of: View, rows: Sequence[LakeRow], row: ServedRow, sequences: Sequence[int], cut: int) -> Stored:
    """Return what a lake says of one served row, by the definitions and nothing else."""
    key = tuple(row.keys[column.name] for column in of.join_keys)
    mine = [r for r in rows if r.key == key]
    read = version_of(row.views.get(of.name))
    allowed, flies = allowed_snapshots(row, of.name, sequences)
    newests = [newest(of, rows, key, sequence) for sequence in allowed]
    visible = [
        r
        for r in mine
        if r.within(cut) and r.event_us <= row.request_us and r.created_us + of.visible_lag_us <= row.request_us
    ]
    known = max((r.version for r in visible), default=None)
    if known is not None and expired(of, known.event_us, row.request_us):
        known = None
    return Stored(
        held=next((r.values for r in mine if r.version == read), None),
        allowed=allowed,
        newest=tuple(r.version if r else None for r in newests),
        in_flight=flies,
        known=known,
        brought=min((r.born for r in mine if r.version == known), default=0),
        missed=tuple(
            min(
                (r.created_us for r in visible if r.born > sequence and (read is None or read < r.version)),
                default=None,
            )
            for sequence in allowed
        ),
    )


def commit_time(tick: int) -> int:
    return event_of(tick) + LAG + MINUTE


def facts_of(served_rows: Sequence[ServedRow], rows: Rows = LAKE, **changes: Any) -> Facts:
    """Return all that is known of served rows, with the last tick's snapshot as the newest one."""
    sequences, cut = list(TICKS), TICKS[-1]
    looked = {
        of.name: Looked(
            of,
            [stored_of(of, rows[of.name], row, sequences, cut) for row in served_rows],
            Past([], sequences, []),
            cut,
        )
        for of in (SPEND, RISK)
        if of.name not in changes.get("drifted", {})
    }
    settled = remade(CONTRACT, FUNCTIONS, served_rows)
    plain: dict[str, Any] = {
        "contract": CONTRACT,
        "rows": served_rows,
        "looked": looked,
        "drifted": {},
        "remade": settled,
        "trained": None if changes.get("drifted") else trained(served_rows, rows, looked),
        "rescored": np.array([np.nan if row.score is None else score_of(row.vector) for row in served_rows]),
        "incarnations": ["i", "h"],
        "commits": {of.name: {tick: commit_time(tick) for tick in TICKS} for of in (SPEND, RISK)},
        "erased": {},
        "most_apart_us": MOST_APART,
        "remake": lambda some, moved: remade(CONTRACT, FUNCTIONS, some, moved).vectors,
        "others": tuple,
    }
    return Facts(**(plain | changes))


def trained(served_rows: Sequence[ServedRow], rows: Rows, looked: Mapping[str, Looked]) -> TrainingRows:
    """Return what a training set contains: what was visible at each request time, by the same functions."""
    known: list[ServedRow] = []
    for n, row in enumerate(served_rows):
        reads: dict[str, ServedView] = {}
        for name, of in looked.items():
            key = tuple(row.keys[column.name] for column in of.view.join_keys)
            reads[name] = read_of(next((r for r in rows[name] if (r.key, r.version) == (key, of.rows[n].known)), None))
        known.append(replace(row, views=reads))
    made = remade(CONTRACT, FUNCTIONS, known)
    return TrainingRows(made.vectors, made.rejected)


def case_of(served_rows: Sequence[ServedRow], rows: Rows = LAKE, **changes: Any) -> Case:
    facts = facts_of(served_rows, rows, **changes)
    divergences = compare(facts)
    elsewhere: dict[str, dict[int, Elsewhere]] = {}
    for divergence in (d for ds in divergences.values() for d in ds):
        if divergence.what in {What.NEVER_HELD, What.VALUES}:
            read = served_rows[divergence.row].views[divergence.view]
            keys = sorted(
                {r.key for r in rows[divergence.view] if r.version == version_of(read) and r.values == read.values}
            )
            elsewhere.setdefault(divergence.view, {})[divergence.row] = Elsewhere(keys[0] if keys else (), len(keys))
    return Case(facts, divergences, elsewhere)


Told = set[tuple[str, str, str | None, Cause]]


def explained(served_rows: Sequence[ServedRow], rows: Rows = LAKE, **changes: Any) -> dict[str, list[Difference]]:
    return explain(case_of(served_rows, rows, **changes))


def told(differences: Sequence[Difference]) -> Told:
    """Return each difference as (kind, view, feature, cause)."""
    return {(d.kind, d.view, d.feature, d.cause) for d in differences}


def evidence(differences: Sequence[Difference], kind: str, view: str, feature: str | None = None) -> str:
    (found,) = [d.evidence for d in differences if (d.kind, d.view, d.feature) == (kind, view, feature)]
    return found
