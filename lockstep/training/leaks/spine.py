"""What the spine's SQL works out of rows that nobody knew yet, found by changing these rows: its answers must stay as they are.

What a row of the spine hands in as a request's input may depend on what happened before its time, and on labels that were known
then. So everything else is changed, one thing at a time, and each input of a row must come out as before. Rows are told apart by
their time and keys alone, as the SQL may give any; an input of theirs is compared as a bag of values, floats to twelve digits,
for an engine adds them in another order over other rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import from_micros
from lockstep.lake.engine import quote
from lockstep.training.leaks.alarm import Alarm, AlarmName
from lockstep.training.leaks.spine_copies import SpineCopies
from lockstep.training.leaks.spine_tables import SpineTables
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP

ROWS = "rows"
_LOOKED_AT = 5_000
_SAMPLED = 200
_FEWEST_SAMPLED = 50
_ALONE = 3
_FLIPPED_SHARE = 10
_FEWEST_FLIPPED = 5
_MORE_CUTS = 4
# A sum of a million floats in another order differs by one part in 1e13 or so; a leak can hide below this alone.
_CLOSE = 1e-12


@dataclass(frozen=True)
class SpineProbe:
    """Looks for leaks in what the SQL gives.

    Attributes:
        tables: what the SQL reads.
        rows: the training set's own, or what a first run gave.
        inputs: the columns of its result that a model gets to see: the request's inputs, but for those that it leaves to others.
        gap_us: how long nobody knows an event's label, in microseconds, where its table does not say when it became known.
        cut_us: the time around which rows are changed.
        sampled_us: the event times held out, half-open: rows are sampled from these.
        seed: of the sample.
    """

    tables: SpineTables
    rows: pa.Table
    inputs: Sequence[str]
    gap_us: int
    cut_us: int
    sampled_us: tuple[int, int]
    seed: int
    _named: dict[str, Alarm] = field(default_factory=dict[str, Alarm], init=False)

    def alarms(self) -> list[Alarm]:
        """Return an alarm for each input that leaks, by the first of these names that fits it.

        `not_repeatable`: run again, the SQL gives something else. `moved_time`, of the rows' time itself: at the time of some
        rows nothing happened to their keys. `whole_history_rate` or `future_window`: it changes without the rows from the cut on;
        whole history, if the share of rows that change is at least half as great among the earliest tenth as among the latest
        before the cut, for the rows of a window change no further back than it is long. `future_window` too, if it changes with
        more rows a microsecond later. `label_without_delay`: it changes with labels of events before the cut that were not known
        then, or with when these became known; `current_row`, if only in rows whose own label was changed. `current_row` too, if
        it changes with more rows at the very same time, of which a request knows as little as of itself.

        Which rows there are may not depend on later rows or on others' labels either, and which there are of those held out not
        on their own: the subject is then `rows (spine)`.

        Raises:
            UseCaseError: the SQL does not run, or its label has another name in the tables.
        """
        self.tables.require_label()
        real = self._kept(self.tables.run())
        self._judge_repeated(real)
        self._judge_times(real)
        self._judge_without_later(real)
        self._judge_copies(real, later_us=1)
        for cut_us, times in self._cuts(real):
            self._judge_flips(real, cut_us, times)
            self._judge_known_times(real, cut_us)
        self._judge_copies(real, later_us=0)
        return list(self._named.values())

    def _judge_repeated(self, real: pa.Table) -> None:
        rows = self._kept(self.rows)
        for column, lost in self._lost(rows, real):
            self._name("not_repeatable", column, f"run again, the SQL gives something else for {_told(lost, rows)}")

    def _judge_times(self, real: pa.Table) -> None:
        moved = self.tables.without_event(real)
        if moved.num_rows:
            evidence = f"nothing happened to their keys at the time of {_told(moved, real)}"
            self._name("moved_time", EVENT_TIMESTAMP, evidence)

    def _judge_known_times(self, real: pa.Table, cut_us: int) -> None:
        before = _rows(real, _times(real) < cut_us)
        for column, lost in self._lost(before, self._kept(self.tables.with_moved_known_times(cut_us))):
            if column != ROWS:  # that a row is taken or left for when its own label was known is fair
                evidence = f"with labels known at other times, all from {_moment(cut_us)} on, it changes in"
                self._name("label_without_delay", column, f"{evidence} {_told(lost, before)}")

    def _judge_without_later(self, real: pa.Table) -> None:
        before = _rows(real, _times(real) < self.cut_us)
        times = np.sort(_times(before))
        tenth = max(1, len(times) // 10)
        for column, lost in self._changed(before, self._kept(self.tables.without_later(self.cut_us)), self.cut_us):
            changed = np.isin(times, _times(lost))
            early, late = (int(some.sum()) for some in (changed[:tenth], changed[-tenth:]))
            evidence = f"without what happened from {_moment(self.cut_us)} on it changes in {_told(lost, before)}"
            if early > 0 and 2 * early >= late:
                self._name("whole_history_rate", column, f"{evidence}; in the earliest as often as in the latest")
            else:
                first = _moment(int(_times(lost).min()))
                self._name("future_window", column, f"{evidence}; in none before {first}")

    def _judge_flips(self, real: pa.Table, cut_us: int, times: Sequence[int]) -> None:
        before = _rows(real, _times(real) < cut_us)
        changed = dict(self._changed(before, self._flipped(times, cut_us), cut_us))
        if not changed:
            return
        number = max(_FEWEST_FLIPPED, len(times) // _FLIPPED_SHARE)
        few = self._random().choice(times, min(number, len(times)), replace=False)
        sparse = self._flipped([int(time) for time in few], cut_us)
        label = dict(self._lost(before, sparse, [self.tables.recipe.label]))
        own = np.union1d(few, _times(label[self.tables.recipe.label]) if self.tables.recipe.label in label else few)
        told = f"with other labels for events before {_moment(cut_us)}, which were not known then, it changes in"
        for column, lost in self._changed(before, sparse, cut_us):
            others = _rows(lost, ~np.isin(_times(lost), own))
            if others.num_rows:
                which = f"{_told(others, before)}, besides those whose label it is"
                self._name("label_without_delay", column, f"{told} {which}")
                continue
            if column == ROWS:  # that a row to train on is taken or left for its own label is fair
                lost = _rows(lost, _times(lost) >= self.sampled_us[0])  # noqa: PLW2901
            if lost.num_rows:
                which = f"{_told(lost, before)}, each one whose own label it is"
                self._name("current_row", column, f"{told} {which}")
        for column, lost in changed.items():
            if column != ROWS:
                self._name("label_without_delay", column, f"{told} {_told(lost, before)}")

    @cached_property
    def _copies(self) -> SpineCopies:
        return SpineCopies(self.tables)

    def _flipped(self, times: Sequence[int], cut_us: int) -> pa.Table:
        return self._kept(self.tables.with_flipped_labels(times, cut_us, self.gap_us))

    def _cuts(self, real: pa.Table) -> Iterator[tuple[int, list[int]]]:
        """Yield times with the event times of the labels that were not known then, until there are enough of these.

        Where labels become known fast the middle may have none; a microsecond after some event its own label is not known.
        """
        after_rows = (time + 1 for time in self._random().permutation(self._sampled(real))[:_MORE_CUTS].tolist())
        found = 0
        for cut_us in (self.cut_us, *after_rows):
            if found < _FEWEST_FLIPPED and (times := self.tables.unknown_label_times(cut_us, self.gap_us)):
                found += len(times)
                yield cut_us, times

    def _judge_copies(self, real: pa.Table, later_us: int) -> None:
        """Look for rows that change with more rows at all sampled times; a time with more rows at it alone proves it.

        For what happened earlier a row may change.
        """
        times = self._sampled(real)
        there = _rows(real, np.isin(_times(real), times))
        changed = self._lost(there, self._kept(self._copies.run(times, later_us)))
        suspects = {column: lost for column, lost in changed if column not in {ROWS, *self._named}}
        for time in _each_often({column: np.unique(_times(lost)) for column, lost in suspects.items()}, _ALONE):
            if suspects.keys() <= self._named.keys():
                break
            there = _rows(real, _times(real) == time)
            for column, lost in self._lost(there, self._kept(self._copies.run([time], later_us))):
                if column in suspects:
                    when = "a microsecond later" if later_us else "at the very same time"
                    evidence = f"with more rows {when} it changes in {_told(lost, there)}"
                    self._name("future_window" if later_us else "current_row", column, evidence)

    def _name(self, name: AlarmName, column: str, evidence: str) -> None:
        self._named.setdefault(column, Alarm(name, f"{column} (spine)", evidence))

    def _random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def _sampled(self, real: pa.Table) -> list[int]:
        """Return event times of some rows, first of rows without a time or key in common: no copy of one changes another."""
        start, end = self.sampled_us
        all_times = _times(real)
        number, often = np.unique(all_times, return_inverse=True, return_counts=True)[1:]
        picked = self._random().permutation(np.flatnonzero((all_times >= start) & (all_times < end)))[:_LOOKED_AT]
        rows, times = real.take(pa.array(picked)), all_times[picked].tolist()
        alone = (often[number[picked]] == 1).tolist()
        seen: set[tuple[int, object]] = set()
        chosen: dict[int, None] = {}
        for time, by_itself, *keys in zip(times, alone, *(rows[k].to_pylist() for k in self.tables.keys), strict=True):
            named = set(enumerate(keys))
            if by_itself and not seen & named and len(chosen) < _SAMPLED:
                seen |= named
                chosen[time] = None
        for time in times:
            if len(chosen) < _FEWEST_SAMPLED:
                chosen[time] = None
        return sorted(chosen)

    def _kept(self, rows: pa.Table) -> pa.Table:
        """Return the columns that are compared, the time in microseconds."""
        time = rows[EVENT_TIMESTAMP].cast(ARROW_TYPES["timestamp"]).cast(pa.int64())
        columns = [*self.tables.keys, *self._given(rows), self.tables.recipe.label]
        return rows.select(columns).append_column(EVENT_TIMESTAMP, time)

    def _given(self, *tables: pa.Table) -> list[str]:
        return [column for column in self.inputs if all(column in rows.column_names for rows in tables)]

    def _changed(self, before: pa.Table, after: pa.Table, cut_us: int) -> Iterator[tuple[str, pa.Table]]:
        """Yield what `_lost` does of rows before a time, and as `ROWS` those too that only come by the change."""
        after = _rows(after, _times(after) < cut_us)
        came = [rows for column, rows in self._lost(after, before, []) if column == ROWS]
        changed = dict(self._lost(before, after))
        gone = [changed.pop(ROWS)] if ROWS in changed else []
        if came or gone:
            yield ROWS, pa.concat_tables([*gone, *came])
        yield from changed.items()

    def _lost(
        self, before: pa.Table, after: pa.Table, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield each column that changed, with the rows whose value is gone; as `ROWS` those that are gone themselves."""
        place = [EVENT_TIMESTAMP, *self.tables.keys]
        with self.tables.connection.cursor() as engine:
            engine.register("before", before)
            engine.register("after", after)
            gone = engine.sql(_except(place)).to_arrow_table()
            if gone.num_rows:
                yield ROWS, gone
            engine.register("gone", gone)
            same = " AND ".join(f"x.{quote(c)} IS NOT DISTINCT FROM y.{quote(c)}" for c in place)
            for column in self._given(before, after) if columns is None else columns:
                sql = f"FROM ({_except([*place, column])}) AS x WHERE NOT EXISTS (FROM gone AS y WHERE {same})"
                if pa.types.is_floating(before.schema.field(column).type):
                    x, y = f"x.{quote(column)}", f"y.{quote(column)}"
                    spread = _spread(before[column])
                    close = f"abs({x} - {y}) <= {_CLOSE} * greatest(abs({x}), abs({y}), {spread!r})"
                    sql += f" AND NOT EXISTS (FROM after AS y WHERE {same} AND {close})"
                lost = engine.sql(sql).to_arrow_table()
                if lost.num_rows:
                    yield column, lost


