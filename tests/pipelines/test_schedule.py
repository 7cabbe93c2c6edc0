"""A CronWorkflow runs when it says, passes its own time on, and holds nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lockstep.errors import BadInput
from pipelines._checks.schedule import five_fields, schedule_problems
from pipelines._manifest.parameters import TIMES
from pipelines.cli import main
from tests.pipelines.checking import CRON, NUMBERS, check_after, findings_after, laboratory_files

CRONS = """
from hera.workflows import DAG, CronWorkflow, Parameter
from hera.workflows.models import WorkflowTemplateRef
from lab_steps.echo import echo
from lab_pipelines._defaults import lab_template

def template():
    with lab_template("tick", arguments=[Parameter(name="window_end")]) as template, DAG(name="main"):
        echo(name="echo", arguments={{"text": "{{{{workflow.parameters.window_end}}}}"}})
    return template

def cron():
    return CronWorkflow(
        name="lab-tick",
        schedules={schedules!r},
        timezone="Etc/UTC",
        starting_deadline_seconds=3600,
        workflow_template_ref=WorkflowTemplateRef(name="lab-tick"),
        arguments=[Parameter(name="window_end", value={window!r})],
    )

RESOURCES = (template, cron)
"""
TICK = "{{workflow.scheduledTime}}"


@pytest.mark.parametrize(
    "schedule",
    ["5 * * * *", "*/15 * * * *", "0 6 * * MON-FRI", "0 0 1,15 jan-jun *", "10-50/20 2 * * 0", "0 0 13 * 5"],
)
def test_five_fields_are_a_schedule(schedule: str):
    assert five_fields(schedule) == schedule


def test_a_descriptor_stands_for_five_fields():
    assert [five_fields(name) for name in ("@hourly", "@daily", "@Weekly")] == ["0 * * * *", "0 0 * * *", "0 0 * * 0"]


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("hourly", "'hourly' is not cron: it has 1 fields"),
        ("0 5 * * * *", "'0 5 * * * *' is not cron: it has 6 fields"),
        ("61 * * * *", "'61 * * * *' is not cron: bad minute"),
        ("0 24 * * *", "'0 24 * * *' is not cron: bad hour"),
        ("0 0 * * FOO", "'0 0 * * FOO' is not cron: bad day-of-week"),
        ("0 0 31 2 *", "'0 0 31 2 *' is not cron: bad day-of-month"),
        ("*/0 * * * *", "'*/0 * * * *' is not cron: bad minute"),
        ("0 0 ? * *", r"'0 0 \? \* \*' is not cron: '\?'"),
        ("0 0 * * 7", "is not cron as Argo reads it"),
        ("0 0 L * *", "is not cron as Argo reads it"),
        ("0 0 * * 5L", "is not cron as Argo reads it"),
        ("0 0 * * MON#2", "is not cron: '#'"),
        ("0 0 */2 * 1", "restricts the day of month and the day of week"),
        ("CRON_TZ=Europe/Berlin 0 5 * * *", "names a time zone"),
        ("TZ=UTC 0 5 * * *", "names a time zone"),
        ("@every 1h", "counts from when the controller started"),
        ("@hourley", "'@hourley' is not cron"),
    ],
)
def test_what_argo_refuses_or_reads_otherwise_is_refused_with_a_reason(schedule: str, why: str):
    pattern = why if "\\" in why else why.replace("*", r"\*")
    with pytest.raises(BadInput, match=pattern) as refused:
        five_fields(schedule)
    assert refused.value.hint


def test_a_schedule_that_is_not_cron_does_not_render_and_exits_2(
    package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name = package("not_cron", tick=CRONS.format(schedules=["hourly"], window=TICK))
    assert main(["render", "--package", name]) == 2
    line = CRONS[: CRONS.index("def cron")].count("\n") + 1
    told = capsys.readouterr().err
    assert told.startswith(
        f"error: {tmp_path}/packages/not_cron/tick.py:{line}: schedule 'hourly' is not cron: it has"
    )
    assert "Hint: Argo reads five fields: minute, hour, day of month, month, day of week" in told
    assert not (tmp_path / "manifests").exists()


def test_the_time_of_the_tick_is_the_window(package, tmp_path: Path):
    from tests.pipelines.checking import findings_of

    fine = package("ticking", tick=CRONS.format(schedules=["5 * * * *"], window=TICK))
    assert findings_of(fine, tmp_path) == []
    literal = package("fixed", tick=CRONS.format(schedules=["5 * * * *"], window="2026-01-01T00:00:00Z"))
    [finding] = findings_of(literal, tmp_path)
    assert finding.where == "spec.workflowSpec.arguments.parameters.window_end.value"
    what = "window_end is '2026-01-01T00:00:00Z': every tick would mean that, and not its own time"
    assert (finding.what, finding.hint) == (what, "write {{workflow.scheduledTime}}")
    committed = Path(finding.file).read_text().splitlines()
    assert "2026-01-01T00:00:00Z" in committed[finding.line - 1]


def arguments(spec: dict[str, Any]) -> list[dict[str, str]]:
    return spec["workflowSpec"]["arguments"]["parameters"]


def forbid_a_window(spec: dict[str, Any]) -> None:
    spec["concurrencyPolicy"] = "Forbid"
    arguments(spec)[0]["value"] = TICK


WRONG = {
    "legacy schedule": (
        lambda s: s.update(schedule="5 * * * *"),
        ("spec.schedule", "`schedule` is gone in Argo 4"),
    ),
    "no schedule": (lambda s: s.update(schedules=[]), ("spec.schedules", "there is no schedule")),
    "not cron": (
        lambda s: s.update(schedules=["5 * * * *", "every day"]),
        ("spec.schedules.1", "schedule 'every day' is not cron: it has 2 fields"),
    ),
    "no time zone": (
        lambda s: s.pop("timezone"),
        ("spec.timezone", "timezone is not set, and Argo takes the controller's local time"),
    ),
    "unknown time zone": (
        lambda s: s.update(timezone="Europe/Bremen"),
        ("spec.timezone", "there is no time zone 'Europe/Bremen'"),
    ),
    "suspend": (
        lambda s: s.update(suspend=False),
        ("spec.suspend", "suspend is set: Flux would undo what somebody suspends or resumes by hand"),
    ),
    "no deadline": (
        lambda s: s.pop("startingDeadlineSeconds"),
        (
            "spec.startingDeadlineSeconds",
            "startingDeadlineSeconds is not set: a tick that falls into an outage of the controller never runs",
        ),
    ),
    "behaviour": (
        lambda s: s["workflowSpec"].update(parallelism=2),
        ("spec.workflowSpec.parallelism", "parallelism belongs on the WorkflowTemplate"),
    ),
    "hooks": (
        lambda s: s["workflowSpec"].update(hooks={"exit": {"template": "main"}}),
        ("spec.workflowSpec.hooks", "hooks belongs on the WorkflowTemplate"),
    ),
    "replace": (
        lambda s: s.update(concurrencyPolicy="Replace"),
        (
            "spec.concurrencyPolicy",
            "Replace kills the run before: one that takes longer than an interval never ends",
        ),
    ),
    "forbid": (
        forbid_a_window,
        ("spec.concurrencyPolicy", "Forbid drops a tick while a run is on, and with it the tick's window"),
    ),
    "unknown policy": (
        lambda s: s.update(concurrencyPolicy="Alow"),
        ("spec.concurrencyPolicy", "there is no concurrencyPolicy 'Alow'"),
    ),
    "template": (
        lambda s: s["workflowSpec"]["workflowTemplateRef"].update(name="lab-number"),
        ("spec.workflowSpec.workflowTemplateRef", "WorkflowTemplate 'lab-number' is not rendered"),
    ),
    "unknown argument": (
        lambda s: arguments(s)[0].update(name="cuont"),
        ("spec.workflowSpec.arguments.parameters.cuont", "lab-numbers has no parameter 'cuont'"),
    ),
    "missing argument": (
        lambda s: s["workflowSpec"].pop("arguments"),
        ("spec.workflowSpec.arguments", "parameter 'count' of lab-numbers is not given"),
    ),
    "another time": (
        lambda s: arguments(s)[0].update(value="{{workflow.creationTimestamp}}"),
        (
            "spec.workflowSpec.arguments.parameters.count.value",
            "{{workflow.creationTimestamp}} is not the tick's time: a missed or repeated tick would mean another window",
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_schedule_that_is_not_as_it_should_be_is_found(name: str):
    change, found = WRONG[name]
    assert found in check_after(lambda document: change(document["spec"]), CRON)


@pytest.mark.parametrize("name", sorted(TIMES))
def test_a_time_of_a_schedule_is_that_of_the_tick(name: str):
    files = laboratory_files()
    template, cron = yaml.safe_load(files[NUMBERS]), yaml.safe_load(files[CRON])
    template["spec"]["arguments"]["parameters"].append({"name": name})
    arguments(cron["spec"]).append({"name": name, "value": "2018-01-01T00:00:00Z"})
    [problem] = schedule_problems(cron, {"lab-numbers": template})
    assert problem.what == f"{name} is '2018-01-01T00:00:00Z': every tick would mean that, and not its own time"
    arguments(cron["spec"])[-1]["value"] = TICK
    assert list(schedule_problems(cron, {"lab-numbers": template})) == []


def test_an_argument_of_a_schedule_is_in_its_enum_and_given_once():
    files = laboratory_files()
    template, cron = yaml.safe_load(files[NUMBERS]), yaml.safe_load(files[CRON])
    template["spec"]["arguments"]["parameters"][1]["enum"] = ["0", "1"]
    arguments(cron["spec"]).extend([{"name": "refuse", "value": "2"}, {"name": "refuse", "value": "1"}])
    assert [problem.what for problem in schedule_problems(cron, {"lab-numbers": template})] == [
        "'2' is not in the enum of 'refuse'",
        "argument 'refuse' is given twice",
    ]


def test_a_schedule_without_a_window_may_leave_out_a_tick():
    assert findings_after(lambda d: d["spec"].update(concurrencyPolicy="Forbid"), CRON) == []
