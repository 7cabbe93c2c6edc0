"""Shadow replay: send the keys and inputs of recent events to a dark service, at the current time.

Nothing is moved in time: the service reads what the store holds now, and parity holds what it read against what training would
contain for now. Rows served this way are marked in the served log and stay out of monitoring.

A row that the contract's policy rejects is logged as such, once. A replay counts these rows, and refuses where they are too many
for what was answered to stand for what is asked.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pyarrow as pa

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, Refused
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect
from lockstep.serving.answering import FALLBACK, MODEL_HEADER, SHADOW_HEADER
from lockstep.serving.budget import BUDGET_HEADER
from lockstep.serving.client import score
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.serving.refusal import RowRejected
from lockstep.serving.request import REQUEST_TIME
from lockstep.settings import Settings
from lockstep.views import UseCase

RECENT = timedelta(days=2)

MOST_REJECTED = 0.5
"""The greatest share of the rows that may be rejected: beyond it, most of what is asked has no score."""


@dataclass(frozen=True)
class Replayed:
    """What became of the rows of a replay."""

    scored: int
    rejected: int


def replay(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    contract: FeatureContract,
    digest: str,
    rows: int,
    batch: int,
    *,
    fallback: bool = False,
) -> Replayed:
    """Send the newest `rows` events of the lake to the dark service, `batch` rows a request.

    A request of which rows are rejected is asked again without them.

    Args:
        settings: `shadow_url` is where the dark service answers.
        use_case: its recipe says what a request is made of.
        lake: where the events are.
        contract: names the join keys and request inputs that are sent.
        digest: of the model that the dark service must be serving; its first answer tells.
        rows: how many events.
        batch: how many of them one request carries.
        fallback: have the fallback model answer. Nothing is sent where the contract has none.

    Raises:
        BadInput: no dark service is named, it serves another model, there are no recent events, it rejects them all, or a number
            is not positive.
        Refused: it rejects more than `MOST_REJECTED` of them. All are in the served log nevertheless.
        Transient: the service is not there or out of order, or its fallback answers because a view is late.
        Terminal: the service does not understand us.
    """
    if rows < 1 or batch < 1:
        raise BadInput(f"a replay sends at least one row a request, not {rows} in batches of {batch}")
    answering = contract.fallback if fallback else contract
    if answering is None:
        return Replayed(0, 0)
    if not settings.shadow_url:
        raise BadInput("no dark service to send to", hint="set shadow_url (LOCKSTEP_SHADOW_URL) to its predict URL")
    events = recent_events(settings, use_case, lake, contract, rows).to_pylist()
    if not events:
        raise BadInput(f"the lake holds no event of the last {RECENT.days} days to replay")
    scored = 0
    # A service that takes traffic refuses the second of these, so that no replayed row is ever logged as a live one.
    headers = {BUDGET_HEADER: str(settings.replay_budget // timedelta(milliseconds=1)), SHADOW_HEADER: "1"}
    headers |= {MODEL_HEADER: FALLBACK} if fallback else {}
    with httpx.Client(timeout=settings.replay_budget.total_seconds() * 2, headers=headers) as client:
        for start in range(0, len(events), batch):
            time = settings.clock.now().isoformat()
            instances = [{**event, REQUEST_TIME: time} for event in events[start : start + batch]]
            scored += _scored(client, settings.shadow_url, instances, digest, answering.hash)
    replayed = Replayed(scored, len(events) - scored)
    if replayed.rejected:
        _judge(replayed)
    return replayed


def _judge(replayed: Replayed) -> None:
    """Say that rows were rejected, and refuse if they are too many."""
    rows = replayed.scored + replayed.rejected
    hint = "are the views that its contract needs online?"
    if not replayed.scored:
        raise BadInput(f"the service rejected each of the {rows} rows", hint=hint)
    told = f"the service rejected {replayed.rejected} of the {rows} rows"
    if replayed.rejected > MOST_REJECTED * rows:
        raise Refused(f"{told}, at most {MOST_REJECTED:.0%} may be", hint=hint)
    logging.getLogger(__name__).warning("%s: they have no score, and are in the served log as rejected", told)


def _scored(
    client: httpx.Client, url: str, instances: Sequence[Mapping[str, object]], digest: str, contract: str
) -> int:
    """Have rows scored, without those that the model's contract rejects; return how many were."""
    while instances:
        try:
            return len(score(client, url, instances, digest, contract))
        except RowRejected as refused:
            instances = [row for number, row in enumerate(instances) if number not in refused.rows]
    return 0


def recent_events(settings: Settings, use_case: UseCase, lake: Lake, contract: FeatureContract, rows: int) -> pa.Table:
    """Return the newest events as requests: the contract's join keys and request inputs."""
    recipe = use_case.model
    times = {source.table: source.event_time for source in use_case.sources}
    wanted = [key.name for key in contract.join_keys]
    wanted += [given.name for given in contract.request_inputs if given.name != REQUEST_TIME_US]
    with connect(settings) as connection:
        for table, columns in recipe.requests_tables.items():
            within = TimeRange(times[table], settings.clock.now() - RECENT)
            lake.register(connection, table, table, columns=columns, within=within)
        found: pa.Table = connection.sql(recipe.requests, params={"rows": rows}).to_arrow_table()
    return found.select(wanted)
