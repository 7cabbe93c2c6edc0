"""Verify the parity of one model over one window of its served log, and keep the report."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lockstep.clock import MICROSECOND, from_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import State
from lockstep.parity.compare import Comparison, Difference, is_mismatch
from lockstep.parity.expect import history, training_rows
from lockstep.parity.misread import misread_columns
from lockstep.parity.report import (
    DifferenceFound,
    FeatureRate,
    HourCompared,
    ModelNamed,
    ParityReport,
    Sampled,
    ScoreShift,
    Stratum,
    store,
)
from lockstep.parity.sample import ServedRow, read_served, stratified, uniform
from lockstep.parity.verdict import judge, required_rows
from lockstep.serving.features import build_vectors, complete_inputs, load_functions
from lockstep.serving.policy import apply_policy
from lockstep.settings import Settings
from lockstep.training.registry import Registered
from lockstep.views import UseCase

SHOWN = 100


@dataclass(frozen=True)
class Compared:
    """What comparing gave, by the rows' names.

    Attributes:
        found: the differences.
        training: the vectors a training set would contain, in the contract's order.
        rejected: the rows that it would leave out, by the policy. They were served, and what their vectors lack is found as any
            difference is; but the model was never fitted on such a vector, and may not take it.
    """

    found: Mapping[str, Sequence[Difference]]
    training: Mapping[str, Sequence[float | None]]
    rejected: frozenset[str] = frozenset()


def verify(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    model: Registered,
    *,
    shadow: bool,
    since: datetime,
    until: datetime,
    sample_rows: int,
    fallback: bool = False,
) -> ParityReport:
    """Compare a sample of what a model served in `[since, until)` with the lake and with training.

    Args:
        settings: limits, the clock.
        use_case: the definitions that training would use.
        lake: the tables.
        ledger: tells how long writing takes.
        model: whose rows.
        shadow: judge the shadow replay's rows, or live ones.
        since: first request time.
        until: end of the request times.
        sample_rows: how many uniform rows to compare; at least what the limit needs are taken.
        fallback: judge the rows that its fallback model answered, by the contract of that.

    Raises:
        BadInput: the window is reversed, or the model has no fallback.
        SchemaDrift: a view is no longer what the model was trained on.
    """
    if until <= since:
        raise BadInput(f"the window from {since.isoformat()} to {until.isoformat()} is empty")
    contract = model.contract.fallback if fallback else model.contract
    if contract is None:
        raise BadInput(f"version {model.version} has no fallback model")
    _require_same_definitions(use_case, contract)
    served = read_served(
        settings, lake, model=model.digest, contract=contract, shadow=shadow, since=since, until=until
    )
    required = required_rows(settings.parity_limit, settings.parity_confidence)
    chosen, strata = uniform(served.rows, max(sample_rows, required)), stratified(served.rows)
    every = list({row.name: row for row in (*chosen, *(r for rows in strata.values() for r in rows))}.values())
    compared = compare_rows(settings, use_case, lake, ledger, contract, every)
    found = compared.found
    answerable = [row for row in chosen if row.name not in compared.rejected]
    trained = [compared.training[row.name] for row in answerable]
    expected = expected_scores(model.model_dir, trained, fallback=fallback)
    present = {v.name: sum(_status(row, v.name) == "present" for row in chosen) for v in contract.views}
    intervals = {v.name: len(_committed_intervals(chosen, v.name)) for v in contract.views}
    judgement = judge(
        {row.name: found[row.name] for row in chosen},
        {row.name: found[row.name] for rows in strata.values() for row in rows},
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
        most_excused=_most_excused(ledger, contract, since, until),
        lost=served.lost,
        present=present,
        intervals=intervals,
    )
    stored = sum(len(view.columns) for view in contract.views)
    report = ParityReport(
        project=contract.project,
        created=settings.clock.now(),
        model=ModelNamed(name=use_case.model.name, version=model.version, digest=model.digest, contract=contract.hash),
        shadow=shadow,
        since=since,
        until=until,
        sample=Sampled(
            served=len(served.rows),
            uniform=len(chosen),
            required=required,
            stratified=len({row.name for rows in strata.values() for row in rows}),
            compared_values=len(every) * (len(contract.features) + stored),
        ),
        limit=settings.parity_limit,
        confidence=settings.parity_confidence,
        mismatches=judgement.mismatches,
        excused=judgement.excused,
        stratum_mismatches=judgement.stratum_mismatches,
        lost=served.lost,
        present=present,
        intervals=intervals,
        upper_bound=judgement.upper_bound,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        features=feature_rates(contract, chosen, found),
        strata=tuple(_stratum(name, rows, found) for name, rows in strata.items()),
        causes=dict(sorted(Counter(d.cause.value for ds in found.values() for d in ds).items())),
        differences=shown(found),
        hours=hours_compared(every, found),
        scores=ScoreShift.between([row.score for row in answerable], expected, use_case.model.thresholds.decision),
    )
    store(lake, report)
    return report


def compare_rows(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    contract: FeatureContract,
    rows: Sequence[ServedRow],
) -> Compared:
    """Hold rows of the served log against the lake and against training."""
    if not rows:
        return Compared({}, {})
    functions = load_functions(contract, settings.use_case)

    def recompute(row: ServedRow) -> Sequence[float | None]:
        usable = {
            (view, column): [value if read.status == "present" else None]
            for view, read in row.views.items()
            for column, value in read.values.items()
        }
        inputs = complete_inputs(contract, [row.inputs], [row.request_us])
        vector = apply_policy(contract, build_vectors(contract, functions, usable, inputs)).vectors[0].tolist()
        return [None if value != value else value for value in vector]  # noqa: PLR0124

    histories = {view.name: history(settings, lake, view, rows) for view in contract.views}
    misread = misread_columns(rows, histories)
    comparison = Comparison(contract, histories, recompute, ledger.incarnations(), misread)
    trained = training_rows(settings, use_case, contract, rows)
    training = {row.name: vector for row, vector in zip(rows, trained.vectors, strict=True)}
    rejected = frozenset(row.name for row, out in zip(rows, trained.rejected, strict=True) if out)
    return Compared({row.name: comparison.row(row, training[row.name]) for row in rows}, training, rejected)


def expected_scores(
    model_dir: Path, vectors: Sequence[Sequence[float | None]], *, fallback: bool = False
) -> list[float]:
    """Return what the model, or its fallback, says to these vectors, null as NaN: the way the predictor asks it."""
    if not vectors:
        return []
    # scikit-learn's import costs seconds, and a window without rows needs no model.
    import numpy as np  # noqa: PLC0415

    from lockstep.serving.artifact import load_artifact  # noqa: PLC0415
    from lockstep.threads import one_thread  # noqa: PLC0415

    artifact = load_artifact(model_dir)
    estimator = artifact.fallback if fallback else artifact.estimator
    with one_thread():
        return estimator.predict_proba(np.array(vectors, dtype=np.float64))[:, 1].tolist()


def _require_same_definitions(use_case: UseCase, contract: FeatureContract) -> None:
    """Refuse to compare with training under other definitions: both sides would agree, on something the model never saw."""
    for view in contract.views:
        here = use_case.view(view.name).definition_hash
        if here != view.definition_hash:
            raise SchemaDrift(
                f"view {view.name} has the definition {here[:12]} now, the contract names {view.definition_hash[:12]}",
                hint="train again: this model was fitted on other values of the same name",
            )


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
    contract: FeatureContract, rows: Sequence[ServedRow], found: Mapping[str, Sequence[Difference]]
) -> tuple[FeatureRate, ...]:
    """Count, per feature of the contract, the rows in which it differs, and the causes of that."""
    differing: Counter[tuple[str, str]] = Counter()
    causes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        named = {(d.view, d.feature, d.cause.value) for d in found[row.name] if d.feature is not None}
        differing.update({(view, feature) for view, feature, _ in named})
        for view, feature, cause in named:
            causes[view, feature][cause] += 1
    return tuple(
        FeatureRate(
            name=f.name,
            view=f.view,
            compared=len(rows),
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


def _stratum(name: str, rows: Sequence[ServedRow], found: Mapping[str, Sequence[Difference]]) -> Stratum:
    return Stratum(name=name, rows=len(rows), mismatches=sum(is_mismatch(found[row.name]) for row in rows))


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
