"""Reading features online: our reader against stock Feast's, of the same bytes in one Redis.

A request asks for 25 features of some entities: five views of one entity. The peer is `FeatureStore.get_online_features(...)`
and its `to_dict()`, given the entities as columns, the form it makes of rows. Ours runs in the event loop that it is served in
and reads more: each row's event and created time, its status, and the epoch hash before and after, all in one round trip. The
limit is a blocking socket that is sent the same commands, encoded before, and reads as many bytes as answer them. Requests draw
their entities anew, the three take turns, and the values of ours and of the peer are compared before anything is measured.
"""

import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import hiredis
import numpy as np

from benchmarks._online import KEY, PROJECT, OurReader, Request, draw, feast_store, fill, make_contract
from benchmarks._table import cpu_seconds, show
from lockstep.local.redis import LocalRedis
from lockstep.online.copies import epoch_key
from lockstep.online.layout import EntityKeys, fields_of
from lockstep.online.store import connect
from lockstep.settings import Settings

if TYPE_CHECKING:
    import feast

NOON_US = 1_527_854_400_000_000  # 2018-06-01T12:00:00Z
CONTRACT = make_contract(
    {
        "amount_mean_7d": "float64",
        "amount_mean_30d": "float64",
        "nb_tx_7d": "int64",
        "nb_tx_30d": "int64",
        "last_merchant": "string",
    }
)
VIEWS = CONTRACT.views
CASES = {1: 2_000, 10: 1_000, 100: 300}  # entities a request: requests a round
QUICK_CASES = {1: 300, 10: 100, 100: 40}
READERS = ("ours", "peer", "limit")

Send = Callable[[Sequence[Request]], list[int]]


class Peer:
    """A stock Feast with a SQL registry, which it holds in memory, and the same Redis."""

    def __init__(self, store: "feast.FeatureStore") -> None:
        self._features = [f"{view.name}:{column.name}" for view in VIEWS for column in view.columns]
        self._store = store

    def values(self, request: Request) -> dict[str, list[Any]]:
        """Return what a request is answered, by feature; the join key among it, as Feast has it."""
        return self._store.get_online_features(features=self._features, entity_rows=request).to_dict()

    def send(self, requests: Sequence[Request]) -> list[int]:
        """Answer the requests one after another; return what each took, in nanoseconds."""
        taken: list[int] = []
        for request in requests:
            start = time.perf_counter_ns()
            self.values(request)
            taken.append(time.perf_counter_ns() - start)
        return taken


class Limit:
    """A blocking socket: our commands, encoded before; as many bytes as answer them, read and thrown away."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._prepared: dict[int, tuple[bytes, int]] = {}

    def prepare(self, request: Request) -> None:
        """Encode a request and find out how long its answer is; the answer's length does not change."""
        keys = EntityKeys(PROJECT, (KEY,)).encode(request)
        fields = [field for view in VIEWS for field in fields_of(view)]
        epoch = ("HGETALL", epoch_key(PROJECT))
        commands = [epoch, *(("HMGET", key, *fields) for key in keys), epoch]
        sent = b"".join(map(hiredis.pack_command, commands))  # pyright: ignore[reportArgumentType] - stub says one word
        self._connection.sendall(sent)
        reader, length, missing = hiredis.Reader(), 0, len(commands)
        while missing:
            received = self._connection.recv(1 << 16)
            length += len(received)
            reader.feed(received)
            while missing and reader.gets() is not False:
                missing -= 1
        self._prepared[id(request)] = (sent, length)

    def send(self, requests: Sequence[Request]) -> list[int]:
        """Answer the requests one after another; return what each took, in nanoseconds."""
        taken: list[int] = []
        for request in requests:
            sent, missing = self._prepared[id(request)]
            start = time.perf_counter_ns()
            self._connection.sendall(sent)
            while missing:
                missing -= len(self._connection.recv(1 << 16))
            taken.append(time.perf_counter_ns() - start)
        return taken


@contextmanager
def readers(home: Path, stored: int) -> Generator[tuple[OurReader, Peer, Limit]]:
    with LocalRedis(home) as local:
        settings = local.settings(Settings(home=home))
        with connect(settings) as client:
            fill(client, VIEWS, stored, NOON_US)
        with (
            closing(OurReader(settings, CONTRACT, NOON_US)) as ours,
            socket.create_connection(("127.0.0.1", local.port)) as connection,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield ours, Peer(feast_store(home, local.port, VIEWS)), Limit(connection)


def require_equal(ours: OurReader, peer: Peer, requests: Sequence[Request]) -> None:
    for request in requests:
        found, theirs = ours.values(request), peer.values(request)
        if found != theirs or any(None in column for column in found.values()):
            raise click.ClickException(f"ours and the peer give different values, or not all, for {request}")


def measure(cases: dict[int, int], repeats: int, stored: int, home: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with readers(home, stored) as (ours, peer, limit):
        sends: dict[str, Send] = {"ours": ours.send, "peer": peer.send, "limit": limit.send}
        for entities, count in cases.items():
            requests = draw(count, entities, stored)
            for request in requests:
                limit.prepare(request)
            require_equal(ours, peer, requests[:20])
            figures: dict[str, list[float]] = defaultdict(list)
            for _ in range(repeats):
                for name, send in sends.items():
                    taken: list[int] = []
                    seconds = cpu_seconds(lambda send=send, taken=taken, asked=requests: taken.extend(send(asked)))
                    figures[f"{name}_p50_us"].append(float(np.percentile(taken, 50)) / 1_000)
                    figures[f"{name}_p99_us"].append(float(np.percentile(taken, 99)) / 1_000)
                    figures[f"{name}_cpu_us"].append(seconds / count * 1_000_000)
            rows.append(row(entities, count, repeats, figures))
    return rows


def row(entities: int, count: int, repeats: int, figures: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(of_rounds) for name, of_rounds in figures.items()}
    return {
        "case": f"{entities} x {sum(len(view.columns) for view in VIEWS)} features",
        "entities": entities,
        "requests": count,
        "repeats": repeats,
        **{name: round(value) for name, value in medians.items()},
        "ratio": round(medians["peer_p50_us"] / medians["ours_p50_us"], 1),
        "ratio_limit": round(medians["ours_p50_us"] / medians["limit_p50_us"], 1),
    }


HEADINGS = {
    "case": "microseconds a request",
    **{f"{name}_p50_us": f"wall p50: {name}" if name == "ours" else name for name in READERS},
    "ratio": "peer/ours",
    "ratio_limit": "ours/limit",
    **{f"{name}_p99_us": f"p99: {name}" if name == "ours" else name for name in READERS},
    **{f"{name}_cpu_us": f"CPU: {name}" if name == "ours" else name for name in READERS},
}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer requests, of fewer entities.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Each figure is their median.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, repeats: int, json_file: Path | None) -> None:
    """Print wall and CPU microseconds a request, a row a case: ours, peer, limit and ratios."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as home:
        measured = measure(QUICK_CASES if quick else CASES, repeats, 2_000 if quick else 20_000, Path(home))
    show(measured, HEADINGS, json_file)


if __name__ == "__main__":
    main()
