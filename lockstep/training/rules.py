"""By which rules a recipe has its models judged; an evaluation keeps them, and the gate asks for today's."""

from lockstep.training.evaluation.document import Evaluation, Rules
from lockstep.views.use_case import ModelRecipe


def rules_of(recipe: ModelRecipe) -> Rules:
    """Return the rules that a recipe states. Not its thresholds: what is asked for may change after a model was judged."""
    return Rules(
        label=(recipe.label, recipe.label_known_at),
        train_s=recipe.train.total_seconds(),
        gap_s=recipe.gap.total_seconds(),
        test_s=recipe.test.total_seconds(),
        protocol=dict(vars(recipe.protocol)),
        ceilings=dict(vars(recipe.ceilings)),
        decision=recipe.thresholds.decision,
    )


def unsound(recipe: ModelRecipe, evaluation: Evaluation, digest: str, contract_hash: str) -> list[str]:
    """Return why an evaluation does not speak for a model, in a sentence each.

    Args:
        recipe: today's.
        evaluation: what is to speak for it.
        digest: of the model.
        contract_hash: of its contract.
    """
    of = evaluation.model
    if of.digest != digest or of.contract != contract_hash:
        return [f"the evaluation is of model {of.digest[:12]}, not {digest[:12]}"]
    said = [f"its training raised the alarm {alarm.name}: {alarm.subject}" for alarm in evaluation.alarms]
    if evaluation.audit is None:
        said.append("nobody looked for leaks in its training")
    today, then = rules_of(recipe).model_dump(), evaluation.rules.model_dump()
    if changed := [name for name in today if today[name] != then[name]]:
        said.append(f"it was judged by other rules than today's: {', '.join(changed)} changed")
    return said
