"""Every way around the gate that a report with a good signature could be: it is sampled, compared and judged again.

The reports here are signed with the very key, as by somebody who holds it and edits what he signs.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from profile_world import (
    FALLBACK_MODEL,
    MODEL,
    NOON,
    PROFILE,
    TICK,
    USE_CASE,
    Read,
    World,
    created_of,
    open_world,
    tick_of,
)
from sound_evaluation import RECIPE, evaluation_of

from lockstep.contract import FeatureContract, TrainingCut
from lockstep.errors import BadInput, Refused
from lockstep.materialize.database import Database
from lockstep.materialize.ledger import MATERIALIZE
from lockstep.materialize.ledger_rows import Mode
from lockstep.parity import gate, repeat
from lockstep.parity.kept import store
from lockstep.parity.repeat import unrepeatable
from lockstep.parity.report import ParityReport
from lockstep.parity.signature import signing_key
from lockstep.parity.verdict import Verdict, upper_bound
from lockstep.parity.verify import Question, measure
from lockstep.serving.log_rows import SERVED_LOG
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.training.evaluations import keep_evaluation
from lockstep.training.registry import EVALUATION_TAG, Registered
from lockstep.views.declare import DAY

SINCE, UNTIL = TICK, TICK + 2 * DAY
NOW = UNTIL + timedelta(hours=1)
CUSTOMERS = range(1, 9)
STORED = {n: {"home_x": float(n), "home_y": 3.0 + n, "segment": "s", "card_issued_day": 10 * n} for n in CUSTOMERS}
ROWS = 40
GATED = replace(USE_CASE, model=RECIPE)
READS_TOO_LITTLE = "it reads customer_profile as it was before the end of its window"


def contracts() -> FeatureContract:
    cut = TrainingCut(tables=(), spine_hash="h", known_at=NOW)
    fallback = compile_contract(USE_CASE, "defaults", cut)
    return compile_contract(USE_CASE, "rejects", cut).model_copy(update={"fallback": fallback})


@dataclass
class Gated:
    """A world whose model served two days, forty rows each by itself and by its fallback, and all of them right."""

    world: World
    model: Registered

    def measured(self, **changes: Any) -> ParityReport:
        question = Question(**{"shadow": True, "since": SINCE, "until": UNTIL, "rows": ROWS} | changes)
        return measure(self.world.settings, GATED, self.world.lake, self.world.ledger, self.model, question)

    def reasons(self, report: ParityReport) -> list[str]:
        return unrepeatable(self.world.settings, GATED, self.world.lake, self.world.ledger, self.model, report)

    def kept(self, report: ParityReport) -> str:
        return store(self.world.lake, report, signing_key(self.world.settings))

    def ask(self, *reports: str) -> Registered:
        return gate.require_passed(self.world.settings, GATED, self.world.lake, self.world.ledger, "3", *reports)


def reads(tick: int, first: int = 0) -> list[Read]:
    """Twenty rows that were read after a tick, over its day."""
    begin = tick_of(tick) + DAY / 4
    return [
        Read(CUSTOMERS[n % 8], at=begin + timedelta(minutes=n), tick=tick) for n in range(first, first + ROWS // 2)
    ]


def remembering(made: Callable[..., ParityReport]) -> Callable[..., ParityReport]:
    """Return the same function, which does not do again what it was asked before: of a world that nobody changes."""
    known: dict[str, ParityReport] = {}

    def measured(settings: Settings, *given: Any) -> ParityReport:
        asked = f"{settings.parity_limit} {settings.parity_confidence} {given[-1]}"
        if asked not in known:
            known[asked] = made(settings, *given)
        return known[asked]

    return measured


def open_gated(home: Path, monkeypatch: pytest.MonkeyPatch) -> Gated:
    artifact = SimpleNamespace(estimator=MODEL, fallback=FALLBACK_MODEL)
    monkeypatch.setattr("lockstep.parity.facts.load_artifact", lambda _: artifact)
    monkeypatch.setattr("lockstep.parity.facts.versions", lambda *_: {})
    world = open_world(home, NOW, STORED, GATED, parity_limit=0.2)
    for tick in (1, 2):
        world.bring(tick)
    contract = contracts()
    model = Registered(3, Path("model"), "d" * 64, contract, {}, {})
    evaluation = keep_evaluation(world.settings, world.lake, evaluation_of(model.digest, contract.hash))
    model = replace(model, tags={EVALUATION_TAG: evaluation})
    monkeypatch.setattr(gate, "require_model", lambda *_: model)
    world.log(contract, model.digest, [*reads(1), *reads(2)])
    assert contract.fallback is not None
    world.log(contract.fallback, model.digest, [*reads(1), *reads(2)], first=ROWS + 1, model=FALLBACK_MODEL)
    return Gated(world, model)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """One that no test changes."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(repeat, "measure", remembering(measure))
        yield open_gated(tmp_path_factory.mktemp("gate"), patches)


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """One of the test's own, in which all is measured anew."""
    monkeypatch.setattr(repeat, "measure", measure)
    return open_gated(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def passing(shared: Gated) -> ParityReport:
    report = shared.measured()
    assert (report.verdict, report.reasons, report.causes) == (Verdict.PASS, (), {})
    return report


@pytest.fixture(scope="module")
def of_fallback(shared: Gated) -> str:
    return shared.kept(shared.measured(fallback=True))


def test_a_report_of_each_model_that_says_what_it_is_made_of_lets_the_version_through(
    shared: Gated, passing: ParityReport, of_fallback: str
) -> None:
    main = shared.kept(passing)
    assert shared.ask(main, of_fallback) == shared.model
    assert shared.reasons(passing) == []
    named = {"main": shared.model.contract.hash[:12], "fallback": shared.model.contract.fallback.hash[:12]}
    for reports, reason in (
        ((main,), "fallback: no report speaks for it"),
        ((main, main), f"fallback: the report is about contract {named['main']}"),
        ((of_fallback, of_fallback), f"promoted: the report is about contract {named['fallback']}"),
    ):
        with pytest.raises(Refused, match=reason):
            shared.ask(*reports)


def refused(gated: Gated, report: ParityReport, *others: str) -> str:
    """Have the gate refuse a report, and return why."""
    with pytest.raises(Refused) as refusal:
        gated.ask(gated.kept(report), *others)
    assert refusal.value.exit_code == 3
    return str(refusal.value)


EDITS: list[tuple[str, dict[str, Any], str]] = [
    ("fewer rows served", {"sample.served": 39}, "its sample is"),
    ("more values compared", {"sample.compared_values": 10**9}, "its sample is"),
    ("another number of rows required", {"sample.required": 1}, "its sample is"),
    ("more rows sampled", {"sample.uniform": 4_000}, "its sample is"),
    ("a chosen seed", {"sample.seed": 1}, "its sample was drawn by a seed of somebody's choice"),
    ("excused rows", {"excused": 1}, "its excused is 0, not 1"),
    ("rejected rows", {"rejected": 1}, "its rejected is 0, not 1"),
    ("lost rows", {"lost": 0.001}, "its lost is 0.0, not 0.001"),
    ("values present", {"present": {PROFILE.name: 4_000}}, "its present is"),
    ("intervals", {"intervals": {PROFILE.name: 25}}, "its intervals is"),
    ("another ledger", {"ledger": {PROFILE.name: "e" * 64}}, "its ledger is"),
    ("causes", {"causes": {"early": 3}}, "its causes is {}, not {'early': 3}"),
    ("no features", {"features": []}, "its features is"),
    ("no strata", {"strata": []}, "its strata is"),
    ("no hours", {"hours": []}, "its hours is"),
    ("another model", {"model.digest": "e" * 64}, "the report is about model eeeeeeeeeeee, not dddddddddddd"),
    ("another contract", {"model.contract": "f" * 64}, "the report is about contract ffffffffffff"),
    ("live rows", {"shadow": False}, "the report is about live rows"),
    ("a loosened limit", {"limit": 0.5}, "the report excludes 50.00% with 95%, asked are 20.00% and 95%"),
    ("a loosened confidence", {"confidence": 0.5}, "the report excludes 20.00% with 50%, asked are 20.00% and 95%"),
    ("no limit", {"limit": 0.0}, "its limit is 0.0 and its confidence 0.95, which are no shares"),
    ("a limit below none", {"limit": -1.0}, "its limit is -1.0"),
    ("all confidence", {"confidence": 1.0}, "its limit is 0.2 and its confidence 1.0, which are no shares"),
    ("a window backwards", {"since": NOW.isoformat()}, "its window ends before it begins"),
    ("an old window", {"until": (UNTIL - timedelta(days=30)).isoformat()}, "its window ends before it begins"),
    ("another project", {"project": "another"}, "its project is fraud, not another"),
    ("another version", {"model.version": 77}, "its model is "),
    ("a newer row", {"newest": (UNTIL - timedelta(seconds=1)).isoformat()}, "its newest is 2018-05-02T"),
    ("no newest row", {"newest": None}, "the report does not say when its newest row was asked for"),
    ("reasons", {"reasons": ["x"]}, "its reasons is [], not ['x']"),
    ("a bound that the counts give and its confidence does not", {"upper_bound": 0.01}, "its upper_bound is 0.07"),
    ("no scores", {"scores": None}, "its scores is {"),
    ("scores of fewer rows", {"scores.rows": 39}, "its scores is {"),
    ("a score that shifted", {"scores.mean_shift": 0.001}, "its scores is {"),
    ("no snapshots read", {"read": {}}, "it does not say which snapshot of customer_profile was read"),
    ("a snapshot of the log that is none", {f"read.{SERVED_LOG}": 77}, "it cannot be made again: "),
    ("made in the future", {"created": (NOW + timedelta(hours=1)).isoformat()}, "the report is -1 day, 23:00:"),
    ("made long ago", {"created": (NOW - timedelta(days=2)).isoformat()}, "the report is 2 days, 0:00:"),
]


def edited(report: ParityReport, changes: dict[str, Any]) -> ParityReport:
    told = orjson.loads(report.to_json())
    for path, value in changes.items():
        at, *inner = path.split(".")
        if inner:
            told[at][inner[0]] = value
        else:
            told[at] = value
    return ParityReport.model_validate(told)


@pytest.mark.parametrize(("changes", "reason"), [pytest.param(c, r, id=name) for name, c, r in EDITS])
def test_an_edited_report_is_refused_though_its_signature_is_right(
    shared: Gated, passing: ParityReport, of_fallback: str, changes: dict[str, Any], reason: str
) -> None:
    assert reason in refused(shared, edited(passing, changes), of_fallback)


def signed_text(gated: Gated, report: ParityReport, text: str, name: str) -> str:
    """Keep a text under a name, and beside it what its columns would say."""
    told = SimpleNamespace(
        hash=name, to_json=lambda: text, created=report.created, model=report.model, verdict=report.verdict
    )
    return store(gated.world.lake, told, signing_key(gated.world.settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": None},
        {"upper_bound": None},
        {"lost": "few"},
        {"sample": {}},
        {"created": "2018-05-03T01:00:00"},
        {"until": "2018-05-03T00:00:00"},
        {"note": "trust me"},
        {"version": 2},
        {"mismatches": 4_000},
        {"mismatches": -1},
        {"mismatches": 10**400},
        {"excused": 41},
        {"mismatches": 20, "excused": 21},
        {"rejected": 41},
        {"foreign": -1},
    ],
)
def test_a_report_that_says_what_no_report_says_is_bad_input(
    shared: Gated, passing: ParityReport, changes: dict[str, Any]
) -> None:
    text = json.dumps({**orjson.loads(passing.to_json()), **changes})
    with pytest.raises(BadInput, match="cannot be read") as bad:
        shared.ask(signed_text(shared, passing, text, f"report of {changes}"[:40]))
    assert bad.value.exit_code == 2


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("lost", "nan% of the served log was lost"),
        ("limit", "excludes nan%"),
        ("upper_bound", "not the one its counts"),
    ],
)
def test_a_number_that_is_none_is_refused(
    shared: Gated, passing: ParityReport, of_fallback: str, field: str, reason: str
) -> None:
    text = orjson.dumps({**orjson.loads(passing.to_json()), field: "NaN"}).decode()
    name = ParityReport.model_validate_json(text).hash
    with pytest.raises(Refused, match=reason):
        shared.ask(signed_text(shared, passing, text, name), of_fallback)


