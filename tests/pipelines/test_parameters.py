"""What a person gives as `-p NAME=VALUE`, before anything runs."""

from typing import Any

import pytest

from lockstep.errors import BadInput
from pipelines._manifest.parameters import TIMES, arguments, parse_pairs
from pipelines.local import run_workflow


def declaring(*parameters: str, **defaults: Any) -> dict[str, Any]:
    declared = [{"name": name} for name in parameters] + [{"name": n, "value": v} for n, v in defaults.items()]
    return {"metadata": {"name": "lab-windows"}, "spec": {"arguments": {"parameters": declared}}}


JUNE, JULY = "2018-06-01T00:00:00Z", "2018-07-01T00:00:00Z"


@pytest.mark.parametrize(("first", "last"), [("start", "end"), ("since", "until")])
def test_a_window_begins_before_it_ends(first: str, last: str):
    manifest = declaring(first, last)
    assert arguments(manifest, {first: JUNE, last: JULY}) == {first: JUNE, last: JULY}
    with pytest.raises(BadInput, match=f"the window ends before it begins: {first} is 2018-07") as refused:
        arguments(manifest, {first: JULY, last: JUNE})
    assert refused.value.hint == f"{first} has to be before {last}"
    with pytest.raises(BadInput, match="the window is empty"):
        arguments(manifest, {first: JUNE, last: "2018-06-01T02:00:00+02:00"})


def test_the_ends_of_a_window_are_compared_as_times_not_as_text():
    given = {"start": "2018-06-01T23:00:00-05:00", "end": "2018-06-02T05:00:00Z"}
    assert arguments(declaring("start", "end"), given) == given


@pytest.mark.parametrize("name", sorted(TIMES))
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2018-06-01T00:00:00", "has no time zone: 2018-06-01T00:00:00"),
        ("2018-06-01", "has no time zone: 2018-06-01T00:00:00"),
        ("yesterday", "is no ISO 8601 time: 'yesterday'"),
        ("", "is no ISO 8601 time: ''"),
        ("0001-01-01T00:00:00+14:00", "is out of range"),
        ("9999-12-31T23:00:00-05:00", "is out of range"),
    ],
)
def test_a_time_has_a_zone(name: str, text: str, told: str):
    with pytest.raises(BadInput, match=f"parameter '{name}' {told}") as refused:
        arguments(declaring(name), {name: text})
    assert refused.value.hint == "write it as 2018-06-01T00:00:00Z"


def test_a_default_is_the_templates_own_affair():
    manifest = declaring(known_at="", window_end="{{workflow.scheduledTime}}")
    assert arguments(manifest, {}) == arguments(manifest, {"known_at": ""})
    assert arguments(manifest, {"known_at": JUNE})["known_at"] == JUNE


def test_a_time_is_only_what_is_declared_by_its_name():
    assert arguments(declaring("when"), {"when": "yesterday"}) == {"when": "yesterday"}


def test_a_reversed_window_is_refused_before_anything_runs(rendered, tmp_path):
    manifest = rendered("say")
    manifest["spec"]["arguments"]["parameters"] += [{"name": "since"}, {"name": "until"}]
    with pytest.raises(BadInput, match="ends before it begins"):
        run_workflow(manifest, {"text": "x", "since": JULY, "until": JUNE}, logs_dir=tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_pairs():
    assert parse_pairs(["a=1", "b=x=y\n", "c="]) == {"a": "1", "b": "x=y\n", "c": ""}
    with pytest.raises(BadInput, match="-p a=… is given twice"):
        parse_pairs(["a=1", "a=2"])
    with pytest.raises(BadInput, match="-p '=1' is not NAME=VALUE"):
        parse_pairs(["=1"])
