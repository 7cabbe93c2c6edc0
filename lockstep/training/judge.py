"""Judge a logged model on the days held out: every number, both clocks, the champion beside it, and the alarms."""

import logging
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from mlflow.entities import Metric

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, Refused, Terminal
from lockstep.lake import Lake
from lockstep.serving.artifact import ModelArtifact, load_artifact
from lockstep.serving.features import feature_matrix
from lockstep.serving.policy import apply_policy
from lockstep.settings import Settings
from lockstep.threads import one_thread
from lockstep.training.champion import find_champion
from lockstep.training.clocks import exact_features, price
from lockstep.training.contract import require_definitions
from lockstep.training.evaluation.document import (
    Alarm,
    Audit,
    Clocks,
    Evaluation,
    Fallback,
    Metrics,
    ModelNamed,
    Stretch,
    TrainingSetUsed,
)
from lockstep.training.evaluation.evaluate import Champion, Judging, evaluate, metrics
from lockstep.training.evaluation.importance import importance
from lockstep.training.evaluations import evaluations_of, keep_evaluation
from lockstep.training.fit import Given, given, scored
from lockstep.training.leaks.find import Search, Suspect, find_leaks
from lockstep.training.logged import Logged, open_logged
from lockstep.training.page import render
from lockstep.training.protocol import TEST, TRAIN, LeftOut
from lockstep.training.registry import open_client, quiet
from lockstep.training.rules import rules_of
from lockstep.training.span import Span
from lockstep.training.spine import entity_rows, table_digest
from lockstep.training.training_set import read_left_out, read_training_set
from lockstep.views.use_case import ModelRecipe, UseCase


def judge(settings: Settings, use_case: UseCase, model: str) -> Evaluation:
    """Evaluate a model, and keep the evaluation in the lake and beside the model's run.

    A model that was judged before by the same rules, beside the same champion, is not judged again.

    Args:
        settings: name the lake and the tracking store.
        use_case: its recipe says by which protocol.
        model: MLflow's id of the logged model.

    Raises:
        BadInput: there is no such model, or its training set was made from other definitions or by another recipe than these.
        Refused: an alarm was raised; the evaluation is kept all the same, and says which.
    """
    logged = open_logged(settings, model)
    lake = Lake.open(settings, use_case.project)
    rows, contract = read_training_set(lake, logged.training_set)
    require_definitions(use_case, logged.training_set, contract)
    _require_recipe(settings, use_case, lake, logged.training_set, contract)
    with one_thread():
        held_out = given(use_case.model, contract, rows, TEST)
        beside = _champion(settings, use_case, lake, contract, held_out)
        evaluation = _judged_before(settings, use_case, lake, logged, beside)
        if evaluation is None:
            evaluation = _evaluate(settings, use_case, lake, logged, rows, held_out, beside)
    name = keep_evaluation(settings, lake, evaluation)
    with quiet():
        client = open_client(settings)
        # Of two values of one time MLflow shows the greater, not the later.
        now = int(settings.clock.now().timestamp() * 1_000)
        client.log_batch(logged.run, metrics=[Metric(k, v, now, 0) for k, v in summary(evaluation).items()])
        page = render(evaluation, title=f"{use_case.model.name}: evaluation", words=use_case.model.words)
        client.log_text(logged.run, page, "evaluation.html")
        client.log_dict(logged.run, evaluation.model_dump(mode="json"), "evaluation.json")
    if evaluation.alarms:
        said = "; ".join(f"{alarm.name} ({alarm.subject}): {alarm.evidence}" for alarm in evaluation.alarms)
        raise Refused(
            f"the training of {model} leaks: {said}", hint=f"nothing is registered; all of it is in evaluation {name}"
        )
    return evaluation


def summary(evaluation: Evaluation) -> dict[str, float]:
    """Return the numbers that MLflow shows of a run; whoever decides reads the evaluation itself."""
    found, used = evaluation.performance, evaluation.training_set
    return {
        "average_precision": found.average_precision.value,
        "auc": found.auc.value,
        "entity_precision": found.entity_precision.value,
        "no_skill": found.no_skill,
        "brier": found.calibration.brier,
        "train_rows": float(used.train.rows),
        "test_rows": float(found.rows),
        "test_positives": float(found.positives),
        "alarms": float(len(evaluation.alarms)),
    }


def _require_recipe(
    settings: Settings, use_case: UseCase, lake: Lake, training_set: str, contract: FeatureContract
) -> None:
    """Refuse a set that today's recipe would not give at its cut: other days, another protocol, another spine.

    Raises:
        BadInput: it is such a set.
    """
    recipe, known_at = use_case.model, contract.cut.known_at
    snapshots = contract.cut.snapshots
    if absent := sorted(recipe.spine_tables.keys() - snapshots.keys()):
        raise BadInput(f"{training_set} was built without {', '.join(absent)}", hint="build the training set again")
    rows, _ = entity_rows(settings, lake, contract, recipe, Span.of(recipe, known_at), snapshots, known_at)
    if table_digest(rows) != contract.cut.spine_hash:
        raise BadInput(
            f"{training_set} was built by another recipe than today's: at its cut the spine gives other rows now",
            hint="its days, its protocol or its SQL changed: build the training set again",
        )