def test_a_report_that_is_cut_off_is_bad_input(shared: Gated, passing: ParityReport) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        shared.ask(signed_text(shared, passing, passing.to_json()[:400], "cut off"))


def test_rows_of_the_log_that_came_later_void_a_report_if_they_are_its_own_and_more_than_may_be_lost(
    gated: Gated,
) -> None:
    report, world = gated.measured(), gated.world
    world.log(gated.model.contract, "another model", reads(2))
    assert gated.reasons(report) == [], "they are of another model"

    failing = with_wrong_rows(gated, 20)
    assert gated.reasons(report) == ["served_log has 60 rows of its window by now, it was made of 40"]

    assert (failing.verdict, failing.mismatches) == (Verdict.FAIL, 20)
    turned = {
        "verdict": "pass",
        "reasons": [],
        "mismatches": 0,
        "stratum_mismatches": 0,
        "upper_bound": upper_bound(0, failing.sample.uniform, 0.95),
        "causes": {},
        "differences": [],
    }
    told = refused(gated, edited(failing, turned))
    assert "made again, its mismatches is 20, not 0" in told
    assert "made again, its verdict is fail, not pass" in told


def test_rows_that_were_served_since_the_window_void_a_report(gated: Gated) -> None:
    report, world = gated.measured(), gated.world
    bad = {**STORED[1], "home_x": 99.0}
    late = [Read(1, at=UNTIL + timedelta(minutes=n), values=bad, tick=2) for n in range(20)]
    world.log(gated.model.contract, gated.model.digest, late, first=2 * ROWS + 1)
    assert gated.reasons(report) == ["verify again: 20 rows were served since its window"]
    assert gated.measured(since=UNTIL, until=NOW).verdict is Verdict.FAIL


