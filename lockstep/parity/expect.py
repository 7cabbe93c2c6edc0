"""What served rows should have been: what the lake held of their keys, and the values a training set would contain.

Everything is looked up at once for many rows; what it means is said elsewhere (`compare.py`, `explain.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.schema import make_compatible_name

from lockstep.contract import Column, FeatureContract, View
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote, read_parquet
from lockstep.lake.files import Past
from lockstep.offline.cut import Cut
from lockstep.online.epoch import ViewEpoch
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.serving.features import complete_inputs, feature_matrix
from lockstep.serving.policy import apply_policy
from lockstep.settings import Settings
from lockstep.views import UseCase
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP

_PART_ROWS = 10_000
_FOR_EVER = (1 << 63) - 1
_NOTHING_READ = ViewEpoch(committed=None, writing=None)


@dataclass(frozen=True, slots=True)
class Version:
    """What orders the rows of a key: their event time, then their created time, in microseconds."""

    event_us: int
    created_us: int

    def __lt__(self, other: "Version") -> bool:
        """Tell whether this is the older one."""
        return (self.event_us, self.created_us) < (other.event_us, other.created_us)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the lake says of one served row and one stored view.

    Attributes:
        held: the values of the row of this key with the (event, created) that was served; None: there never was one.
        allowed: the sequence numbers of the snapshots that the row may have been read from, ascending.
        newest: of each of these, the key's newest row in it; None: it has none.
        in_flight: the readings of the epoch hash differ or say that the view is being written.
        known: the row that a training set would take: what was visible at the request time.
        brought: the sequence number of the snapshot that brought that row; 0 without one.
        missed: of each allowed snapshot whose newest row was read, when the first later row was created that it had not yet and
            that was visible at the request time, in microseconds; None: there is none.
    """

    held: Mapping[str, Any] | None
    allowed: tuple[int, ...]
    newest: tuple[Version | None, ...]
    in_flight: bool
    known: Version | None
    brought: int
    missed: tuple[int | None, ...]


@dataclass(frozen=True)
class Looked:
    """What the lake says of one view, for each of many served rows; and the view's snapshots."""

    view: View
    rows: Sequence[Stored]
    past: Past
    cut: int


def version_of(read: ServedView | None) -> Version | None:
    """Return the version of what was read; None where nothing was, or the store did not say."""
    if read is None or read.event_us is None or read.created_us is None:
        return None
    return Version(read.event_us, read.created_us)


def expired(view: View, event_us: int, at_us: int) -> bool:
    """Tell whether a row is older than its view's ttl."""
    return view.ttl_us > 0 and at_us - event_us > view.ttl_us


