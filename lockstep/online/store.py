"""Connect to the online store, and say what its refusals mean to the caller."""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterNode as ClusterNodeAsync
from redis.asyncio.cluster import RedisCluster as RedisClusterAsync
from redis.asyncio.retry import Retry as RetryAsync
from redis.asyncio.sentinel import Sentinel as SentinelAsync
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from lockstep.errors import BadInput, LockstepError, Terminal, Transient
from lockstep.settings import Settings, address_of

Store: TypeAlias = redis.Redis | RedisCluster
StoreAsync: TypeAlias = redis.asyncio.Redis | RedisClusterAsync

# Far above any honest answer: a batch of 10 000 scripts takes 0.1 s. A request's own deadline lies around the whole read.
SOCKET_SECONDS = 10.0
CONNECT_SECONDS = 3.0
_TIME_LIMITS: Mapping[str, Any] = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
# The Sentinels are asked in turn: one that hangs must leave time for the next one. An honest answer takes a millisecond.
_SENTINEL_TIME_LIMITS: Mapping[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}

_TRANSIENT = {
    "READONLY": "a replica answered: a failover is under way, or redis_host names a replica",
    "LOADING": "the server is loading its data set",
    "MASTERDOWN": "a replica has lost its primary",
    "NOREPLICAS": "fewer replicas are connected than the server demands",
    "BUSY": "a script of somebody else is running",
    "TRYAGAIN": "a slot is being moved",
    "CLUSTERDOWN": "the cluster has no majority",
}
# Commands, as ACL SETUSER takes them behind a "+": the writer's, the reader's and an erasure's; beside them, on a cluster; and of
# the served log the sender's, the drain's and an erasure's.
OF_THE_STORE = (
    *("del", "eval", "evalsha", "exists", "hdel", "hget", "hgetall", "hkeys", "hmget", "hset", "info", "scan"),
    *("script|load", "type", "unlink"),
)
OF_A_CLUSTER = ("asking", "cluster|slots", "command")
OF_THE_LOG = ("eval", "exists", "xadd", "xdel", "xgroup|create", "xinfo|groups", "xrange", "xtrim")


def _listed(commands: Sequence[str]) -> str:
    *some, last = (command.upper().replace("|", " ") for command in commands)
    return f"{', '.join(some)} and {last}"


_TERMINAL = {
    "OOM": "the store is full: give it more memory (maxmemory); what was written stays, a rerun goes on from there",
    "NOPERM": f"the user needs {_listed(OF_THE_STORE)}; of a cluster {_listed(OF_A_CLUSTER)}; "
    f"for the served log, wherever its stream is, {_listed(OF_THE_LOG)}",
    "NOAUTH": "the server wants a password",
    "WRONGPASS": "user or password is wrong",
    "MISCONF": "the server cannot save to disk and refuses writes: look at its log",
}
_NOT_SERVED = "Hash slot not served"
_NOT_SERVED_HINT = "a slot has no primary: it was given to none, or its primary is gone and had no replica"
_BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
_OTHER_NAME = re.compile("(?:Hostname|IP address) mismatch")
_CLUSTER = ("MOVED", "ASK", "CROSSSLOT")
_NO_CLUSTER = "This instance has cluster support disabled"
# What redis-py raises: its exceptions of a cluster are not of one kind with the others.
FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
# That of a cluster stands for nodes that do not answer, or slots that nobody serves.
_NO_ANSWER = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.RedisClusterException, OSError)
_CODE = re.compile(rf"\b({'|'.join((*_TRANSIENT, *_TERMINAL, *_CLUSTER))})\b")
# What a refusal begins with, where redis-py does not know the code.
_SAID = re.compile(r"[A-Z]{2,}\b")

_NO_PERMISSION_IN_SCRIPT = re.compile("user executing the script can't|ACL failure in script")


