"""The embedded stack: a Redis process and a local service, each ended with whoever started it."""

from lockstep.local.redis import LocalRedis
from lockstep.local.serving import LocalService

__all__ = ["LocalRedis", "LocalService"]
