"""Parity of a candidate's shadow rows, the gate, somebody's yes if asked for, and only then the alias `champion`."""

from datetime import timedelta

from hera.workflows import DAG, Parameter, Suspend, Task, TaskResult, WorkflowTemplate
from hera.workflows.models import TemplateRef

from pipelines._project import resource_name
from pipelines._template import hoisted
from pipelines._template import workflow_template as template
from steps.parity_gate import parity_gate
from steps.promote_model import promote_model

APPROVAL = ["none", "required"]


def workflow_template() -> WorkflowTemplate:
    """Return the template; the window is that of the shadow replay, and verification that of the pipeline `verify-parity`."""
    arguments = [
        Parameter(name="since"),
        Parameter(name="until"),
        Parameter(name="sample_rows", value="400"),
        Parameter(name="model", value="challenger", description="an alias or a version"),
        Parameter(
            name="approval", value="none", enum=APPROVAL, description="required: wait for somebody after the gate"
        ),
    ]
    names = [str(argument.name) for argument in arguments]
    outputs = [hoisted(name, "verify") for name in ("report", "verdict", "address")]
    outputs += [hoisted("champion", "promote")]
    # Somebody may take a day to answer, and meanwhile nothing else is promoted.
    with template("promote", arguments=arguments, deadline=timedelta(hours=24), alone=True) as workflow:
        # No default but "no": who resumes the run without an answer has not said yes.
        answer = Parameter(name="decision", enum=["no", "yes"], default="no")
        approve = Suspend(name="approve", intermediate_parameters=[answer])
        with DAG(name="main", inputs=[Parameter(name=name) for name in names], outputs=outputs) as main:
            window = {name: main.get_parameter(name) for name in ("since", "until", "sample_rows", "model")}
            verified = Task(
                name="verify",
                template_ref=TemplateRef(name=resource_name("verify-parity"), template="main"),
                # The gate decides, and names every reason; a verification that must pass would name its own only.
                arguments={**window, "hours": "24", "shadow": "true", "strict": "false", "fallback": "false"},
            )
            # It answers whenever a hard objective is broken, and is no more to be believed than the model.
            verified_fallback = Task(
                name="verify-fallback",
                template_ref=TemplateRef(name=resource_name("verify-parity"), template="main"),
                arguments={**window, "hours": "24", "shadow": "true", "strict": "false", "fallback": "true"},
            )
            reports = {
                "report": "{{tasks.verify.outputs.parameters.report}}",
                "fallback_report": "{{tasks.verify-fallback.outputs.parameters.report}}",
            }
            gated = parity_gate(name="gate", arguments={"model": window["model"], **reports})
            approval = main.get_parameter("approval")
            approved = approve(name="approve", when="{{inputs.parameters.approval}} == required")
            promote_model(
                name="promote",
                arguments={
                    "version": gated.get_parameter("version"),
                    **reports,
                    "approval": approval,
                    # Nobody was asked: Argo leaves the argument out, and the step's own default applies.
                    "decision": approved.get_parameter("decision"),
                },
                depends="gate.Succeeded && (approve.Succeeded || approve.Skipped)",
            )
            with Task.set_next_defaults(on=TaskResult.succeeded):
                verified >> verified_fallback >> gated >> approved
    return workflow


RESOURCES = (workflow_template,)
