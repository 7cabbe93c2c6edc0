"""A PostgreSQL server of our own on a loopback port, as an unprivileged user."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, usable_port

_USER = "postgres"


def binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`; None if they are not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def postgresql(folder: Path) -> Generator[str]:
    """Run a server; give the SQLAlchemy address of its database `postgres`."""
    where, port = binaries(), usable_port(0)
    assert where, "the caller has looked"
    # The server refuses to run as root, so it gets a folder of its own outside the test's, which is root's alone.
    as_user = [shutil.which("setpriv") or "setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
    prefix = as_user if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="lockstep-postgresql-") as data:
        if prefix:
            shutil.chown(data, _USER, _USER)
        made = [
            *prefix,
            str(where / "initdb"),
            "--auth=trust",
            "--username=lockstep",
            "--no-sync",
            f"--pgdata={data}/db",
        ]
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        options = ["-c", f"listen_addresses={LOOPBACK}", "-c", f"port={port}", "-c", "fsync=off", "-k", data]
        child = Child(
            "postgresql", [*prefix, str(where / "postgres"), "-D", f"{data}/db", *options], folder / "postgresql.log"
        )
        try:
            ready = [str(where / "pg_isready"), "-h", LOOPBACK, "-p", str(port), "-t", "20"]
            for _ in range(100):
                child.require_running()
                if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                    break
            yield f"postgresql+psycopg://lockstep@{LOOPBACK}:{port}/postgres"
        finally:
            child.stop()
