"""Verify the parity of one model over one window of its served log, and keep the report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger, State
from lockstep.parity.compare import Comparison, Difference
from lockstep.parity.expect import history, training_vectors
from lockstep.parity.report import DifferenceFound, FeatureRate, ModelNamed, ParityReport, Sampled, Stratum, store
from lockstep.parity.sample import ServedRow, read_served, stratified, uniform
from lockstep.parity.verdict import judge, required_rows
from lockstep.serving.features import build_vectors, complete_inputs, load_functions
from lockstep.settings import Settings
from lockstep.training.registry import Registered
from lockstep.views import UseCase

SHOWN = 100


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

    Raises:
        BadInput: the window is reversed.
        SchemaDrift: a view is no longer what the model was trained on.
    """
    if until <= since:
        raise BadInput(f"the window from {since.isoformat()} to {until.isoformat()} is empty")
    contract = model.contract
    _require_same_definitions(use_case, contract)
    served = read_served(
        settings, lake, model=model.digest, contract=contract, shadow=shadow, since=since, until=until
    )
    required = required_rows(settings.parity_limit, settings.parity_confidence)
    chosen, strata = uniform(served.rows, max(sample_rows, required)), stratified(served.rows)
    every = list({row.name: row for row in (*chosen, *(r for rows in strata.values() for r in rows))}.values())
    found = _differences(settings, use_case, lake, ledger, contract, every)
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
        features=_feature_rates(contract, chosen, found),
        strata=tuple(_stratum(name, rows, found) for name, rows in strata.items()),
        causes=dict(sorted(Counter(d.cause.value for ds in found.values() for d in ds).items())),
        differences=_shown(found),
    )
    store(lake, report)
    return report


def _differences(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    ledger: Ledger,
    contract: FeatureContract,
    rows: Sequence[ServedRow],
) -> dict[str, list[Difference]]:
    if not rows:
        return {}
    functions = load_functions(contract, settings.use_case)

    def recompute(row: ServedRow) -> Sequence[float | None]:
        usable = {
            (view, column): [value if read.status == "present" else None]
            for view, read in row.views.items()
            for column, value in read.values.items()
        }
        inputs = complete_inputs(contract, [row.inputs], [row.request_us])
        vector = build_vectors(contract, functions, usable, inputs)[0].tolist()
        return [None if value != value else value for value in vector]  # noqa: PLR0124

    histories = {view.name: history(settings, lake, view, rows) for view in contract.views}
    comparison = Comparison(contract, histories, recompute, ledger.incarnation())
    training = training_vectors(settings, use_case, contract, rows)
    return {row.name: comparison.row(row, vector) for row, vector in zip(rows, training, strict=True)}


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


def _feature_rates(
    contract: FeatureContract, rows: Sequence[ServedRow], found: Mapping[str, Sequence[Difference]]
) -> tuple[FeatureRate, ...]:
    differing = Counter(
        feature for row in rows for feature in {(d.view, d.feature) for d in found[row.name] if d.feature is not None}
    )
    return tuple(
        FeatureRate(name=f.name, view=f.view, compared=len(rows), differing=differing[f.view, f.name])
        for f in contract.features
    )


def _stratum(name: str, rows: Sequence[ServedRow], found: Mapping[str, Sequence[Difference]]) -> Stratum:
    wrong = sum(any(not d.excused for d in found[row.name]) for row in rows)
    return Stratum(name=name, rows=len(rows), mismatches=wrong)


def _shown(found: Mapping[str, Iterable[Difference]]) -> tuple[DifferenceFound, ...]:
    ordered = sorted((d for ds in found.values() for d in ds), key=lambda d: d.excused)
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
        for d in ordered[:SHOWN]
    )
