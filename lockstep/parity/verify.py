"""Verify the parity of one model over one window of its served log, and keep the report."""

import gc
import hashlib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from lockstep.clock import MICROSECOND, from_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.snapshots import NO_SNAPSHOT
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.parity.compare import Difference, equal, is_mismatch
from lockstep.parity.explain import explain
from lockstep.parity.facts import Facts, gather, scores_of
from lockstep.parity.investigate import investigate
from lockstep.parity.kept import store
from lockstep.parity.report import (
    DifferenceFound,
    FeatureRate,
    HourCompared,
    ModelNamed,
    ParityReport,
    Sampled,
    ScoreShift,
    Stratum,
)
from lockstep.parity.sample import ServedRow, Window, find_served, read_rows, stratified, uniform
from lockstep.parity.signature import signing_key
from lockstep.parity.verdict import judge, required_rows
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.training.registry import Registered
from lockstep.views import UseCase

SHOWN = 100
_SEED_BITS = 48


@dataclass(frozen=True)
class Question:
    """What is to be verified.

    Attributes:
        shadow: judge the shadow replay's rows, or live ones.
        since: first request time.
        until: end of the request times.
        rows: how many uniform rows to compare; at least what the limit needs are taken.
        fallback: judge the rows that the model's fallback answered, by the contract of that.
        seed: orders the rows of which the first are sampled; None: the one that follows from the model and whose rows they are.
        read: by table, which snapshots of the served log and of the views' tables are read; None: the newest.
    """

    shadow: bool
    since: datetime
    until: datetime
    rows: int
    fallback: bool = False
    seed: int | None = None
    read: Mapping[str, int] | None = None


def verify(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, model: Registered, question: Question
) -> ParityReport:
    """Compare a sample of what a model served in a window with the lake and with training, and keep the report, signed.

    The arguments and errors are those of `measure`; and without a key to sign with nothing is compared.
    """
    key = signing_key(settings)
    report = measure(settings, use_case, lake, ledger, model, question)
    store(lake, report, key)
    return report


