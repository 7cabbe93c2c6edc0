"""Erase one entity: from every table of the lake and all that it was, from the online store, from the served log; with a receipt.

Erasure wins over tags: a snapshot that holds the entity goes, whatever it was kept for, and the receipt says what that was.

    receipt   the ledger says `planned`, before anything else: an interrupted erasure is known, and the next run takes it up
    drain     rows of the served log that wait in their stream go to the lake, where they are dealt with like all others
    lake      table after table, sources first: one commit that leaves no snapshot with the entity, then the files are removed.
              What is about to go is in the receipt before the commit, so a run that ends between the two leaves no file behind
    again     all tables once more, until every living snapshot of every table was read and the entity is in none
    online    last: as long as the lake has its rows, whoever brings a view online rightly writes them
    receipt   the ledger says `done`

Nothing may be half done when it begins: neither a planned range of ticks nor an interval, which name snapshots that go. One that
is planned while it runs is found before the online rows go. A range of ticks is then computed from what the erasure has left. In
both cases it ends as transient and is to be run again, since the entity may come back behind it. (A run that was taken for dead
and writes after all is found by the view's next one, which compares the store with the lake where history has expired.)

A request that names the entity after its erasure began is a new row of the served log, like any later event in a source.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from lockstep.contract import Column
from lockstep.errors import BadInput, Terminal, Transient, VerificationFailed, nearest
from lockstep.lake import Lake
from lockstep.lake.erase import Held, KeyInTable, Wanted, was_made
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow, State
from lockstep.materialize.receipts import Erasures, Outcome, Receipt, TableErased, UnderWay
from lockstep.online.layout import EntityKeys
from lockstep.online.store import Store, answering, connect_log
from lockstep.serving.drain import drain
from lockstep.serving.log_rows import SERVED_LOG, read_row, stream_key
from lockstep.settings import Settings
from lockstep.views.declare import Entity, StoredView
from lockstep.views.use_case import UseCase

_ROUNDS = 4
_STREAM_ROWS = 10_000
_KEYS_OF_ROW = "entity_keys"
_TRAINING_TAG = "training-"


@dataclass(frozen=True)
class Key:
    """One entity's key.

    Attributes:
        entity: of which entity.
        value: of its type.
        online: the key of its hash in the online store.
    """

    entity: Entity
    value: int | str
    online: bytes

    @property
    def sha256(self) -> str:
        """What a receipt says of the key: whoever has a key can tell whether it is this one."""
        return hashlib.sha256(self.online).hexdigest()


def read_key(use_case: UseCase, entity: str, text: str) -> Key:
    """Read a key as a person writes it.

    Raises:
        BadInput: there is no such entity, or the text is no key of it.
        NotYetSupported: its keys are of a type that is not kept online.
    """
    named = {declared.name: declared for declared in use_case.entities}
    if entity not in named:
        raise BadInput(f"there is no entity {entity!r}", hint=nearest(entity, named))
    declared = named[entity]
    keys = EntityKeys(use_case.project, [Column(name=declared.join_key, dtype=declared.dtype)])
    value: int | str = text
    if declared.dtype != "string":
        try:
            value = int(text)
        except ValueError:
            raise BadInput(
                f"{text!r} is no key of {entity}: {declared.join_key} is an {declared.dtype}",
                hint="give a whole number",
            ) from None
    return Key(declared, value, keys.encode({declared.join_key: [value]})[0])


class Erasure:
    """Erases entities of one project.

    Args:
        settings: the clock, and where the ledger is.
        use_case: what declares entities and views.
        lake: the project's tables.
        ledger: what is planned.
        store: the online store.
        progress: told in a few words what was done.
    """

    def __init__(
        self,
        settings: Settings,
        use_case: UseCase,
        lake: Lake,
        ledger: Ledger,
        store: Store,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._use_case = use_case
        self._lake = lake
        self._ledger = ledger
        self._store = store
        self._log = connect_log(settings) if settings.served_log_url.get_secret_value() else store
        self._receipts = Erasures.open(settings, use_case.project)
        self._progress = progress

    def preview(self, key: Key) -> Outcome:
        """Return what would go; nothing is changed.

        Raises:
            SchemaDrift: a table has the join key with another type, or an entry of the served log's stream is no row.
            NotYetSupported: a table has files of deletes, or once had a column of that name.
        """
        outcome = Outcome()
        for name, wanted in self._tables(key).items():
            held = KeyInTable(self._lake.table(name), wanted).held()
            if held is not None:
                outcome = outcome.with_table(name, _erased(held))
        with answering():
            online = cast("int", self._store.exists(key.online))
        return outcome.with_online(len(self._stream_entries(key)), online)

    def erase(self, key: Key) -> Receipt:
        """Erase an entity, or finish an erasure of it that was interrupted; return the receipt.

        Raises:
            SchemaDrift: a table has the join key with another type: nothing was changed. Or an entry of the served log's stream
                is no row: the next run goes on once it is gone.
            NotYetSupported: a table has files of deletes, or once had a column of that name; nothing was changed.
            Transient: a view is being computed or brought online, or another writer was faster. What is erased stays so, and the
                next run goes on from there.
            Terminal: a file could not be removed; the next run tries it again.
        """
        for name, wanted in self._tables(key).items():
            KeyInTable(self._lake.table(name), wanted)
        self._require_settled()
        now = self._settings.clock.now()
        receipt = self._receipts.plan(key.entity.name, key.entity.join_key, key.sha256, now)
        self._progress(f"erasure {receipt.id} is planned")
        receipt = self._settle(receipt)
        self._drain()
        receipt = self._erase_lake(receipt, key)
        return self._receipts.finish(self._erase_online(receipt, key), self._settings.clock.now())

    def _tables(self, key: Key) -> dict[str, Wanted]:
        """Return the tables that may hold the entity, sources first: what is computed from now on is computed without it."""
        join_key = key.entity.join_key
        found: dict[str, Wanted] = {}
        for name in self._lake.tables():
            if name == SERVED_LOG:
                found[name] = Wanted(_KEYS_OF_ROW, key.value, within=join_key)
            elif any(join_key in schema.column_names for schema in self._lake.table(name).schemas().values()):
                found[name] = Wanted(join_key, key.value)
        sources = {source.table for source in self._use_case.sources}
        return dict(sorted(found.items(), key=lambda item: (item[0] not in sources, item[0])))

    def _require_settled(self) -> None:
        """Refuse to begin while something is planned that names a snapshot.

        Raises:
            Transient: there is such a thing.
        """
        for view in self._use_case.views:
            if any(row.state is not State.COMMITTED for row in self._ledger.computes(view.name)):
                raise Transient(
                    f"a range of ticks of {view.name} is planned and not computed",
                    hint="let its run end; if none is under way, `lockstep run compute-and-materialize` finishes it",
                )
            if row := self._unfinished(view):
                raise Transient(
                    f"interval {row.id} of {view.name} is being brought online",
                    hint=f"let its run end; if none is under way, `lockstep materialize {view.name}` finishes it",
                )

    def _unfinished(self, view: StoredView) -> MaterializeRow | None:
        """Return the interval of the view's table that is being brought online, if any."""
        if not self._lake.exists(view.table):
            return None
        rows = self._ledger.materializations(view.name, self._lake.table_uuid(view.table))
        return next((row for row in rows if row.state is not State.COMMITTED), None)

    def _drain(self) -> None:
        with answering():
            waits = cast("int", self._log.exists(stream_key(self._use_case.project)))
        if waits:
            drained = drain(self._lake, self._log, self._use_case.project)
            self._progress(f"{drained.rows:,} rows of the served log drained")

    def _erase_lake(self, receipt: Receipt, key: Key) -> Receipt:
        for _ in range(_ROUNDS):
            before = receipt
            for name, wanted in self._tables(key).items():
                receipt = self._erase_table(receipt, name, wanted)
            if receipt == before:  # a round in which every living snapshot was read, and none holds the entity
                return receipt
        raise Transient(
            "a writer brings the entity back, again and again", hint="stop ingesting it, and erase it again"
        )

    def _erase_table(self, receipt: Receipt, name: str, wanted: Wanted) -> Receipt:
        inside = KeyInTable(self._lake.table(name), wanted)
        held = inside.held()
        if held is None:
            return receipt
        mark = f"{receipt.id}/{hashlib.sha256(orjson.dumps([name, held.snapshots])).hexdigest()[:16]}"
        receipt = self._receipts.begin(receipt, UnderWay(name, mark, _erased(held), held.files))
        self._progress(f"{name}: about to go")
        inside.erase(held, mark)
        self._progress(f"{name}: committed")
        return self._settle(receipt)

    def _settle(self, receipt: Receipt) -> Receipt:
        """Remove the files of a commit that was under way, if it was made, and note what went with it."""
        under_way = receipt.under_way
        if under_way is None:
            return receipt
        table = self._lake.table(under_way.table)
        if not was_made(table, under_way.mark, under_way.files):
            return self._receipts.end(receipt, receipt.outcome)
        for path in under_way.files:
            try:
                table.io.delete(path)
            except FileNotFoundError:
                continue
            except OSError as failure:
                raise Terminal(
                    f"{path} still holds what was to be erased, and cannot be removed: {failure}",
                    hint="see to it that it can be, and erase again: that goes on from here",
                ) from failure
        if left := [path for path in under_way.files if table.io.new_input(path).exists()]:
            raise VerificationFailed(f"{left[0]} was removed and is still there", hint="erase again")
        erased = under_way.erased
        self._progress(f"{under_way.table}: {erased.rows:,} rows gone, {erased.files:,} files removed")
        return self._receipts.end(receipt, receipt.outcome.with_table(under_way.table, erased))

    def _erase_online(self, receipt: Receipt, key: Key) -> Receipt:
        self._require_nothing_from_before()
        entries = self._stream_entries(key)
        with answering():
            if entries:
                self._log.xdel(stream_key(self._use_case.project), *entries)
            gone = cast("int", self._store.unlink(key.online))
        self._progress(f"{gone} hashes of the online store gone")
        return self._receipts.end(receipt, receipt.outcome.with_online(len(entries), gone))

    def _require_nothing_from_before(self) -> None:
        """Refuse to go on while something is under way that was planned before the lake was without the entity.

        Raises:
            Transient: there is such a thing.
        """
        for table in {view.source.table for view in self._use_case.views}:
            current = self._lake.current(table) if self._lake.exists(table) else None
            alive = {s.id for s in self._lake.snapshots(table)} if current else set[int]()
            if current and self._ledger.move_sources(table, alive, current.id):
                raise Transient(
                    f"a range of ticks is being computed from {table} as it was with the entity",
                    hint="let its run end, or run `lockstep run compute-and-materialize`; then erase again",
                )
        for view in self._use_case.views:
            row = self._unfinished(view)
            if row and row.snapshot_id not in {s.id for s in self._lake.snapshots(view.table)}:
                raise Transient(
                    f"interval {row.id} of {view.name} is being brought online as it was with the entity",
                    hint=f"let its run end, or run `lockstep materialize {view.name}`; then erase again",
                )

    def _stream_entries(self, key: Key) -> list[bytes]:
        """Return the ids of the rows in the served log's stream that name the entity."""
        stream, last = stream_key(self._use_case.project), b"-"
        found: list[bytes] = []
        while True:
            with answering():
                answer = self._log.xrange(stream, min=last.decode(), max="+", count=_STREAM_ROWS)
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
            if not entries:
                return found
            found += [name for name, fields in entries if _names(read_row(name, fields), key)]
            last = b"(" + entries[-1][0]


def _names(row: Mapping[str, Any], key: Key) -> bool:
    return orjson.loads(row[_KEYS_OF_ROW]).get(key.entity.join_key) == key.value


def _erased(held: Held) -> TableErased:
    """Return what goes, as a receipt says it: a tag with the training set that it was set for."""
    refs = {
        name: f"training set {name.replace('-', '_')}" if name.startswith(_TRAINING_TAG) else kind
        for name, kind in held.refs.items()
    }
    return TableErased(held.rows, refs, len(held.snapshots), len(held.files))