def connect(settings: Settings) -> Store:
    """Return a client of the online store, for steps and scripts; nothing is sent yet, except that a cluster names its nodes.

    Behind Sentinel it is always the primary's: each new connection asks which server that is.

    Raises:
        BadInput: `redis_mode` is not what the server is.
        Transient: no node of the cluster answers.
    """
    options = _options(settings)
    # redis-py's default is three more tries a second and more apart, which turned a time-out of 50 ms into 6.5 s.
    # A step is tried again by its workflow, a request by its caller.
    retry = Retry(NoBackoff(), 0)
    if settings.redis_mode == "cluster":
        seeds = [ClusterNode(*address_of(node)) for node in settings.redis_nodes]
        with answering():
            return RedisCluster(startup_nodes=seeds, retry=retry, **options)
    if settings.redis_mode == "sentinel":
        asked = [address_of(node) for node in settings.redis_nodes]
        sentinel = Sentinel(asked, sentinel_kwargs={**_of_sentinels(options), "retry": retry}, **options)
        return sentinel.master_for(settings.redis_sentinel_service, redis_class=_Primary, retry=retry)
    return redis.Redis(host=settings.redis_host, port=settings.redis_port, retry=retry, **options)


def connect_async(settings: Settings) -> StoreAsync:
    """Return an asyncio client of the online store, for serving; nothing is sent yet. Otherwise as `connect`."""
    options = _options(settings)
    retry = RetryAsync(NoBackoff(), 0)
    if settings.redis_mode == "cluster":
        seeds = [ClusterNodeAsync(*address_of(node)) for node in settings.redis_nodes]
        return RedisClusterAsync(startup_nodes=seeds, retry=retry, **options)
    if settings.redis_mode == "sentinel":
        asked = [address_of(node) for node in settings.redis_nodes]
        sentinel = SentinelAsync(asked, sentinel_kwargs={**_of_sentinels(options), "retry": retry}, **options)
        return sentinel.master_for(settings.redis_sentinel_service, redis_class=_PrimaryAsync, retry=retry)
    return redis.asyncio.Redis(host=settings.redis_host, port=settings.redis_port, retry=retry, **options)


def connect_log(settings: Settings) -> Store:
    """Return a client of the Redis that the served log's stream is in; otherwise as `connect`."""
    if not (url := settings.served_log_url.get_secret_value()):
        return connect(settings)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_TIME_LIMITS)


def connect_log_async(settings: Settings) -> StoreAsync:
    """Return an asyncio client of the Redis that the served log's stream is in; otherwise as `connect_async`."""
    if not (url := settings.served_log_url.get_secret_value()):
        return connect_async(settings)
    return redis.asyncio.Redis.from_url(url, retry=RetryAsync(NoBackoff(), 0), **_TIME_LIMITS)


class _Primary(redis.Redis):
    """A client that closes the connections to the Sentinels with its own."""

    def close(self) -> None:
        super().close()
        for sentinel in cast("Any", self.connection_pool).sentinel_manager.sentinels:
            sentinel.close()


class _PrimaryAsync(redis.asyncio.Redis):
    """The same for asyncio, where an open connection that is forgotten is an error."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for sentinel in cast("Any", self.connection_pool).sentinel_manager.sentinels:
            await sentinel.aclose()


def _options(settings: Settings) -> dict[str, Any]:
    """Return what every connection is opened with."""
    options: dict[str, Any] = {**_TIME_LIMITS, "decode_responses": False}
    if password := settings.redis_password.get_secret_value():
        options |= {"username": settings.redis_username or None, "password": password}
    if settings.redis_tls:
        files = {
            "ssl_ca_certs": settings.redis_tls_ca,
            "ssl_certfile": settings.redis_tls_certificate,
            "ssl_keyfile": settings.redis_tls_key,
        }
        options |= {"ssl": True, **{name: str(file) for name, file in files.items() if file}}
    return options


def _of_sentinels(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a connection to a Sentinel is opened with: without a user."""
    kept = {name: value for name, value in options.items() if name not in {"username", "password"}}
    return {**kept, **_SENTINEL_TIME_LIMITS}