def test_a_window_that_ends_long_after_its_last_row_is_as_old_as_that(gated: Gated) -> None:
    later = NOW + timedelta(days=25)
    gated.world.settings.clock.advance_to(later)
    dressed = gated.measured(until=later - timedelta(hours=1))
    assert (dressed.verdict, dressed.newest) == (Verdict.PASS, tick_of(2) + DAY / 4 + timedelta(minutes=19))
    assert "the report's newest row was asked for 25 days" in refused(gated, dressed)


def test_rows_that_fail_the_window_void_a_report_however_late_they_came(gated: Gated) -> None:
    report, world = gated.measured(), gated.world
    stranger = compile_contract(USE_CASE, "defaults", TrainingCut(tables=(), spine_hash="other", known_at=NOW))
    world.log(stranger, gated.model.digest, [Read(1, at=NOON)], first=2 * ROWS + 5)
    assert gated.reasons(report) == [
        "by now, 1 log rows of its window name a contract that is not the model's",
        "by now, 4.71% of its window's log is lost, at most 1% may be",
    ]


def test_two_rows_of_one_name_fail_a_report_and_void_an_earlier_one(gated: Gated) -> None:
    report = gated.measured()
    world, contract, digest = gated.world, gated.model.contract, gated.model.digest
    world.log(contract, digest, [*reads(1), *reads(2)])
    again = gated.measured()
    made = {"created": again.created, "read": again.read}
    assert again == report.model_copy(update=made), "the very rows once more"
    assert gated.reasons(report) == []

    wrong = Read(CUSTOMERS[0], at=reads(1)[0].at, values={**STORED[1], "home_x": 99.0})
    world.log(contract, digest, [wrong])
    told = "2 rows of the log have a name that another one has"
    twice = gated.measured()
    assert (twice.verdict, twice.reasons[-1]) == (Verdict.FAIL, told)
    assert [gated.measured().mismatches for _ in range(3)] == [twice.mismatches] * 3
    assert gated.reasons(report) == [f"by now, {told}"]


