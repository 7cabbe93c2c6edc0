"""Real stores of each kind, on free loopback ports: one server, a primary behind Sentinels, a cluster of three primaries."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port, listens, usable_port
from lockstep.local.redis import redis_server
from lockstep.settings import Settings

KINDS = ("standalone", "sentinel", "cluster")
SERVICE = "online"
SLOTS = 16_384
_SECONDS = 20.0


def until(holds: Callable[[], object], what: str, seconds: float = _SECONDS) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < deadline, f"{what}: not in {seconds:g} s"
        time.sleep(0.02)


@contextmanager
def hanging(*processes: int | None) -> Iterator[None]:
    """Stop processes, given by their ids, which the kernel goes on taking connections for."""
    pids = [pid for pid in processes if pid is not None]
    assert len(pids) == len(processes)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Server:
    """One Redis process with options of its own, on the same port each time it is started."""

    def __init__(self, home: Path, options: Mapping[str, str] | None = None, *, sentinel: str = "") -> None:
        self.home = home
        self.port = _port()
        self.options = dict(options or {})
        self._sentinel = sentinel
        self._child: Child | None = None
        self.client = redis.Redis(port=self.port, socket_timeout=5)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        command = [str(redis_server())]
        if self._sentinel:  # a Sentinel writes down what it finds out
            file = self.home / "sentinel.conf"
            if not file.exists():
                file.write_text(f"port {self.port}\nbind {LOOPBACK}\ndir {self.home}\n{self._sentinel}")
            command += [str(file), "--sentinel"]
        else:
            plain = {"bind": LOOPBACK, "port": str(self.port), "dir": str(self.home), "save": ""}
            for name, value in {**plain, "repl-diskless-sync-delay": "0", **self.options}.items():
                command += [f"--{name}", *value.split()] if value else [f"--{name}", ""]
        self._child = child = Child(f"redis {self.port}", command, self.home / "log")
        until(lambda: child.require_running() or (listens(child.pid, self.port) and self.client.ping()), "a server")
        return self

    def stop(self) -> None:
        self.client.close()
        if self._child:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End it as the kernel would."""
        assert self._child
        self._child._process.kill()
        self._child._process.wait()
        self._child = None
        self.client.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _port() -> int:
    """Return a free port of which the one 10 000 above, where nodes of a cluster talk, is free too."""
    while True:
        port = free_port()
        if port < 55_000 and usable_port(port + 10_000) == port + 10_000:
            return port


class Watched:
    """A primary, a replica and three Sentinels."""

    def __init__(self, home: Path, down_ms: int = 500) -> None:
        self.primary = Server(home / "primary")
        self.replica = Server(home / "replica", {"replicaof": f"{LOOPBACK} {self.primary.port}"})
        words = (
            f"sentinel monitor {SERVICE} {LOOPBACK} {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_ms}\n"
            f"sentinel failover-timeout {SERVICE} 4000\n"
        )
        self.sentinels = [Server(home / f"sentinel{n}", sentinel=words) for n in range(3)]

    @contextmanager
    def running(self) -> Iterator[Self]:
        with ExitStack() as stack:
            for server in (self.primary, self.replica, *self.sentinels):
                stack.enter_context(server)
            until(lambda: self.primary.client.info("replication")["connected_slaves"] == 1, "a replica")
            until(lambda: all(self._sees(s) for s in self.sentinels), "the Sentinels")
            yield self

    def _sees(self, sentinel: Server) -> bool:
        found = sentinel.client.sentinel_master(SERVICE)
        return found["num-slaves"] == 1 and found["num-other-sentinels"] == 2

    def settings(self, settings: Settings) -> Settings:
        nodes = tuple(f"{LOOPBACK}:{s.port}" for s in self.sentinels)
        return settings.model_copy(
            update={"redis_mode": "sentinel", "redis_nodes": nodes, "redis_sentinel_service": SERVICE}
        )


class Clustered:
    """Primaries that share the slots evenly but for `empty` ones, the first with replicas if so many are wanted."""

    def __init__(self, home: Path, primaries: int = 3, replicas: int = 0, empty: int = 0) -> None:
        on = {"cluster-enabled": "yes", "cluster-node-timeout": "1500", "cluster-replica-validity-factor": "0"}
        on["cluster-allow-replica-migration"] = "no"  # else a primary whose last slot goes becomes a replica
        self.servers = [Server(home / f"node{n}", on) for n in range(primaries + replicas)]
        self.primaries, self.replicas = self.servers[:primaries], self.servers[primaries:]
        share = -(-SLOTS // (primaries - empty))
        self._ranges = [range(n * share, min(SLOTS, (n + 1) * share)) for n in range(primaries - empty)]

    @contextmanager
    def running(self) -> Iterator[Self]:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            first = self.primaries[0]
            for server, slots in zip(self.primaries, self._ranges, strict=False):
                server.client.execute_command("CLUSTER ADDSLOTS", *slots)
            for number, server in enumerate(self.servers):
                server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for server in self.servers[1:]:
                first.client.execute_command("CLUSTER MEET", LOOPBACK, server.port)
            self.agree()
            for replica in self.replicas:
                until(lambda r=replica: r.client.execute_command("CLUSTER REPLICATE", self.id(first)), "a replica")
                until(lambda r=replica: r.client.info("replication")["master_link_status"] == "up", "a replica")
            until(lambda: len(first.client.cluster("SLOTS")[0]) == 3 + len(self.replicas), "the replicas")
            yield self

    def id(self, server: Server) -> str:
        return server.client.execute_command("CLUSTER MYID").decode()

    def agree(self) -> None:
        """Wait until every node knows of all and has all slots served."""
        for server in self.servers:
            until(lambda s=server: self._settled(s.client), "the cluster")

    def _settled(self, client: redis.Redis) -> bool:
        info = client.cluster("INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.servers)

    def settings(self, settings: Settings) -> Settings:
        nodes = tuple(f"{LOOPBACK}:{server.port}" for server in self.primaries)
        return settings.model_copy(update={"redis_mode": "cluster", "redis_nodes": nodes})

    def flush(self) -> None:
        for server in self.primaries:
            server.client.flushall()

    def begin_move(self, slots: Sequence[int], source: Server, target: Server) -> None:
        """Open slots for moving."""
        for slot in slots:
            target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
            source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))

    def move_keys(self, slots: Sequence[int], source: Server, target: Server) -> None:
        for slot in slots:
            while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
                source.client.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 5_000, "REPLACE", "KEYS", *keys)

    def end_move(self, slots: Sequence[int], target: Server) -> None:
        for slot in slots:
            for server in (target, *(p for p in self.primaries if p is not target)):
                server.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def move(self, slots: Sequence[int], source: Server, target: Server) -> None:
        """Hand slots from one primary to another, with their rows."""
        self.begin_move(slots, source, target)
        self.move_keys(slots, source, target)
        self.end_move(slots, target)
