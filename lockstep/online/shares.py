"""Send the writer's rows to a Redis Cluster: to each primary its own share, all of them at work at once.

A call's keys have to be in one slot, so rows are ordered by slot, and as many of a part go into one call as share theirs. Rows
whose slot was moved meanwhile are sent again, one by one, to where they belong now.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import TryAgainError

from lockstep.online.cluster import Layout, client_of, followed, is_moving, refreshed, settled
from lockstep.online.layout import EncodedRows
from lockstep.online.sender import Batch, Line, ahead, batch_of


@dataclass(frozen=True)
class _Share(Batch):
    """A batch with its rows, which may have to go elsewhere."""

    encoded: EncodedRows

    def commands(self, script: str, call: int) -> Iterator[list[Any]]:
        """Yield the rows of a call, each in a call of its own: of two keys of a slot one may be on its way."""
        rows, first = self.encoded, sum(self.calls[:call])
        for row in range(first, first + self.calls[call]):
            named = [(field, column[row]) for field, column in zip(rows.fields, rows.columns, strict=True)]
            yield ["EVAL", script, 1, rows.keys[row], *chain.from_iterable(named)]


def send_shares(cluster: RedisCluster, script: str, parts: Iterable[EncodedRows]) -> Iterator[tuple[Batch, int]]:
    """Send rows; yield each primary's share of a part with what its calls answered, added up.

    Two shares are under way to each primary at a time, and no more are held.

    Args:
        cluster: each of its primaries is sent what it has the slots of.
        script: what the rows are the arguments of.
        parts: they are drawn as they are needed, by another thread, one ahead.

    Raises:
        Transient: a primary does not answer, or slots are moved faster than rows can follow; what was accepted stays.
        Terminal: one refuses: full, no permission.
    """
    sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    with ExitStack() as open_lines:
        routes = _Routes(cluster, script, open_lines)
        for shares in ahead(_shares(routes.layout, sha, part) for part in parts):
            for node, share in shares:
                line = routes.line(node)
                line.send(share)
                if line.is_full:
                    yield routes.answered(line)
        for line in routes.lines:
            while line.under_way:
                yield routes.answered(line)


class _Routes:
    """The lines to a cluster's primaries, and which slots each has; that is asked again once a slot was moved."""

    def __init__(self, cluster: RedisCluster, script: str, open_lines: ExitStack) -> None:
        self._cluster = cluster
        self._script = script
        self._open = open_lines
        self._lines: dict[str, Line] = {}
        self.layout = refreshed(cluster)

    @property
    def lines(self) -> list[Line]:
        return list(self._lines.values())

    def line(self, node: str) -> Line:
        if node not in self._lines:
            self._lines[node] = self._open.enter_context(Line(client_of(self._cluster, node), self._script))
        return self._lines[node]

    def answered(self, line: Line) -> tuple[Batch, int]:
        batch, answers = line.answer()
        moved = {call: answer for call, answer in enumerate(answers) if is_moving(answer)}
        if moved and isinstance(batch, _Share):
            for call, answer in moved.items():
                # Redis before 7 says ASK of a call's keys where just some of them have gone. To write the others there, too,
                # would make a second row, which the older one replaces in the end: alone each is told where it is.
                alone = answer if batch.calls[call] == 1 else TryAgainError()
                again = [followed(self._cluster, command, alone) for command in batch.commands(self._script, call)]
                answers[call] = sum(settled(again))
            self.layout = refreshed(self._cluster)
        return batch, sum(settled(answers))


def _shares(layout: Layout, sha: str, part: EncodedRows) -> list[tuple[str, Batch]]:
    """Divide rows among the primaries."""
    slots = list(map(key_slot, part.keys))
    owners = [layout.owners[slot] for slot in slots]
    rows = sorted(range(len(slots)), key=lambda row: (owners[row], slots[row]))
    by_owner = groupby(rows, key=owners.__getitem__)
    return [(layout.shards[owner].node, _share(sha, part, slots, list(own))) for owner, own in by_owner]


def _share(sha: str, part: EncodedRows, slots: Sequence[int], rows: list[int]) -> _Share:
    calls = [len(list(same)) for _, same in groupby(rows, key=slots.__getitem__)]
    own = EncodedRows(
        keys=[part.keys[row] for row in rows],
        fields=part.fields,
        columns=[[column[row] for row in rows] for column in part.columns],
        pairs=[part.pairs[row] for row in rows],
    )
    batch = batch_of(sha, own, calls)
    return _Share(batch.rows, batch.message, batch.calls, batch.digest, own)