def _each_often(times: Mapping[str, NDArray[np.int64]], often: int) -> list[int]:
    """Return so few times that each column has that many of its own among them, or all it has: every one costs a run."""
    columns = Counter(int(time) for of in times.values() for time in of)
    chosen: set[int] = set()
    for of in times.values():
        wanted = min(often, len(of)) - len(chosen.intersection(of.tolist()))
        shared = sorted(set(of.tolist()) - chosen, key=lambda time: (-columns[time], time))
        chosen.update(shared[: max(0, wanted)])
    return sorted(chosen)


def _spread(values: pa.ChunkedArray) -> float:
    """Return the median distance from the median: what a sum that comes close to 0 is small against."""
    numbers = values.cast(pa.float64()).drop_null().to_numpy()
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(np.abs(numbers - np.median(numbers)))) if len(numbers) else 0.0


def _except(columns: Sequence[str]) -> str:
    names = ", ".join(map(quote, columns))
    return f"SELECT {names} FROM before EXCEPT ALL SELECT {names} FROM after"


def _times(rows: pa.Table) -> NDArray[np.int64]:
    return rows[EVENT_TIMESTAMP].to_numpy()


def _rows(rows: pa.Table, which: NDArray[np.bool_]) -> pa.Table:
    return rows.filter(pa.array(which))


def _told(lost: pa.Table, of: pa.Table) -> str:
    """Return how many rows and when the latest of them is; no key, for an erased one is not looked for in evaluations."""
    return f"{lost.num_rows} of {of.num_rows} rows, the latest at {_moment(int(_times(lost).max()))}"


def _moment(time_us: int) -> str:
    return from_micros(time_us).isoformat()
