"""Whoever is called at night is told what to do about each cause, by a command that there is."""

import re
import shlex

import click
import pytest
from kept_reports import a_report

from lockstep.parity.cause import Cause
from lockstep.parity.page import render
from lockstep.parity.remedies import Remedy, remedies, remedy_of
from lockstep.parity.report import FeatureRate
from pipelines.cli import cli


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_a_sentence_and_its_command_is_one_of_ours(cause: Cause) -> None:
    remedy = remedy_of(cause, "customer_spend terminal_risk", 3)
    assert re.fullmatch(r"[A-Z].*\.", remedy.says)
    if remedy.command:
        program, name, *arguments = shlex.split(remedy.command)
        command = cli.commands[name]
        assert (program, cause.excused) == ("lockstep", False)
        command.make_context(name, arguments)  # refuses options and arguments that the command does not have
    about_views = "customer_spend" in remedy.command
    assert remedy_of(cause, "", 3).command == ("" if about_views else remedy.command)


def test_a_command_that_is_wrong_would_be_seen() -> None:
    with pytest.raises(click.UsageError):
        cli.commands["repair"].make_context("repair", [])


def test_the_views_that_a_cause_was_found_in_are_named_and_for_on_demand_ones_all_that_are_stored() -> None:
    report = a_report(
        present={"customer_spend": 400, "terminal_risk": 399},
        causes={"type": 1, "late": 9, "missing": 7, "corruption": 7},
        features=(
            FeatureRate(name="a", view="on_demand", compared=400, differing=7, causes={"corruption": 7, "late": 9}),
            FeatureRate(name="b", view="on_demand", compared=400, differing=7, causes={"missing": 7}),
        ),
    )
    told = remedies(report)
    assert [(remedy.cause, remedy.command) for remedy in told] == [
        ("corruption", "lockstep repair customer_spend terminal_risk"),
        ("missing", "lockstep repair terminal_risk"),
        ("type", ""),
    ]
    page = render([report])
    for remedy in told:
        assert f'<span class="cause">{remedy.cause}</span> {remedy.says}' in page
    assert "<code>lockstep repair terminal_risk</code>" in page


def test_of_a_clean_report_nothing_is_to_be_repaired() -> None:
    clean = a_report(causes={"early": 2}, features=(), differences=())
    assert remedies(clean) == []
    assert "What mends it" not in render([clean])
    assert isinstance(remedies(a_report())[0], Remedy)