@contextmanager
def _nothing_collected() -> Generator[None]:
    """Keep the collector from walking through millions of rows again and again, none of which is in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_nothing_collected()
def measure(
    settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger, model: Registered, question: Question
) -> ParityReport:
    """Compare a sample of what a model served in a window with the lake and with training.

    Args:
        settings: limits, the clock.
        use_case: the definitions that training would use.
        lake: the tables.
        ledger: tells when what was online, and how long writing takes.
        model: whose rows.
        question: which of them.

    Raises:
        BadInput: the window is reversed, the model has no fallback, or a snapshot that is needed has expired.
    """
    contract, now = _contract(model, question), settings.clock.now()
    seed = own_seed(model.digest, contract, shadow=question.shadow) if question.seed is None else question.seed
    read = question.read or {}
    window = Window(model.digest, contract, question.shadow, question.since, question.until, read.get(SERVED_LOG))
    logged = find_served(settings, lake, window, known=[of.hash for of in model.contract.with_fallback])
    required = required_rows(settings.parity_limit, settings.parity_confidence)
    chosen, strata = uniform(logged.rows, max(question.rows, required), seed), stratified(logged.rows, seed)
    sampled = {row.name: row for row in (*chosen, *(r for rows in strata.values() for r in rows))}
    rows = read_rows(settings, lake, replace(window, snapshot_id=logged.snapshot_id), list(sampled.values()))
    snapshots = {view.table: read.get(view.table, _newest(lake, view.table)) for view in contract.views}
    facts = gather(settings, use_case, lake, ledger, contract, rows, model=model, snapshots=snapshots)
    found = explain(investigate(settings, facts))
    named = [row.name for row in chosen]
    first = rows[: len(chosen)]
    rejected = sum(row.rejected is not None for row in first)
    present = {v.name: sum(_status(row, v.name) == "present" for row in first) for v in contract.views}
    intervals = {v.name: len(_committed_intervals(first, v.name)) for v in contract.views}
    judgement = judge(
        {name: found[name] for name in named},
        {row.name: found[row.name] for of_stratum in strata.values() for row in of_stratum},
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
        most_excused=_most_excused(ledger, contract, question.since, question.until),
        lost=logged.lost,
        foreign=logged.foreign,
        present=present,
        intervals=intervals,
        rejected=rejected,
        ahead=sum(from_micros(row.read_us) > now + settings.request_time_limit for row in rows),
        twice=logged.twice,
    )
    stored = sum(len(view.columns) for view in contract.views)
    return ParityReport(
        project=contract.project,
        created=now,
        model=ModelNamed(name=use_case.model.name, version=model.version, digest=model.digest, contract=contract.hash),
        shadow=question.shadow,
        since=question.since,
        until=question.until,
        newest=from_micros(max(row.request_us for row in rows)) if rows else None,
        sample=Sampled(
            served=len(logged.rows),
            uniform=len(chosen),
            required=required,
            stratified=len({row.name for of_stratum in strata.values() for row in of_stratum}),
            compared_values=len(rows) * (len(contract.features) + stored),
            seed=seed,
        ),
        read={**snapshots, SERVED_LOG: logged.snapshot_id},
        ledger={view.name: ledger.digest(view.name, question.until) for view in contract.views},
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
        mismatches=judgement.mismatches,
        excused=judgement.excused,
        stratum_mismatches=judgement.stratum_mismatches,
        rejected=rejected,
        foreign=logged.foreign,
        lost=logged.lost,
        present=present,
        intervals=intervals,
        upper_bound=judgement.upper_bound,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        features=feature_rates(contract, named, found),
        strata=tuple(
            Stratum(name=name, rows=len(of), mismatches=sum(is_mismatch(found[row.name]) for row in of))
            for name, of in strata.items()
        ),
        causes=dict(sorted(Counter(d.cause.value for ds in found.values() for d in ds).items())),
        differences=shown(found),
        hours=hours_compared(rows, found),
        scores=score_shift(model, facts, len(chosen), use_case.model.thresholds.decision, fallback=question.fallback),
    )


def own_seed(model: str, contract: FeatureContract, *, shadow: bool) -> int:
    """Return the seed that follows from whose rows are verified: not from the window, of which somebody could try many."""
    told = f"{model}/{contract.hash}/{shadow}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()) >> (256 - _SEED_BITS)


def score_shift(
    model: Registered, facts: Facts, sampled: int, threshold: float, *, fallback: bool = False
) -> ScoreShift | None:
    """Hold the served scores of the first `sampled` rows against the model's scores of the training vectors.

    None where training was not compared, and where no row has both.
    """
    if facts.trained is None or facts.rescored is None:
        return None
    vectors, rejected = facts.trained.vectors[:sampled], facts.trained.rejected[:sampled]
    served = np.array([np.nan if row.score is None else row.score for row in facts.rows[:sampled]])
    both = np.flatnonzero(~(rejected | np.isnan(served)))
    # To the very vector that was served the model has been asked already.
    expected = facts.rescored[:sampled].copy()
    other = [n for n in both.tolist() if not equal(facts.vectors[n], vectors[n], None).all()]
    expected[other] = scores_of(model.model_dir, vectors[other], fallback=fallback)
    return ScoreShift.between(served[both].tolist(), expected[both].tolist(), threshold)


def _contract(model: Registered, question: Question) -> FeatureContract:
    if question.until <= question.since:
        raise BadInput(f"the window from {question.since.isoformat()} to {question.until.isoformat()} is empty")
    contract = model.contract.fallback if question.fallback else model.contract
    if contract is None:
        raise BadInput(f"version {model.version} has no fallback model")
    return contract


def _newest(lake: Lake, table: str) -> int:
    current = lake.current(table) if lake.exists(table) else None
    return current.id if current else NO_SNAPSHOT


def _status(row: ServedRow, view: str) -> str | None:
    read = row.views.get(view)
    return read.status if read else None


def _committed_intervals(rows: Sequence[ServedRow], view: str) -> set[int]:
    epochs = [row.before.views.get(view) for row in rows]
    return {epoch.committed.interval for epoch in epochs if epoch and epoch.committed}


def _most_excused(ledger: Ledger, contract: FeatureContract, since: datetime, until: datetime) -> float:
    """Return 2 * (visible_lag + write time) / cadence of the view where that is greatest; write times of the window."""
    shares = [0.0]
    for view in contract.views:
        writes = [
            row.committed_at - row.planned_at
            for row in ledger.materializations(view.name)
            if row.state is State.COMMITTED and row.committed_at and since <= row.planned_at < until
        ]
        writing = max(writes, default=timedelta(0)) // MICROSECOND
        shares.append(2 * (view.visible_lag_us + writing) / view.every_us)
    return max(shares)


def feature_rates(
    contract: FeatureContract, names: Sequence[str], found: Mapping[str, Sequence[Difference]]
) -> tuple[FeatureRate, ...]:
    """Count, per feature of the contract, the rows in which it differs, and the causes of that."""
    differing: Counter[tuple[str, str]] = Counter()
    causes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in names:
        named = {(d.view, d.feature, d.cause.value) for d in found[row] if d.feature is not None}
        differing.update({(view, feature) for view, feature, _ in named})
        for view, feature, cause in named:
            causes[view, feature][cause] += 1
    return tuple(
        FeatureRate(
            name=f.name,
            view=f.view,
            compared=len(names),
            differing=differing[f.view, f.name],
            causes=dict(sorted(causes[f.view, f.name].items())),
        )
        for f in contract.features
    )


def hours_compared(rows: Iterable[ServedRow], found: Mapping[str, Sequence[Difference]]) -> tuple[HourCompared, ...]:
    """Count rows, mismatches and excused rows per UTC hour of the request time; hours without rows are left out."""
    hours: defaultdict[datetime, list[Sequence[Difference]]] = defaultdict(list)
    for row in rows:
        hours[from_micros(row.request_us).replace(minute=0, second=0, microsecond=0)].append(found[row.name])
    return tuple(
        HourCompared(
            hour=hour,
            rows=len(hours[hour]),
            mismatches=sum(is_mismatch(differences) for differences in hours[hour]),
            excused=sum(bool(differences) and not is_mismatch(differences) for differences in hours[hour]),
        )
        for hour in sorted(hours)
    )


def shown(found: Mapping[str, Iterable[Difference]]) -> tuple[DifferenceFound, ...]:
    """Return the differences a report keeps: no feature that differs in every row crowds out one that differs in a few."""
    ordered: list[tuple[bool, int, Difference]] = []
    before: Counter[tuple[str, str, str | None, str]] = Counter()
    for difference in (d for ds in found.values() for d in ds):
        kind = (difference.kind, difference.view, difference.feature, difference.cause.value)
        ordered.append((difference.excused, before[kind], difference))
        before[kind] += 1
    ordered.sort(key=lambda entry: entry[:2])
    return tuple(
        DifferenceFound(
            row=d.row,
            kind=d.kind,
            view=d.view,
            feature=d.feature,
            served=d.served,
            expected=d.expected,
            cause=d.cause.value,
            evidence=d.evidence,
        )
        for _, _, d in ordered[:SHOWN]
    )