def test_a_model_that_rejects_every_row_is_not_proven(gated: Gated, tmp_path: Path) -> None:
    lacking = {n: {**values, "card_issued_day": None} for n, values in STORED.items()}
    world = open_world(tmp_path / "lacking", NOW, lacking, GATED, parity_limit=0.2)
    for tick in (1, 2):
        world.bring(tick)
    asked = [replace(it, rejected="customer_profile:card_issued_day") for it in (*reads(1), *reads(2))]
    world.log(gated.model.contract, gated.model.digest, asked)
    report = Gated(world, gated.model).measured()
    assert (report.mismatches, report.rejected) == (0, ROWS)
    assert (report.verdict, report.upper_bound, report.reasons) == (
        Verdict.NOT_ENOUGH_EVIDENCE,
        1.0,
        (
            "0 sampled rows, 14 needed to exclude 20.00%",
            "40 of 40 sampled rows are rejected, at most 50% may be",
        ),
    )


def test_the_sample_does_not_depend_on_when_the_window_begins(shared: Gated) -> None:
    report, earlier = (shared.measured(since=SINCE - timedelta(microseconds=n)) for n in (0, 7))
    assert earlier.sample == report.sample


def with_wrong_rows(gated: Gated, rows: int) -> ParityReport:
    """Have the model serve a value that is nobody's, in the last rows of the window."""
    wrong = Read(1, at=UNTIL - timedelta(minutes=1), values={**STORED[1], "home_x": 99.0}, tick=2)
    gated.world.log(gated.model.contract, gated.model.digest, [wrong] * rows, first=2 * ROWS + 1)
    return gated.measured(rows=10 * ROWS)