@contextmanager
def answering() -> Generator[None]:
    """Turn what redis-py raises inside the block into states a caller can act on.

    Raises:
        Transient: nobody answers, or the server is about to recover.
        BadInput: the server is part of a Redis Cluster and `redis_mode` says otherwise, or the other way round.
        Terminal: it refuses, and will again.
    """
    try:
        yield
    except FAILURES as failure:
        raise meaning(failure) from failure


def without_refusal(answers: list[Any]) -> list[Any]:
    """Return answers of which none is a refusal.

    Raises:
        LockstepError: what the first refusal means; the message does not hold the command, which holds somebody's key.
    """
    refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if refused is not None:
        raise meaning(refused) from refused
    return answers


def meaning(failure: BaseException) -> LockstepError:
    """Return the state that an error of redis-py stands for."""
    failure = _innermost(failure)
    text = str(failure) or type(failure).__name__
    code = _code(failure)
    if code in _CLUSTER:
        return BadInput(
            f"the online store is a Redis Cluster: {text}",
            hint="set redis_mode to cluster, and redis_nodes to its nodes",
        )
    if code in _TERMINAL:
        return Terminal(f"the online store refuses: {text}", hint=_TERMINAL[code])
    if code in _TRANSIENT:
        hint = _NOT_SERVED_HINT if _NOT_SERVED in text else _TRANSIENT[code]
        return Transient(f"the online store cannot answer now: {text}", hint=hint)
    return _without_code(failure, text)


def kind_of(failure: BaseException) -> str:
    """Return an error's type, and the server's code where there is one: nothing of the command, which may hold somebody's key."""
    failure = _innermost(failure)
    said = _SAID.match(str(failure))
    code = getattr(failure, "status_code", None) or (said.group() if said else "")
    return f"{type(failure).__name__} {code}".rstrip()


def _without_code(failure: BaseException, text: str) -> LockstepError:
    if text.startswith(_NO_CLUSTER):
        return BadInput(f"the online store is no Redis Cluster: {text}", hint="set redis_mode to what it is")
    if _BAD_CERTIFICATE in text:
        return Terminal(
            f"the online store is not who it says: {text}",
            hint="redis_host or redis_nodes have to be what its certificate names; a cluster's nodes announce themselves so"
            if _OTHER_NAME.search(text)
            else "redis_tls_ca has to hold who signed its certificate",
        )
    if isinstance(failure, exceptions.NoScriptError):
        return Transient(
            f"the online store forgot a script, again and again: {text}", hint="who flushes scripts, or restarts it?"
        )
    if isinstance(failure, exceptions.ClusterError):  # redis-py followed a key from node to node, and gave up
        return Transient(f"the online store cannot answer now: {text}", hint=_TRANSIENT["TRYAGAIN"])
    if isinstance(failure, _NO_ANSWER):
        return Transient(
            f"the online store does not answer: {text}",
            hint="is it running, and are redis_host and redis_port its address, or redis_nodes those of its nodes?",
        )
    return Terminal(f"the online store refuses: {text}")


def _innermost(failure: BaseException) -> BaseException:
    """Return what redis-py found when it asked the last node that it knows of a cluster."""
    while isinstance(failure, exceptions.RedisClusterException):
        inner = failure.__cause__ or failure.__context__
        if inner is None:
            break
        failure = inner
    return failure


def _code(failure: BaseException) -> str | None:
    # redis-py cuts the codes it knows off the message. Redis before 7 wraps what a script ran into, as in
    # `ERR Error running script ...: -OOM command not allowed ...`, and no Redis gives a code for what its user may not do.
    text = f"{getattr(failure, 'status_code', None)} {failure}"
    if _NO_PERMISSION_IN_SCRIPT.search(text):
        return "NOPERM"
    found = _CODE.search(text)
    return found.group(1) if found else None
