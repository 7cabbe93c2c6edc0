"""What served rows should have been: every row the lake ever held of their keys, and the values a training set would contain."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from lockstep.contract import Column, FeatureContract, View
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote, read_parquet
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.serving.features import complete_inputs, feature_matrix
from lockstep.serving.policy import apply_policy
from lockstep.settings import Settings
from lockstep.views import UseCase
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP


@dataclass(frozen=True)
class LakeRow:
    """One row a view's table ever got, and the sequence number of the snapshot that brought it."""

    event_us: int
    created_us: int
    sequence: int
    values: Mapping[str, Any]

    @property
    def version(self) -> tuple[int, int]:
        """What orders the rows of a key."""
        return self.event_us, self.created_us


@dataclass(frozen=True)
class History:
    """The rows of the sampled keys of one view that can matter to the sample.

    Attributes:
        view: the view, as the contract describes it.
        rows: the rows by key (its join keys' values, in the contract's order).
        sequences: the sequence numbers of the table's snapshots, ascending.
    """

    view: View
    rows: Mapping[tuple[Any, ...], Sequence[LakeRow]]
    sequences: tuple[int, ...]

    @cached_property
    def latest_sequence(self) -> int:
        """The newest snapshot's sequence number; 0 for a table without one."""
        return self.sequences[-1] if self.sequences else 0

    def of(self, row: ServedRow) -> Sequence[LakeRow]:
        """Return the rows of a served row's key."""
        return self.rows.get(self.key(row), ())

    def key(self, row: ServedRow) -> tuple[Any, ...]:
        """Return the values of a served row's join keys, in the contract's order."""
        return tuple(row.keys[key.name] for key in self.view.join_keys)

    def held(self, row: ServedRow, served: ServedView) -> LakeRow | None:
        """Return the lake's row of the key and the (event, created) that were served."""
        return next((r for r in self.of(row) if r.version == (served.event_us, served.created_us)), None)

    def newest(self, row: ServedRow, sequence: int) -> LakeRow | None:
        """Return the key's greatest (event, created) in the snapshot with that sequence number."""
        return max((r for r in self.of(row) if r.sequence <= sequence), key=lambda r: r.version, default=None)

    def known(self, row: ServedRow) -> LakeRow | None:
        """Return the row that a training set would take for this served row: what was visible at its request time."""
        visible = [
            r
            for r in self.of(row)
            if r.event_us <= row.request_us and r.created_us + self.view.visible_lag_us <= row.request_us
        ]
        chosen = max(visible, key=lambda r: r.version, default=None)
        return chosen if chosen and not expired(self.view, chosen.event_us, row.request_us) else None


def expired(view: View, event_us: int, at_us: int) -> bool:
    """Tell whether a row is older than its view's ttl."""
    return view.ttl_us > 0 and at_us - event_us > view.ttl_us


def history(settings: Settings, lake: Lake, view: View, sample: Sequence[ServedRow]) -> History:
    """Read the rows that the view's table ever got for the keys in the sample, as far back as one of them may look.

    Of what is older than every served row and than the ttl before every request, only the newest row per key and snapshot can
    be an answer: what a stale or missing row should have been.

    Raises:
        NotYetSupported: a snapshot of the table took rows away.
    """
    snapshots = lake.snapshots(view.table)
    sequences = tuple(s.sequence for s in snapshots)
    files = lake.files_added(view.table, 0, sequences[-1]) if sequences else []
    names = [key.name for key in view.join_keys]
    wanted = pa.table(
        {key.name: pa.array([row.keys[key.name] for row in sample], ARROW_TYPES[key.dtype]) for key in view.join_keys}
    )
    by_key: defaultdict[tuple[Any, ...], list[LakeRow]] = defaultdict(list)
    if files and sample:
        columns = [*names, *(c.name for c in view.columns)]
        brought = {file.path.removeprefix("file://"): file.sequence for file in files}
        micros = [f"epoch_us({name}) AS {name}" for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
        keys = ", ".join(map(quote, names))
        recent = f"epoch_us({EVENT_TIMESTAMP}) >= {_earliest(view, sample)}"
        with connect(settings) as connection:
            connection.register("wanted", wanted)
            found: pa.Table = connection.sql(
                f"SELECT {', '.join(map(quote, columns))}, {', '.join(micros)}, filename FROM "
                f"{read_parquet(brought).removesuffix(')')}, filename = true) SEMI JOIN wanted USING ({keys}) "
                f"QUALIFY {recent} OR row_number() OVER (PARTITION BY {keys}, filename, {recent} "
                f"ORDER BY {EVENT_TIMESTAMP} DESC, {CREATED_TIMESTAMP} DESC) = 1"
            ).to_arrow_table()
        for row in found.to_pylist():
            by_key[tuple(row[name] for name in names)].append(
                LakeRow(
                    event_us=row[EVENT_TIMESTAMP],
                    created_us=row[CREATED_TIMESTAMP],
                    sequence=brought[row["filename"]],
                    values={c.name: row[c.name] for c in view.columns},
                )
            )
    return History(view, dict(by_key), sequences)


def _earliest(view: View, sample: Sequence[ServedRow]) -> int:
    """Return the event time in microseconds before which no row is an answer by its own values."""
    if not view.ttl_us:
        return -(1 << 62)
    served = [row.views[view.name].event_us for row in sample if view.name in row.views]
    return min([*(row.request_us - view.ttl_us for row in sample), *(event for event in served if event is not None)])


@dataclass(frozen=True)
class TrainingRows:
    """What a training set cut now would say of served rows, one item a row.

    Attributes:
        vectors: what it would contain, in the contract's order, defaults put in.
        rejected: whether the policy would leave the row out: a feature that the contract asks for has no value, and the vector
            is not one that the model can be asked.
    """

    vectors: Sequence[tuple[float | None, ...]]
    rejected: Sequence[bool]


def training_rows(
    settings: Settings, use_case: UseCase, contract: FeatureContract, sample: Sequence[ServedRow]
) -> TrainingRows:
    """Return what a training set cut now would say of served rows.

    The rows go through Feast's `get_historical_features`, the very way a training set is made.
    """
    if not sample:
        return TrainingRows((), ())
    # Whoever only reads a report, as the gate does, does without Feast's 4 s.
    from lockstep.offline.history import training_features  # noqa: PLC0415

    found = training_features(settings, use_case, contract.feature_service, spine(contract, sample)).rows
    settled = apply_policy(contract, feature_matrix(contract, found))
    vectors = [tuple(None if v != v else v for v in row) for row in settled.vectors.tolist()]  # noqa: PLR0124 - NaN is unequal to itself
    return TrainingRows(vectors, settled.rejected.tolist())


def spine(contract: FeatureContract, sample: Sequence[ServedRow]) -> pa.Table:
    """Return the sampled rows as entity rows: join keys, request time and request inputs."""

    def column(of: Column, values: list[Any]) -> pa.Array:
        return pa.array(values, ARROW_TYPES[of.dtype])

    keys = {key.name: column(key, [row.keys[key.name] for row in sample]) for key in contract.join_keys}
    given = complete_inputs(contract, [row.inputs for row in sample], [row.request_us for row in sample])
    inputs = {of.name: column(of, given[of.name]) for of in contract.request_inputs}
    times = pa.array([row.request_us for row in sample], pa.int64()).cast(ARROW_TYPES["timestamp"])
    return pa.table({**keys, EVENT_TIMESTAMP: times, **inputs})
