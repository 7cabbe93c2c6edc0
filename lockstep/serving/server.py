"""Start a KServe model server the way both our processes need it.

What KServe 0.21 does by default and this changes: with one worker it never uses uvloop; it logs three lines a request; it
opens a gRPC port; it listens on every interface. More than one worker breaks a transformer (the predictor's address lives in
a context variable that spawned workers do not inherit), so one process is one worker and replicas are the scale.
"""

import argparse
import asyncio
import copy
from typing import Any

import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve import Model, ModelServer, logging, model_server

from lockstep.errors import BadInput, LockstepError, Transient
from lockstep.serving.policy import RowRejected


class DeadlinePassed(Transient):
    """Something behind us did not answer in time."""


class _Server(ModelServer):
    """Listens on one interface; KServe has no option for it."""

    host = "0.0.0.0"  # noqa: S104 - in a pod, the Service must reach it

    async def _serve(self) -> None:
        if self._rest_server is not None:
            self._rest_server.config.host = self.host
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


def serve(model: Model, host: str, port: int) -> None:
    """Serve one model until the process is told to end."""
    use_uvloop()
    logging.configure_logging(_quiet(logging.KSERVE_LOG_CONFIG))
    answer_errors(model_server.app)
    server = _Server(http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False)
    server.host = host
    server.start([model])


def answer_errors(app: FastAPI) -> None:
    """Have our errors answered with the status that each has."""
    # The most special class counts, not the first.
    for error, status in (
        (RowRejected, 422),
        (BadInput, 400),
        (DeadlinePassed, 504),
        (Transient, 503),
        (LockstepError, 500),
    ):
        app.add_exception_handler(error, _answer(status))


def _answer(status: int) -> Any:
    headers = {"Retry-After": "1"} if status == 503 else None

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status, headers)

    return answer


def _quiet(config: dict[str, Any]) -> dict[str, Any]:
    """Return KServe's logging without its lines for each request, and with ours."""
    quiet = copy.deepcopy(config)
    quiet["loggers"]["kserve.trace"]["level"] = "WARNING"
    quiet["loggers"]["uvicorn.access"]["level"] = "WARNING"
    quiet["loggers"]["lockstep"] = {"handlers": ["kserve"], "level": "INFO", "propagate": False}
    return quiet
