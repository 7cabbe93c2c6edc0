"""KServe's model server as it ships, for the peers: its own event loop, its lines for each request, one worker.

Two things differ, neither of which a request meets: it listens on this machine alone, and opens no gRPC port, of which two
servers on one machine would want the same one.
"""

import argparse

from kserve import Model, ModelServer, model_server

LOOPBACK = "127.0.0.1"


class _Server(ModelServer):
    async def _serve(self) -> None:
        if self._rest_server is not None:
            self._rest_server.config.host = LOOPBACK
        await super()._serve()


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with KServe's own arguments, which it has read by itself."""
    return argparse.ArgumentParser(description=description, parents=[model_server.parser])


def serve(model: Model) -> None:
    """Serve one model until the process is told to end."""
    _Server(enable_grpc=False).start([model])