def allowed_snapshots(row: ServedRow, view: str, sequences: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Return the sequence numbers of the snapshots that a row may have been read from, and whether it was read in flight.

    It is the one that the epoch hash names as committed. Where its two readings differ or say *writing*, it may be any from the
    lower reading's committed one to the higher reading's started one.
    """
    before, after = row.before.views.get(view, _NOTHING_READ), row.after.views.get(view, _NOTHING_READ)
    low = before.committed.sequence if before.committed else 0
    if before == after and before.writing is None:
        return (low,), False
    marks = [mark for mark in (before.writing, after.committed, after.writing) if mark]
    high = max([low, *(mark.sequence for mark in marks)])
    return (low, *(s for s in sequences if low < s <= high)), True


def look_up(
    settings: Settings, lake: Lake, view: View, rows: Sequence[ServedRow], snapshot_id: int | None = None
) -> Looked:
    """Look up what a view's table held of served rows.

    Args:
        settings: for the embedded engine.
        lake: has the table.
        view: as the contract describes it.
        rows: served rows; the answers come in their order.
        snapshot_id: what training reads; None is the newest snapshot.

    Raises:
        BadInput: a snapshot that a row was read from has expired, and what it held is not known any more.
        NotYetSupported: rows were deleted by files of deletes.
    """
    past = lake.past(view.table)
    cut = _sequence_of(lake, view.table, snapshot_id) if past.sequences else 0
    allowed = [allowed_snapshots(row, view.name, past.sequences) for row in rows]
    _require_known(view, past, {sequence for sequences, _ in allowed for sequence in sequences})
    if not (past.lives and rows):
        nothing = (None,)
        return Looked(
            view,
            [Stored(None, s, nothing * len(s), flies, None, 0, nothing * len(s)) for s, flies in allowed],
            past,
            cut,
        )
    finder = _Finder(settings, view, past, rows, [sequences for sequences, _ in allowed], cut)
    held = finder.held()
    newest, known, missed = finder.versions()
    found = [
        Stored(
            held.get(n),
            sequences,
            tuple(newest.get((n, sequence)) for sequence in sequences),
            flies,
            *known.get(n, (None, 0)),
            tuple(
                missed.get((n, sequence)) if newest.get((n, sequence)) == finder.served[n] else None
                for sequence in sequences
            ),
        )
        for n, (sequences, flies) in enumerate(allowed)
    ]
    return Looked(view, found, past, cut)


def _sequence_of(lake: Lake, table: str, snapshot_id: int | None) -> int:
    """Return the number of a snapshot, or of the current one: after a rollback that is not the one with the greatest number."""
    if snapshot_id is not None:
        return lake.snapshot(table, snapshot_id).sequence
    current = lake.current(table)
    return current.sequence if current else 0


def _require_known(view: View, past: Past, sequences: Collection[int]) -> None:
    lost = sorted(sequence for sequence in sequences if not past.knows(sequence))
    if lost:
        raise BadInput(
            f"{view.table}: what its snapshot number {lost[0]} held is not known any more, and served rows were read from it",
            hint="it has expired; verify a later window, and keep snapshots (snapshots_keep) as long as windows are verified",
        )


_Versions = tuple[dict[tuple[int, int], Version], dict[int, tuple[Version, int]], dict[tuple[int, int], int]]


class _Finder:
    """Asks the engine about the rows of one view's table, in its own numbering of the served rows."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        past: Past,
        rows: Sequence[ServedRow],
        allowed: Sequence[Sequence[int]],
        cut: int,
    ) -> None:
        self._settings, self._view, self._past, self._rows = settings, view, past, rows
        self._allowed, self._cut = allowed, cut
        self._keys = ", ".join(quote(key.name) for key in view.join_keys)
        self.served = [version_of(row.views.get(view.name)) for row in rows]

    def held(self) -> dict[int, Mapping[str, Any]]:
        """Return the values of the row that was served, by the served row's number; it is the log's own mapping where equal.

        A table may have had two rows of one key and version, one after the other: the one with the served values is meant.
        """
        columns = [column.name for column in self._view.columns]
        served = [row.views.get(self._view.name) for row in self._rows]
        versions = {n: version for n, version in enumerate(self.served) if version is not None}
        asked = {
            "n": list(versions),
            EVENT_TIMESTAMP: [version.event_us for version in versions.values()],
            CREATED_TIMESTAMP: [version.created_us for version in versions.values()],
        }
        found: dict[int, Mapping[str, Any]] = {}
        with connect(self._settings) as connection:
            connection.register("asked", self._asked(asked))
            named = ", ".join(f"s.{quote(name)}" for name in columns)
            same_row = f"{self._keys}, {EVENT_TIMESTAMP}, {CREATED_TIMESTAMP}"
            rows: pa.Table = connection.sql(
                f"SELECT n, {named} FROM asked JOIN ({self._stored(columns)}) s USING ({same_row})"
            ).to_arrow_table()
        for part in rows.to_batches(_PART_ROWS):
            for values in part.to_pylist():
                n = values.pop("n")
                read = served[n]
                if read is not None and all(read.holds(name, value) for name, value in values.items()):
                    found[n] = read.values
                else:
                    found.setdefault(n, values)
        return found

    def versions(self) -> _Versions:
        """Return the key's newest version by (served row, snapshot), what training knew and what brought it, and what was missed.

        Nearly always it is the row that was served, or a later one; so earlier ones are only looked at where it is not.
        """
        newest, known, missed = self._versions(
            [n for n, version in enumerate(self.served) if version is not None], later=True
        )
        others = [
            n
            for n, version in enumerate(self.served)
            if version is None or n not in known or any((n, sequence) not in newest for sequence in self._allowed[n])
        ]
        all_newest, all_known, all_missed = self._versions(others, later=False)
        known |= all_known
        at = [row.request_us for row in self._rows]
        unexpired = {n: k for n, k in known.items() if not expired(self._view, k[0].event_us, at[n])}
        return newest | all_newest, unexpired, missed | all_missed

    def _versions(self, numbers: Sequence[int], *, later: bool) -> _Versions:
        if not numbers:
            return {}, {}, {}
        nothing = Version(-_FOR_EVER, -_FOR_EVER)
        used = [version or nothing for version in self.served]
        since = [version.event_us if later and version else -_FOR_EVER for version in self.served]
        asked = {
            "n": [n for n in numbers for _ in self._allowed[n]],
            "sequence": [sequence for n in numbers for sequence in self._allowed[n]],
            "since": [since[n] for n in numbers for _ in self._allowed[n]],
            "used_event": [used[n].event_us for n in numbers for _ in self._allowed[n]],
            "used_created": [used[n].created_us for n in numbers for _ in self._allowed[n]],
        }
        lives = self._past.lives
        # A row that was written into other files later was brought by the first of them.
        moved = any(life.died is not None for life in lives)
        first = f"min(born) OVER (PARTITION BY {self._keys}, event, created)" if moved else "born"
        visible = f"event <= request AND created + {self._view.visible_lag_us} <= request"
        alive = f"born <= {self._cut} AND {self._cut} < died"
        with connect(self._settings) as connection:
            connection.register("asked", self._asked(asked))
            connection.register(
                "lives",
                pa.table(
                    {
                        "filename": [life.path.removeprefix("file://") for life in lives],
                        "born": [life.born for life in lives],
                        "died": [_FOR_EVER if life.died is None else life.died for life in lives],
                    }
                ),
            )
            found: pa.Table = connection.sql(
                f"""
                WITH stored AS (
                    SELECT {self._keys}, {EVENT_TIMESTAMP} AS event, {CREATED_TIMESTAMP} AS created, born, died,
                        {first} AS brought
                    FROM ({self._stored(["filename"])}) JOIN lives USING (filename)
                    WHERE {EVENT_TIMESTAMP} >= {min(asked["since"])}
                )
                SELECT n, sequence,
                    max({{'event': event, 'created': created}}) FILTER (born <= sequence AND sequence < died) AS newest,
                    max({{'event': event, 'created': created, 'brought': -brought}})
                        FILTER ({visible} AND {alive}) AS known,
                    min(created) FILTER ({visible} AND {alive} AND brought > sequence
                        AND (event > used_event OR event = used_event AND created > used_created)) AS missed
                FROM asked JOIN stored USING ({self._keys}) WHERE event >= since GROUP BY n, sequence
                """
            ).to_arrow_table()
        newest: dict[tuple[int, int], Version] = {}
        known: dict[int, tuple[Version, int]] = {}
        missed: dict[tuple[int, int], int] = {}
        for part in found.to_batches(_PART_ROWS):
            for row in part.to_pylist():
                if row["newest"] is not None:
                    newest[row["n"], row["sequence"]] = Version(row["newest"]["event"], row["newest"]["created"])
                if row["missed"] is not None:
                    missed[row["n"], row["sequence"]] = row["missed"]
                if row["known"] is not None:
                    version = Version(row["known"]["event"], row["known"]["created"])
                    known[row["n"]] = version, -row["known"]["brought"]  # of rows that are there twice the first
        return newest, known, missed

    def _asked(self, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
        """Return columns of numbers, of which `n` says which served row each line is of, with the row's keys and time."""
        numbers = list(columns["n"])
        keys = {key.name: self._key_column(key, numbers) for key in self._view.join_keys}
        asked = {name: pa.array(values, pa.int64()) for name, values in columns.items()}
        return pa.table(
            {**keys, **asked, "request": pa.array([self._rows[n].request_us for n in numbers], pa.int64())}
        )

    def _key_column(self, key: Column, numbers: Sequence[int]) -> pa.Array:
        dtype = ARROW_TYPES[key.dtype]
        try:
            return pa.array([self._rows[n].keys[key.name] for n in numbers], dtype)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, KeyError):
            for n in numbers:
                given = self._rows[n].keys.get(key.name)
                try:
                    pa.array([given], dtype)
                except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                    raise SchemaDrift(
                        f"the served row {self._rows[n].name} has {key.name} = {given!r}, no {key.dtype}"
                    ) from None
            raise SchemaDrift(f"a served row of {self._view.name} has no {key.name}") from None

    def _stored(self, columns: Sequence[str]) -> str:
        """Return the query of all rows that the table ever had of these keys."""
        return f"SELECT * FROM ({rows_ever(self._view, self._past, columns)}) SEMI JOIN asked USING ({self._keys})"


