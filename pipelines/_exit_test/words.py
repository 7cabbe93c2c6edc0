"""What the exit test tells: what somebody on call would hear, and after a wrong answer where to look."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lockstep.views import Words
from pipelines._exit_test.begin import Told
from pipelines._exit_test.new_view import NAME, ROWS, Checked, Exercise
from pipelines._exit_test.sealed import Part

HINTS: Mapping[Part, str] = {
    Part.CAUSE: "A report names a cause of each difference. Were the rows of both models looked at, those of the fallback too, "
    "and all of the window? What do `lockstep views` and `lockstep doctor` say?",
    Part.VIEW: "The cause is right. In a report, of which view are the features that differ, by that cause? How do the views "
    "stand in `lockstep views`?",
    Part.HOURS: "The cause is right. The evidence of the differences says how far apart two clocks are, and in which direction.",
}


def incident_lines(told: Told, words: Words, folder: Path) -> Iterator[str]:
    """Yield what is told at the beginning of an incident."""
    yield f"{told.incident}: a deployment went out at {told.deployed:%Y-%m-%dT%H:%MZ}; now it is {told.now:%Y-%m-%dT%H:%MZ}"
    yield (
        f"  Average precision over the last {told.days} days, {told.requests:,} {words.rows} with {told.positives} "
        f"{words.positives}, is {told.since:.3f};"
    )
    yield (
        f"  the model as it was before would have had {told.before:.3f} on the same ones: {told.lost:.0%} are lost. "
        f"The fallback answered {told.by_fallback:.0%}."
    )
    yield f"  Find the cause, and the view or by how many hours. Its home is {folder}."
    yield f"    lockstep exit-test open {told.incident} -- lockstep parity verify --hours {24 * told.days}"
    yield f"    lockstep exit-test open {told.incident}    # a shell in which all tools look at that home"
    yield f"    lockstep exit-test check {told.incident} --cause CAUSE [--view VIEW] [--hours HOURS]"


def exercise_lines(exercise: Exercise, folder: Path) -> Iterator[str]:
    """Yield what is told at the beginning of the exercise of a new view."""
    yield f"{NAME}: a new feature view"
    yield from (f"  {line}" for line in exercise.task.splitlines())
    yield f"  Declare it in {exercise.package}, a copy that nobody else uses, and fill it"
    yield f"  from {exercise.start:%Y-%m-%dT%H:%MZ} up to now, {exercise.now:%Y-%m-%dT%H:%MZ}. Its home is {folder}."
    yield f"    lockstep exit-test open {NAME}    # a shell in that home"
    yield f"    lockstep exit-test check {NAME} --view VIEW --bound PERCENT"
    yield f"  PERCENT: which rate of mismatches {ROWS} served rows without one leave possible."


def checked_line(name: str, checked: Checked) -> str:
    """Return what 50 rows prove."""
    return (
        f"{name} is there, computed, online and in parity: {checked.mismatches} mismatches in {checked.rows} served rows. "
        f"That leaves a rate of up to {checked.bound:.1%} possible, at {checked.confidence:.0%} confidence; no less."
    )
