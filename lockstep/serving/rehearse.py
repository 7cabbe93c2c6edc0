"""Serve rows of a contract that no model was trained on: what a transformer does, but for HTTP and the score.

The request is parsed, the store read by the contract's plan, the vectors are made and the rows logged, all by what serves a
model; so what comes of it in the lake is a served log like any other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import Transient
from lockstep.online import store
from lockstep.online.reader import OnlineReader, ReadPlan
from lockstep.serving.features import load_functions
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import Served
from lockstep.serving.policy import rejections
from lockstep.serving.request import MAX_ROWS, REQUEST_TIME, RequestParser
from lockstep.serving.vectors import flags_of, vectors_of
from lockstep.settings import Settings

NO_SCORE = 0.0


def rehearse(
    settings: Settings, contract: FeatureContract, instances: Sequence[Mapping[str, Any]], digest: str
) -> int:
    """Serve rows now, as a dark service would, and log them; return how many.

    Args:
        settings: the store, the clock.
        contract: what is read, and how vectors are made of it.
        instances: join keys and request inputs; the request time is added.
        digest: what the rows are logged under in the place of a model's.

    Raises:
        BadInput: a row does not fit the contract.
        Transient: the store does not answer, or did not take all of the log.
    """
    return asyncio.run(_serve(settings, contract, instances, digest))


async def _serve(
    settings: Settings, contract: FeatureContract, instances: Sequence[Mapping[str, Any]], digest: str
) -> int:
    functions, parser = (
        load_functions(contract, settings.use_case),
        RequestParser(contract, settings.request_time_limit),
    )
    redis, log_redis = store.connect_async(settings), store.connect_log_async(settings)
    reader = OnlineReader(redis, ReadPlan.compile(contract))
    try:
        log = ServedLog(log_redis, contract.project, digest)
        for start in range(0, len(instances), MAX_ROWS):
            now = settings.clock.now()
            rows = [{**row, REQUEST_TIME: now.isoformat()} for row in instances[start : start + MAX_ROWS]]
            request = parser.parse(orjson.dumps({"instances": rows}), now)
            with store.answering():
                reading = await reader.read(request.entities, request.times_us)
            read_us = to_micros(settings.clock.now())
            settled = vectors_of(contract, functions, request, reading)
            rejected = rejections(contract, settled)
            flags = flags_of(reading.views, len(rows), rejected)
            scores = [None if row in rejected else NO_SCORE for row in range(len(rows))]
            log.offer(
                Served(
                    request,
                    read_us,
                    reading,
                    settled.vectors,
                    scores,
                    flags,
                    contract.hash,
                    shadow=True,
                    rejected=rejected,
                )
            )
        await log.close()
        if log.dropped:
            raise Transient(f"{log.dropped} rows of the served log were not confirmed")
        return log.sent
    finally:
        await reader.aclose()
        await redis.aclose()
        await log_redis.aclose()