def _judged_before(
    settings: Settings, use_case: UseCase, lake: Lake, logged: Logged, beside: tuple[Champion | None, str | None]
) -> Evaluation | None:
    champion, why_not = beside
    named = champion.model if champion else None
    made = evaluations_of(settings, lake, logged.digest, rules_of(use_case.model))
    return next((e for e in made if (e.comparison.champion, e.comparison.incomparable) == (named, why_not)), None)


def _evaluate(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    logged: Logged,
    rows: pa.Table,
    test: Given,
    beside: tuple[Champion | None, str | None],
) -> Evaluation:
    recipe, contract = use_case.model, logged.contract
    artifact = load_artifact(logged.model_dir)
    train = given(recipe, contract, rows, TRAIN)
    measured = scored(recipe, test, test.scores(artifact.estimator))
    judging = Judging(top=recipe.protocol.top, threshold=recipe.thresholds.decision)
    found = _search(settings, use_case, lake, contract, artifact, [train, test])
    champion, why_not = beside
    return evaluate(
        measured,
        judging,
        model=ModelNamed(name=recipe.name, digest=logged.digest, contract=contract.hash),
        rules=rules_of(recipe),
        training_set=_used(
            recipe, contract, logged.training_set, train, test, read_left_out(lake, logged.training_set)
        ),
        created_at=settings.clock.now(),
        champion=champion,
        incomparable=why_not,
        importance=importance(
            artifact.estimator,
            test.vectors[test.answered],
            test.labels[test.answered],
            [(f.view, f.name) for f in contract.features],
        ),
        clocks=_clocks(settings, use_case, lake, contract, rows, metrics(measured, judging.top)),
        fallback=_fallback(recipe, contract, artifact, logged, rows),
        alarms=[Alarm(name=a.name, subject=a.subject, evidence=a.evidence) for a in found.alarms],
        audit=Audit(rows=dict(found.stored), unexplained=dict(found.unexplained), not_judged=found.not_judged),
    )


def _search(
    settings: Settings,
    use_case: UseCase,
    lake: Lake,
    contract: FeatureContract,
    artifact: ModelArtifact,
    splits: Sequence[Given],
) -> Search:
    """Look for leaks in the rows that the model was fitted and judged on."""
    rows = pa.concat_tables([split.rows.filter(pa.array(split.answered)) for split in splits])
    suspect = Suspect(
        contract=contract,
        rows=rows,
        vectors=feature_matrix(contract, rows),
        estimator=artifact.estimator,
        prepare=lambda vectors: apply_policy(contract, vectors).vectors,
    )
    found = find_leaks(settings, use_case, lake, suspect)
    for feature, number in found.unexplained.items():
        logging.getLogger(__name__).warning(
            "%s: %d of the rows looked at are not what the view declares, though no leak", feature, number
        )
    for sentence in found.not_judged:
        logging.getLogger(__name__).warning("%s", sentence)
    return found


def _champion(
    settings: Settings, use_case: UseCase, lake: Lake, contract: FeatureContract, held_out: Given
) -> tuple[Champion | None, str | None]:
    """Return the champion with its scores, or why it cannot be asked: it does not stand in the way of a new model."""
    try:
        return find_champion(settings, use_case, lake, contract, held_out.rows), None
    except (Terminal, Refused) as cannot:
        logging.getLogger(__name__).warning("not compared with the champion: %s", cannot)
        return None, str(cannot.args[0])


def _clocks(
    settings: Settings, use_case: UseCase, lake: Lake, contract: FeatureContract, rows: pa.Table, served: Metrics
) -> Clocks | None:
    if not contract.views:
        return None
    exact = exact_features(settings, use_case, lake, contract, rows)
    views = [use_case.view(view.name) for view in contract.views]
    return price(use_case.model, contract, rows, exact, views, served)


def _fallback(
    recipe: ModelRecipe, contract: FeatureContract, artifact: ModelArtifact, logged: Logged, rows: pa.Table
) -> Fallback | None:
    if contract.fallback is None:
        return None
    held_out = given(recipe, contract.fallback, rows, TEST)
    measured = scored(recipe, held_out, held_out.scores(artifact.fallback))
    return Fallback(
        model=ModelNamed(name=recipe.name, digest=logged.digest, contract=contract.fallback.hash),
        service=contract.fallback.feature_service,
        features=tuple(f.name for f in contract.fallback.features),
        metrics=metrics(measured, recipe.protocol.top),
    )


def _stretch(start: datetime, end: datetime, split: Given) -> Stretch:
    return Stretch(start=start, end=end, rows=len(split.labels), positives=int(split.labels.sum()))


def _used(
    recipe: ModelRecipe, contract: FeatureContract, table: str, train: Given, test: Given, left_out: LeftOut
) -> TrainingSetUsed:
    span = Span.of(recipe, contract.cut.known_at)
    return TrainingSetUsed(
        table=table,
        known_at=contract.cut.known_at,
        train=_stretch(span.start, span.train_end, train),
        test=_stretch(span.test_start, span.end, test),
        left_out={
            "their event lies between the two": left_out.gap,
            "their label was not known when the test begins": left_out.label_unknown,
            "their entity was already known to be positive": left_out.known,
            "the policy rejects them, to train on": int(train.rejected.sum()),
            "the policy rejects them, which counts as the score 0": int(test.rejected.sum()),
        },
        snapshots=contract.cut.snapshots,
    )
