"""Build the training set point in time, train on it, judge the model, and register it as the challenger."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._template import SCHEDULED_TIME, hoisted, schedule
from pipelines._template import workflow_template as template
from steps.build_training_set import build_training_set
from steps.evaluate_model import evaluate_model
from steps.register_model import register_model
from steps.train_model import train_model


def workflow_template() -> WorkflowTemplate:
    """Return the template; labels are read as they were known at `known_at`.

    Steps hand each other names: the set stays in the lake, the model in the tracking store, the evaluation in the lake.
    """
    outputs = [hoisted("version", "register"), hoisted("digest", "train"), hoisted("evaluation", "evaluate")]
    outputs += [hoisted(name, "evaluate") for name in ("average_precision", "auc")]
    outputs += [hoisted("training_set", "build", "table")] + [hoisted(name, "build") for name in ("contract", "rows")]
    arguments = [Parameter(name="known_at"), Parameter(name="service", value="", description="empty: the model's own")]
    names = [argument.name for argument in arguments]
    with template("train", arguments=arguments, alone=True) as workflow:
        with DAG(name="main", inputs=[Parameter(name=name) for name in names], outputs=outputs) as main:
            built = build_training_set(name="build", arguments={name: main.get_parameter(name) for name in names})
            trained = train_model(name="train", arguments={"training_set": built.get_parameter("table")})
            model = trained.get_parameter("model")
            judged = evaluate_model(name="evaluate", arguments={"model": model})
            evaluation = judged.get_parameter("evaluation")
            registered = register_model(name="register", arguments={"model": model, "evaluation": evaluation})
            with Task.set_next_defaults(on=TaskResult.succeeded):
                built >> trained >> judged >> registered
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule: a challenger a week."""
    return schedule("train", "30 3 * * 1", within=timedelta(hours=12), arguments={"known_at": SCHEDULED_TIME})


RESOURCES = (workflow_template, cron_workflow)