def test_a_row_that_names_a_contract_which_is_not_the_models_fails_the_report(gated: Gated) -> None:
    stranger = compile_contract(USE_CASE, "defaults", TrainingCut(tables=(), spine_hash="other", known_at=NOW))
    gated.world.log(stranger, gated.model.digest, [Read(1, at=NOON)], first=2 * ROWS + 1)
    report = gated.measured()
    assert (report.verdict, report.foreign) == (Verdict.FAIL, 1)
    told = refused(gated, report)
    assert "1 log rows of this model name a contract that is not its own" in told
    hidden = edited(report, {"verdict": "pass", "reasons": [], "foreign": 0})
    assert "made again, its foreign is 1, not 0" in refused(gated, hidden)


def test_an_older_snapshot_of_a_views_table_does_not_stand_for_training(shared: Gated) -> None:
    first, second = (snapshot.id for snapshot in shared.world.lake.snapshots(PROFILE.table))
    older = shared.measured(read={PROFILE.table: first})
    assert shared.reasons(older) == [READS_TOO_LITTLE]
    newest = shared.measured(read={PROFILE.table: second})
    assert shared.reasons(newest) == []


def test_what_no_request_of_the_window_may_see_voids_no_report_and_what_one_may_see_does(gated: Gated) -> None:
    report, world = gated.measured(), gated.world
    world.bring(3)
    assert created_of(3) > UNTIL
    assert gated.reasons(report) == []

    planned = world.ledger.plan_compute(
        PROFILE.name, Mode.LIVE, tick_of(3), tick_of(4), {}, UNTIL - PROFILE.visible_lag
    )
    snapshot = world.lake.append(PROFILE.table, PROFILE.schema.empty_table())
    world.ledger.commit_compute(planned, snapshot.id, 0, UNTIL + timedelta(minutes=2))
    assert gated.reasons(report) == [], "no request of the window may see it"

    planned = world.ledger.plan_compute(
        PROFILE.name, Mode.LIVE, tick_of(4), tick_of(5), {}, UNTIL - PROFILE.visible_lag - timedelta(seconds=1)
    )
    snapshot = world.lake.append(PROFILE.table, PROFILE.schema.empty_table())
    world.ledger.commit_compute(planned, snapshot.id, 0, UNTIL + timedelta(minutes=3))
    assert gated.reasons(report) == [READS_TOO_LITTLE]
    assert gated.reasons(gated.measured()) == []