def rows_ever(view: View, past: Past, columns: Sequence[str]) -> str:
    """Return the query of all rows that a view's table ever had: join keys, times in microseconds, and columns.

    One of the columns may be `filename`. A row that was written into other files later is there several times.
    """
    # In a file a column's name is spelled as Avro would allow it: `a b` is `a_x20b`.
    spelled = [
        f"{quote(make_compatible_name(name))} AS {quote(name)}"
        for name in (*(key.name for key in view.join_keys), *columns)
    ]
    times = [f"epoch_us({name}) AS {name}" for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    files = read_parquet(dict.fromkeys(life.path for life in past.lives), "filename", "union_by_name")
    return f"SELECT {', '.join([*spelled, *times])} FROM {files}"


@dataclass(frozen=True)
class TrainingRows:
    """What a training set would say of served rows, one item a row.

    Attributes:
        vectors: rows by features, in the contract's order, defaults put in, NaN for null.
        rejected: whether the policy would leave the row out: a feature that the contract asks for has no value, and the vector
            is not one that the model can be asked.
    """

    vectors: NDArray[np.float64]
    rejected: NDArray[np.bool_]


def training_rows(
    settings: Settings,
    use_case: UseCase,
    contract: FeatureContract,
    rows: Sequence[ServedRow],
    cut: Cut | None = None,
) -> TrainingRows:
    """Return what a training set cut now, or at `cut`, would say of served rows.

    The rows go through Feast's `get_historical_features`, the very way a training set is made.
    """
    if not rows:
        return TrainingRows(np.empty((0, len(contract.features))), np.empty(0, np.bool_))
    # Whoever only reads a report does without Feast's 4 s.
    from lockstep.offline.history import training_features  # noqa: PLC0415

    found = training_features(settings, use_case, contract.feature_service, spine(contract, rows), cut).rows
    settled = apply_policy(contract, feature_matrix(contract, found))
    return TrainingRows(settled.vectors, settled.rejected)


def spine(contract: FeatureContract, sample: Sequence[ServedRow]) -> pa.Table:
    """Return the sampled rows as entity rows: join keys, request time and request inputs."""

    def column(of: Column, values: list[Any]) -> pa.Array:
        return pa.array(values, ARROW_TYPES[of.dtype])

    keys = {key.name: column(key, [row.keys[key.name] for row in sample]) for key in contract.join_keys}
    given = complete_inputs(contract, [row.inputs for row in sample], [row.request_us for row in sample])
    inputs = {of.name: column(of, given[of.name]) for of in contract.request_inputs}
    times = pa.array([row.request_us for row in sample], pa.int64()).cast(ARROW_TYPES["timestamp"])
    return pa.table({**keys, EVENT_TIMESTAMP: times, **inputs})
