"""Start a KServe model server the way both our processes need it.

What KServe 0.21 does by default and this changes: with one worker it never uses uvloop; it logs three lines a request; it
opens a gRPC port; it listens on every interface. More than one worker breaks a transformer (the predictor's address lives in
a context variable that spawned workers do not inherit), so one process is one worker and replicas are the scale.
"""

import argparse
import asyncio
import copy
import gc
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import uvloop
from kserve import ModelServer, logging, model_server

from lockstep.errors import LockstepError
from lockstep.serving.edge import App, Edge


class _Server(ModelServer):
    """Listens on one interface, behind our own edge; KServe has an option for neither."""

    host = "0.0.0.0"  # noqa: S104 - in a pod, the Service must reach it
    edge: App | None = None

    async def _serve(self) -> None:
        # What is imported stays. A full collection would look through all of it, which takes 0.17 s, and requests wait so long.
        gc.collect()
        gc.freeze()
        if self._rest_server is not None and self.edge is not None:
            config = self._rest_server.config
            config.host, config.app, config.proxy_headers = self.host, self.edge, False
        await super()._serve()


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with KServe's own arguments and those that both processes take."""
    parser = argparse.ArgumentParser(description=description, parents=[model_server.parser])
    parser.add_argument("--model_dir", required=True, help="the folder that MLmodel is in")
    parser.add_argument("--http_host", default=_Server.host, help="the interface to listen on")
    return parser


def use_uvloop() -> None:
    """Make uvloop the event loop; KServe asks for the current loop before it runs one, so there must be one."""
    # KServe calls asyncio.run, which takes its loop from the policy.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # pyright: ignore[reportDeprecated] - from 3.14 on
    asyncio.set_event_loop(asyncio.new_event_loop())


def run(main: Callable[[], None]) -> None:
    """Run a process's main function; what ends it on purpose is told in words, and by its exit code.

    Raises:
        SystemExit: a `LockstepError` ended it.
    """
    try:
        main()
    except LockstepError as failure:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        raise SystemExit(failure.exit_code) from None


def serve(models: Sequence[Any], host: str, port: int, budget: timedelta, most_bytes: int) -> None:
    """Serve models until the process is told to end.

    Args:
        models: KServe models that the edge can ask.
        host: the interface to listen on.
        port: where.
        budget: of a request that does not ask for more or less.
        most_bytes: the greatest body that is read.
    """
    use_uvloop()
    logging.configure_logging(_quiet(logging.KSERVE_LOG_CONFIG))
    server = _Server(http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False)
    server.host = host
    server.edge = Edge(cast("App", model_server.app), models, budget, most_bytes)
    server.start(list(models))


def _quiet(config: dict[str, Any]) -> dict[str, Any]:
    """Return KServe's logging without its lines for each request, and with ours."""
    quiet = copy.deepcopy(config)
    quiet["loggers"]["kserve.trace"]["level"] = "WARNING"
    quiet["loggers"]["uvicorn.access"]["level"] = "WARNING"
    quiet["loggers"]["lockstep"] = {"handlers": ["kserve"], "level": "INFO", "propagate": False}
    return quiet
