"""Connect to the online store, and say what its refusals mean to the caller."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as RetryAsync
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockstep.errors import LockstepError, NotYetSupported, Terminal, Transient
from lockstep.settings import Settings

# Far above any honest answer: a batch of 10 000 scripts takes 0.1 s. A request's own deadline lies around the whole read.
SOCKET_SECONDS = 10.0
CONNECT_SECONDS = 3.0

_TRANSIENT = {
    "READONLY": "a replica answered: a failover is under way, or redis_host names a replica",
    "LOADING": "the server is loading its data set",
    "MASTERDOWN": "a replica has lost its primary",
    "NOREPLICAS": "fewer replicas are connected than the server demands",
    "BUSY": "a script of somebody else is running",
    "TRYAGAIN": "a slot is being moved",
    "CLUSTERDOWN": "the cluster has no majority",
}
_TERMINAL = {
    "OOM": "the store is full: give it more memory (maxmemory); what was written stays, a rerun goes on from there",
    "NOPERM": "the user needs DEL, HGET, HGETALL, HMGET, HSET, INFO, EVAL, EVALSHA and SCRIPT LOAD on the project's keys",
    "NOAUTH": "the server wants a password",
    "WRONGPASS": "user or password is wrong",
    "MISCONF": "the server cannot save to disk and refuses writes: look at its log",
}
_CLUSTER = ("MOVED", "ASK", "CROSSSLOT")
_CODE = re.compile(rf"\b({'|'.join((*_TRANSIENT, *_TERMINAL, *_CLUSTER))})\b")

_NO_PERMISSION_IN_SCRIPT = re.compile("user executing the script can't|ACL failure in script")


def connect(settings: Settings) -> "redis.Redis":
    """Return a client of the online store, for steps and scripts; nothing is sent yet."""
    return redis.Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        # redis-py's default is three more tries a second and more apart, which turned a time-out of 50 ms into 6.5 s.
        # A step is tried again by its workflow, a request by its caller.
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


def connect_async(settings: Settings) -> "redis.asyncio.Redis":
    """Return an asyncio client of the online store, for serving; nothing is sent yet."""
    return redis.asyncio.Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=RetryAsync(NoBackoff(), 0),
        decode_responses=False,
    )


@dataclass(frozen=True)
class Place:
    """What has to stay the same for writes not to be lost: the store's name, the run of its server, its line of replication.

    A flush takes the name, a restart changes the run, a failover the run or the line. Run and line are "" where the server
    does not tell them (no permission for INFO): then a restart goes unnoticed.
    """

    incarnation: str
    run: str
    line: str

    @classmethod
    def of(cls, text: str) -> "Place":
        """Read what `str` wrote."""
        return cls(*text.split("/"))

    def __str__(self) -> str:
        return f"{self.incarnation}/{self.run}/{self.line}"


def place_of(redis: "redis.Redis", incarnation: str) -> Place:
    """Return where writes go now, to the store of this name."""
    with answering():
        try:
            info = cast("dict[str, Any]", redis.info())
        except exceptions.NoPermissionError:
            info = {}
    return Place(incarnation, info.get("run_id", ""), info.get("master_replid", ""))


@contextmanager
def answering() -> Generator[None]:
    """Turn what redis-py raises inside the block into states a caller can act on.

    Raises:
        Transient: nobody answers, or the server is about to recover.
        NotYetSupported: it is a Redis Cluster.
        Terminal: it refuses, and will again.
    """
    try:
        yield
    except (exceptions.RedisError, OSError) as failure:
        raise meaning(failure) from failure


def without_refusal(answers: list[Any]) -> list[Any]:
    """Return the answers of a pipeline if none is an error.

    Raises:
        LockstepError: what the first error stands for.
    """
    refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if refused is not None:
        raise meaning(refused) from refused
    return answers


def meaning(failure: Exception) -> LockstepError:
    """Return the state that an error of redis-py stands for."""
    text = str(failure) or type(failure).__name__
    code = _code(failure)
    if code in _CLUSTER:
        return NotYetSupported(f"the online store is a Redis Cluster: {text}", hint="use a single primary for now")
    if code in _TERMINAL:
        return Terminal(f"the online store refuses: {text}", hint=_TERMINAL[code])
    if code in _TRANSIENT:
        return Transient(f"the online store cannot answer now: {text}", hint=_TRANSIENT[code])
    if isinstance(failure, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return Transient(
            f"the online store does not answer: {text}",
            hint="is it running, and are redis_host and redis_port its address?",
        )
    return Terminal(f"the online store refuses: {text}")


def _code(failure: Exception) -> str | None:
    # redis-py cuts the codes it knows off the message. Redis before 7 wraps what a script ran into, as in
    # `ERR Error running script ...: -OOM command not allowed ...`, and no Redis gives a code for what its user may not do.
    text = f"{getattr(failure, 'status_code', None)} {failure}"
    if _NO_PERMISSION_IN_SCRIPT.search(text):
        return "NOPERM"
    found = _CODE.search(text)
    return found.group(1) if found else None