def test_a_ledger_whose_past_was_rewritten_voids_a_report(gated: Gated) -> None:
    report = gated.measured()
    rows = MATERIALIZE.c
    for statement in (
        MATERIALIZE.update().where(rows.id == 1).values(digest="another"),
        MATERIALIZE.update().where(rows.id == 1).values(rows_accepted=7),
        MATERIALIZE.update().where(rows.id == 2).values(committed_at=rows.committed_at + 1),
        MATERIALIZE.delete().where(rows.id == 1),
    ):
        with rewritten_ledger(gated, statement):
            assert any("made again, its ledger is " in reason for reason in gated.reasons(report)), statement
    assert gated.reasons(report) == []


@contextmanager
def rewritten_ledger(gated: Gated, statement: Any) -> Iterator[None]:
    """Have somebody write into the ledger, and put back what was there."""
    database = Database.open(gated.world.settings)
    before = database.all(sa.select(MATERIALIZE))
    with database.transaction() as connection:
        connection.execute(statement)
    yield
    with database.transaction() as connection:
        connection.execute(MATERIALIZE.delete())
        connection.execute(MATERIALIZE.insert(), [dict(row) for row in before])


def test_a_log_that_is_gone_makes_no_report_again_and_an_empty_one_is_no_evidence(gated: Gated) -> None:
    report = gated.measured()
    gated.world.lake.drop(SERVED_LOG)
    assert any("made again, its sample is" in reason for reason in gated.reasons(report))
    nothing = gated.measured()
    assert (nothing.verdict, nothing.sample.served) == (Verdict.NOT_ENOUGH_EVIDENCE, 0)
    told = refused(gated, nothing)
    assert "the report's verdict is not_enough_evidence" in told
    assert "0 sampled rows, 14 needed to exclude 20.00%" in told


def test_the_log_of_another_model_is_no_evidence(shared: Gated) -> None:
    stranger = Gated(shared.world, replace(shared.model, digest="e" * 64)).measured()
    assert (stranger.verdict, stranger.sample.served) == (Verdict.NOT_ENOUGH_EVIDENCE, 0)


def test_a_snapshot_that_has_expired_is_named(gated: Gated) -> None:
    report, world = gated.measured(), gated.world
    (_, second) = world.lake.snapshots(PROFILE.table)
    world.bring(3)
    world.lake.table(PROFILE.table).maintenance.expire_snapshots().by_id(second.id).commit()
    assert gated.reasons(report) == [READS_TOO_LITTLE]


def test_the_log_of_a_clock_that_is_ahead_of_ours_fails_and_is_refused(gated: Gated) -> None:
    late = NOW + gated.world.settings.request_time_limit + timedelta(minutes=1)
    gated.world.log(gated.model.contract, gated.model.digest, [Read(1, at=late, tick=2)], first=2 * ROWS + 1)
    report = gated.measured(until=late + timedelta(seconds=1))
    assert report.verdict is Verdict.FAIL
    assert "1 sampled rows were read at a time that is yet to come" in " ".join(report.reasons)
    told = refused(gated, report)
    assert "the report's window ends 0:0" in told
    assert "the report's newest row was asked for -1 day" in told


def test_a_window_that_is_empty_is_bad_input(shared: Gated) -> None:
    for changes in ({"until": SINCE}, {"until": SINCE - timedelta(seconds=1)}):
        with pytest.raises(BadInput, match="is empty") as bad:
            shared.measured(**changes)
        assert bad.value.exit_code == 2


def test_a_seed_that_was_given_makes_a_report_that_the_gate_refuses(shared: Gated) -> None:
    chosen = shared.measured(seed=7)
    assert chosen.verdict is Verdict.PASS
    assert shared.reasons(chosen) == ["its sample was drawn by a seed of somebody's choice"]
