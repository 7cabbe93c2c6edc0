"""Each cause of a row that was read wrong, too early or too late: made on purpose, with what it was read from."""

from dataclasses import replace
from math import inf

import pytest
from parity_case import (
    CONTRACT,
    FRESHNESS,
    HOUR,
    KEYS,
    LAG,
    LAKE,
    MINUTE,
    MOST_APART,
    NOW,
    RISK,
    SPEND,
    TTL,
    LakeRow,
    Rows,
    Told,
    case_of,
    commit_time,
    epoch,
    epochs,
    event_of,
    evidence,
    explained,
    facts_of,
    lake_row,
    read_of,
    served,
    told,
    values_of,
    without,
)

from lockstep.online.epoch import Epochs
from lockstep.parity.cause import Cause
from lockstep.parity.compare import is_mismatch
from lockstep.parity.elsewhere import MOST_KEYS
from lockstep.parity.explain import explain
from lockstep.parity.misread import LEAST_TELLING
from lockstep.parity.sample import ServedRow, ServedView

SPENT = tuple((f.view, f.name) for f in CONTRACT.features if f.view in {"spend", "share"})
RISKS = tuple((f.view, f.name) for f in CONTRACT.features if f.view == "risk")
UP_TO_NOW: Rows = {name: [row for row in rows if row.born <= NOW] for name, rows in LAKE.items()}


def in_training(cause: Cause, *features: tuple[str, str]) -> Told:
    return {("training", view, feature, cause) for view, feature in features}


def whole(view: str, cause: Cause) -> Told:
    return {("consistency", view, None, cause)}


def of(row: ServedRow, rows: Rows = LAKE, **facts: object) -> Told:
    """The causes in a row that is alone."""
    return told(explained([row], rows, **facts)[row.name])


def spend_of(key: int, tick: int) -> LakeRow:
    return next(row for row in LAKE["spend"] if row.key == (key,) and row.born == tick)


def test_rows_of_every_tick_and_key_are_no_difference() -> None:
    rows = [served(n, tick=tick, counter=100 * n + tick) for n in KEYS for tick in range(1, 8)]
    assert {name for name, differences in explained(rows).items() if differences} == set()


@pytest.mark.parametrize(("short", "early"), [(0, False), (1, True)])
def test_a_row_is_early_until_its_created_time_and_the_visible_lag_have_passed(short: int, early: bool) -> None:
    at = event_of(NOW) + 2 * LAG - short
    found = explained([row := served(request_us=at)])[row.name]
    assert told(found) == (in_training(Cause.EARLY, *SPENT, *RISKS) if early else set())
    assert not is_mismatch(found)
    if early:
        created = event_of(NOW) + LAG
        assert evidence(found, "training", "spend", "nb") == (
            f"created {created} + visible lag is after the request time {at}"
        )


@pytest.mark.parametrize(("waited", "cause"), [(FRESHNESS, Cause.LATE), (FRESHNESS + 1, Cause.MATERIALIZATION_GAP)])
def test_a_store_behind_is_late_up_to_the_objective_and_a_gap_beyond_it(waited: int, cause: Cause) -> None:
    at = event_of(NOW) + LAG + waited
    row = served(tick=NOW - 1, request_us=at)
    found = explained([row], UP_TO_NOW)[row.name]
    assert told(found) == in_training(cause, *SPENT, *RISKS)
    assert is_mismatch(found) is (cause is Cause.MATERIALIZATION_GAP)
    assert f"training's row came with snapshot {NOW}, the store was at {NOW - 1}" in found[0].evidence


def test_the_wait_is_that_of_the_first_row_that_the_store_lacks_not_of_trainings_new_one() -> None:
    """A key with a row each hour has a fresh one in training however long the store stood still."""
    noted = {name: {1: commit_time(1), **dict.fromkeys(range(2, 9), event_of(9))} for name in ("spend", "risk")}
    rows = [served(n, tick=1, request_us=event_of(8) + HOUR // 2) for n in (1, 2)]
    found = explained(rows, commits=noted)
    assert {d.cause for ds in found.values() for d in ds} == {Cause.MATERIALIZATION_GAP}
    assert "h after the first row that it lacked was made" in found[rows[0].name][0].evidence


@pytest.mark.parametrize(
    ("before", "after"), [(epochs(NOW, NOW + 1), epochs(NOW, NOW + 1)), (epochs(NOW), epochs(NOW + 1))]
)
def test_in_flight_the_row_of_a_lower_snapshot_is_late_as_beside_no_run(before: Epochs, after: Epochs) -> None:
    at = event_of(NOW + 1) + 2 * LAG + MINUTE
    noted = {name: {t: commit_time(t) + 8 * MINUTE * (t > NOW) for t in range(1, 9)} for name in ("spend", "risk")}
    row = served(tick=NOW, request_us=at, before=before, after=after)
    assert of(row, commits=noted) == in_training(Cause.LATE, *SPENT, *RISKS)


def test_only_the_view_that_is_behind_is_late() -> None:
    before = Epochs("i", {"spend": epoch(NOW - 1), "risk": epoch(NOW)})
    row = served(before=before, after=before, read={"spend": read_of(spend_of(1, NOW - 1))})
    assert of(row) == in_training(Cause.LATE, *SPENT)


def test_an_older_row_than_the_store_claims_to_hold_never_arrived() -> None:
    row = served(read={"spend": read_of(spend_of(1, NOW - 1))})
    found = explained([row])[row.name]
    assert told(found) == whole("spend", Cause.MATERIALIZATION_GAP) | in_training(Cause.MATERIALIZATION_GAP, *SPENT)
    assert f"the store said that it holds all up to snapshot {NOW}" in evidence(found, "consistency", "spend")


def test_the_same_event_written_again_and_the_older_row_served_is_a_stale_rewrite() -> None:
    again = lake_row("spend", 1, NOW, created_us=event_of(NOW) + LAG + MINUTE, values=values_of("spend", 1, 99))
    lake = {**LAKE, "spend": [*LAKE["spend"], again]}
    assert of(served(rows=lake), lake) == set()
    row = served(read={"spend": read_of(spend_of(1, NOW))})
    found = explained([row], lake)[row.name]
    assert told(found) == whole("spend", Cause.STALE_REWRITE) | in_training(Cause.STALE_REWRITE, *SPENT)
    assert evidence(found, "consistency", "spend") == (
        f"the row was written again: created {again.created_us}, served {again.created_us - MINUTE}"
    )


def test_a_row_that_the_lake_holds_and_the_store_lacks_is_missing() -> None:
    row = served(read={"spend": read_of(None)})
    found = explained([row])[row.name]
    assert told(found) == whole("spend", Cause.MISSING) | in_training(Cause.MISSING, *SPENT)
    assert evidence(found, "consistency", "spend").startswith("the logged snapshot has a row of (event, created) = ")


def test_a_key_that_nobody_ever_wrote_is_rightly_missing() -> None:
    lake = without("spend", 1)
    assert of(served(rows=lake), lake) == set()


def test_of_a_deleted_row_the_one_before_it_is_the_newest() -> None:
    lake = {**LAKE, "spend": [replace(r, died=NOW) if r == spend_of(1, NOW - 1) else r for r in LAKE["spend"]]}
    lake["spend"] = [r for r in lake["spend"] if r.key != (1,) or r.born < NOW]
    two_ago = read_of(spend_of(1, NOW - 2))
    assert of(served(rows=lake, read={"spend": two_ago}), lake) == set()
    found = of(served(rows=lake, read={"spend": read_of(spend_of(1, NOW - 1))}), lake)
    assert whole("spend", Cause.UNEXPLAINED) <= found, "a newer row than the snapshot's is none of the known faults"


@pytest.mark.parametrize(("age", "right", "wrong"), [(TTL, "present", "stale"), (TTL + 1, "stale", "present")])
def test_the_ttl_is_reached_when_a_row_is_older_and_not_when_it_is_just_as_old(
    age: int, right: str, wrong: str
) -> None:
    at = event_of(NOW) + age
    assert served(request_us=at).views["spend"].status == right
    assert of(served(request_us=at), UP_TO_NOW) == set()
    row = served(request_us=at, read={"spend": read_of(spend_of(1, NOW), wrong)})
    found = explained([row], UP_TO_NOW)[row.name]
    assert told(found) == whole("spend", Cause.TTL) | in_training(Cause.TTL, *SPENT)
    assert (
        evidence(found, "consistency", "spend") == f"it was 48.0 h old, the ttl is 48.0 h, and its status was {wrong}"
    )


def test_a_view_without_a_ttl_has_no_stale_rows() -> None:
    for_ever = CONTRACT.model_copy(update={"views": (SPEND.model_copy(update={"ttl_us": 0}), RISK)})
    row = served(request_us=event_of(NOW) + 1_000 * HOUR, read={"spend": read_of(spend_of(1, NOW))})
    facts = facts_of([row], UP_TO_NOW, contract=for_ever)
    assert facts.contract.view("spend").ttl_us == 0
    assert whole("spend", Cause.TTL).isdisjoint(of(row, UP_TO_NOW, contract=for_ever))


@pytest.mark.parametrize("tick", [NOW, NOW + 1])
def test_in_flight_the_row_before_and_the_row_being_written_are_both_consistent(tick: int) -> None:
    at = event_of(NOW + 1) + HOUR // 2
    reads = {"spend": read_of(spend_of(1, tick))}
    row = served(before=epochs(NOW, writing=NOW + 1), after=epochs(NOW + 1), request_us=at, read=reads)
    assert {d for d in of(row) if d[:2] == ("consistency", "spend")} == set()


def test_in_flight_a_row_that_no_allowed_snapshot_has_as_newest_is_named_so() -> None:
    reads = {"spend": read_of(spend_of(1, NOW - 1))}
    row = served(before=epochs(NOW, writing=NOW + 1), after=epochs(NOW + 1), read=reads)
    assert whole("spend", Cause.IN_FLIGHT) <= of(row)
    steady = replace(row, before=epochs(NOW), after=epochs(NOW))
    assert whole("spend", Cause.MATERIALIZATION_GAP) <= of(steady)


def test_in_flight_all_snapshots_between_the_two_readings_are_allowed_and_the_one_before_is_not() -> None:
    flying = {"before": epochs(NOW - 2), "after": epochs(NOW)}
    for tick, consistent in ((NOW - 3, False), (NOW - 2, True), (NOW - 1, True), (NOW, True), (NOW + 1, False)):
        row = served(read={"spend": read_of(spend_of(1, tick))}, **flying)
        assert (whole("spend", Cause.IN_FLIGHT) <= of(row)) is not consistent, tick


@pytest.mark.parametrize("gone", [{"before"}, {"after"}, {"before", "after"}])
def test_a_store_without_a_name_vouches_for_nothing(gone: set[str]) -> None:
    row = served(**{reading: epochs(NOW, incarnation=None) for reading in gone})
    assert of(row) == whole("spend", Cause.UNVOUCHED) | whole("risk", Cause.UNVOUCHED)


def test_a_flushed_stores_empty_epoch_hash_does_not_make_missing_look_right() -> None:
    nothing = {name: read_of(None) for name in ("spend", "risk")}
    flushed = Epochs(None, {})
    row = served(before=flushed, after=flushed, read=nothing)
    assert of(row) == (
        whole("spend", Cause.UNVOUCHED) | whole("risk", Cause.UNVOUCHED) | in_training(Cause.UNVOUCHED, *SPENT, *RISKS)
    )


@pytest.mark.parametrize(("before", "after", "right"), [("h", "h", True), ("h", "i", False), ("x", "x", False)])
def test_a_row_is_of_one_store_that_the_ledger_wrote_to(before: str, after: str, right: bool) -> None:
    row = served(before=epochs(NOW, incarnation=before), after=epochs(NOW, incarnation=after))
    expected: Told = set() if right else whole("spend", Cause.UNEXPLAINED) | whole("risk", Cause.UNEXPLAINED)
    assert of(row) == expected


def test_a_view_of_which_no_reading_was_logged_is_unexplained() -> None:
    row = served()
    found = explained([unlogged := replace(row, views={"risk": row.views["risk"]})])[unlogged.name]
    assert whole("spend", Cause.UNEXPLAINED) <= told(found)
    assert evidence(found, "consistency", "spend") == "the log names no reading of it"


def erased(key: int, join_key: str = "card", at: float = inf) -> dict[tuple[str, str], float]:
    return {(join_key, facts_of([]).key_sha256(join_key, key)): at}


@pytest.mark.parametrize(("after", "excused"), [(0, True), (1, False)])
def test_an_erasure_excuses_no_row_that_was_read_after_it(after: int, excused: bool) -> None:
    row = served()
    found = explained([row], without("spend", 1), erased=erased(1, at=row.read_us - after))[row.name]
    assert is_mismatch(found) is not excused


def test_a_row_of_an_erased_entity_is_excused_also_in_training() -> None:
    lake = without("spend", 1)
    found = explained([row := served()], lake, erased=erased(1))[row.name]
    assert told(found) == whole("spend", Cause.ERASED) | in_training(Cause.ERASED, *SPENT)
    assert not is_mismatch(found)
    assert evidence(found, "consistency", "spend") == "a receipt names this card, and the lake holds nothing of it"


def test_an_erasure_excuses_no_other_key_no_other_view_and_nothing_that_the_lake_still_holds() -> None:
    lake = without("spend", 1)
    assert is_mismatch(explained([row := served()], lake, erased=erased(2))[row.name])
    assert is_mismatch(explained([row], lake, erased=erased(1, "shop"))[row.name])
    damaged = served(read={"spend": read_of(spend_of(1, NOW), nb=-7)})
    assert is_mismatch(explained([damaged], LAKE, erased=erased(1))[damaged.name])
    both = explained([row := served(read={"risk": read_of(None)})], lake, erased=erased(1))[row.name]
    assert whole("spend", Cause.ERASED) | whole("risk", Cause.MISSING) <= told(both)
    assert is_mismatch(both)


# Values that are not the lake's.


def held(column: str, cause: Cause, view: str = "risk") -> Told:
    return {("consistency", view, column, cause)}


def process(**reads: object) -> list[ServedRow]:
    """A row of each key, of which each view's reading is made by a function of the key."""
    return [served(n, read={view: make(n) for view, make in reads.items()}) for n in KEYS]  # type: ignore[operator]


def risk_with(key: int, **values: object) -> ServedView:
    return read_of(lake_row("risk", key, NOW), **values)


def test_damage_in_one_row_is_corruption_by_column_and_training_says_the_same_of_that_feature_alone() -> None:
    rows = process(risk=lambda key: risk_with(key, **({"risk_1d": 7.7, "calls": -9} if key == 3 else {})))
    found = explained(rows)
    assert {name for name, differences in found.items() if differences} == {rows[2].name}
    assert told(found[rows[2].name]) == (
        held("risk_1d", Cause.CORRUPTION)
        | held("calls", Cause.CORRUPTION)
        | in_training(Cause.CORRUPTION, ("risk", "risk_1d"), ("risk", "calls"))
    )
    expected = values_of("risk", 3, NOW)["risk_1d"]
    assert f"with {expected}, and no other key has what was served" in evidence(
        found[rows[2].name], "consistency", "risk", "risk_1d"
    )


def test_a_version_that_the_lake_never_held_is_corruption_even_if_the_values_are_right() -> None:
    row = served(read={"risk": replace(risk_with(1), created_us=5)})
    assert whole("risk", Cause.CORRUPTION) <= of(row)


@pytest.mark.parametrize("of_lake", [0.5, None])
def test_a_column_that_the_log_does_not_name_is_not_equal_to_a_null_of_the_lake(of_lake: float | None) -> None:
    lake = {**LAKE, "risk": [replace(r, values={**r.values, "risk_1d": of_lake}) for r in LAKE["risk"]]}
    good = served(rows=lake)
    read = {name: value for name, value in good.views["risk"].values.items() if name != "risk_1d"}
    row = served(rows=lake, read={"risk": replace(good.views["risk"], values=read)})
    assert ("consistency", "risk", "risk_1d") in {d[:3] for d in of(row, lake)}


@pytest.mark.parametrize(("shared", "cause"), [(MOST_KEYS, Cause.WRONG_ROW), (MOST_KEYS + 1, Cause.CORRUPTION)])
def test_the_row_of_another_key_tells_only_where_few_keys_have_it(shared: int, cause: Cause) -> None:
    keys = range(2, 2 + shared)
    lake = {
        **LAKE,
        "risk": [
            lake_row("risk", r.key[0], r.born, values=values_of("risk", 2, r.born)) if r.key[0] in keys else r
            for r in LAKE["risk"]
        ],
    }
    row = served(rows=lake, read={"risk": read_of(lake_row("risk", 2, NOW))})
    found = explained([row], lake)[row.name]
    assert {d.cause for d in found} == {cause}
    if cause is Cause.WRONG_ROW:
        assert evidence(found, "consistency", "risk", "calls") == (
            "it is the row of the key 2: (event, created) and all values"
        )


def test_where_other_keys_rows_were_read_for_sure_one_that_many_keys_have_is_another_keys_too() -> None:
    idle = {"calls": 0, "risk_1d": 0.0, "risk_7d": 0.0}
    lake = {**LAKE, "risk": [replace(r, values=idle) if r.key[0] > 6 else r for r in LAKE["risk"]]}
    shared = served(1, rows=lake, read={"risk": read_of(lake_row("risk", 12, NOW, values=idle))})
    assert {d.cause for d in explained([shared], lake)[shared.name]} == {Cause.CORRUPTION}
    sure = served(2, rows=lake, read={"risk": read_of(lake_row("risk", 3, NOW))})
    assert {d.cause for ds in explained([shared, sure], lake).values() for d in ds} == {Cause.WRONG_ROW}
    elsewhere = replace(sure, process="another")
    found = explained([shared, elsewhere], lake)
    assert {d.cause for d in found[shared.name]} == {Cause.CORRUPTION}, "another process says nothing of this one"


def test_a_row_of_another_key_and_another_version_is_another_keys_too() -> None:
    row = served(read={"risk": read_of(lake_row("risk", 9, NOW - 2))})
    assert {d.cause for d in explained([row])[row.name]} == {Cause.WRONG_ROW}


def test_a_column_read_from_another_one_of_its_view_is_named_with_that_one() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=values_of("risk", key, NOW)["risk_1d"]))
    found = explained(rows)
    expected = held("risk_7d", Cause.WRONG_ROW) | in_training(Cause.WRONG_ROW, ("risk", "risk_7d"))
    assert all(told(differences) == expected for differences in found.values())
    assert evidence(found[rows[0].name], "consistency", "risk", "risk_7d") == (
        "risk_7d holds the value of risk_1d, in the rows of this process that differ"
    )


def test_a_column_read_from_another_view_is_named_with_view_and_column() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=values_of("spend", key, NOW)["limit"]))
    found = explained(rows)[rows[0].name]
    assert evidence(found, "consistency", "risk", "risk_7d").startswith("risk_7d holds the value of spend:limit, ")
    assert {d.cause for d in found} == {Cause.WRONG_ROW}


@pytest.mark.parametrize(("rows", "cause"), [(LEAST_TELLING, Cause.WRONG_ROW), (LEAST_TELLING - 1, Cause.CORRUPTION)])
def test_fewer_telling_rows_than_three_name_no_column(rows: int, cause: Cause) -> None:
    made = process(risk=lambda key: risk_with(key, risk_7d=values_of("risk", key, NOW)["risk_1d"]))[:rows]
    assert {d.cause for d in explained(made)[made[0].name]} == {cause}


def test_a_column_of_which_no_row_has_a_value_is_under_another_name_in_the_store() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=None))
    found = explained(rows)[rows[0].name]
    expected = held("risk_7d", Cause.SCHEMA_DRIFT) | in_training(Cause.SCHEMA_DRIFT, ("risk", "risk_7d"))
    assert told(found) == expected
    assert evidence(found, "consistency", "risk", "risk_7d").startswith("no row of this process has risk_7d")
    seen = [*rows, served(13, key=1)]
    assert {d.cause for d in explained(seen)[rows[0].name]} == {Cause.UNEXPLAINED}, "one row has a value"


@pytest.mark.parametrize(("wrong", "cause"), [(6, Cause.CORRUPTION), (7, Cause.UNEXPLAINED)])
def test_wrong_in_more_than_half_of_the_rows_is_no_damage_to_single_rows(wrong: int, cause: Cause) -> None:
    rows = process(risk=lambda key: risk_with(key, **({"risk_7d": 77.7 + key**2} if key <= wrong else {})))
    assert {d.cause for ds in explained(rows).values() for d in ds} == {cause}


def test_of_fewer_rows_than_ten_the_share_that_is_wrong_says_nothing() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=77.7 + key**2))
    assert {d.cause for ds in explained(rows[:9]).values() for d in ds} == {Cause.CORRUPTION}
    assert {d.cause for ds in explained(rows[:10]).values() for d in ds} == {Cause.UNEXPLAINED}


def test_many_short_lived_processes_that_are_all_wrong_tell_together() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=77.7 + key**2))
    apart = [replace(row, process=f"p{n // 4}") for n, row in enumerate(rows)]
    assert {d.cause for ds in explained(apart).values() for d in ds} == {Cause.UNEXPLAINED}


def test_a_value_that_was_converted_on_its_way_is_of_another_type() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=values_of("risk", key, NOW)["risk_7d"] * 100))
    found = explained(rows)[rows[0].name]
    assert told(found) == held("risk_7d", Cause.TYPE) | in_training(Cause.TYPE, ("risk", "risk_7d"))
    assert evidence(found, "consistency", "risk", "risk_7d").endswith(" in the lake: multiplied by 100")


# Clocks.


def skewed(ahead: int, ticks: int = 3) -> list[ServedRow]:
    """Rows of a process whose clock is ahead; what it asks for and what it reads is all by its own clock."""
    return [
        served(n, tick=NOW - 3 + n, request_us=event_of(NOW - 3 + n) + 20 * MINUTE + ahead)
        for n in range(1, ticks + 1)
    ]


@pytest.mark.parametrize("hours", [5, -5, 1])
def test_one_difference_that_fits_all_rows_of_a_process_is_its_clock(hours: int) -> None:
    ahead = hours * HOUR
    rows = skewed(ahead)
    found = explained(rows)
    causes = {d.cause for ds in found.values() for d in ds}
    assert causes == {Cause.CLOCK_SKEW}
    said = next(d.evidence for ds in found.values() for d in ds)
    assert said.startswith(f"the clock of this process was {'ahead of' if hours > 0 else 'behind'} the ledger's by ")
    assert is_mismatch(found[rows[0].name])


def test_a_replica_that_is_behind_read_at_one_interval_is_no_clock() -> None:
    rows = [served(n, tick=2, request_us=event_of(5) + HOUR // 2 + n * 1_000) for n in range(1, 4)]
    assert Cause.CLOCK_SKEW not in {d.cause for ds in explained(rows).values() for d in ds}


def test_one_row_without_a_value_does_not_make_a_column_absent() -> None:
    row = served(read={"spend": read_of(spend_of(1, NOW), total=None)})
    assert Cause.SCHEMA_DRIFT not in {cause for *_, cause in of(row)}


def test_a_process_of_two_rows_has_no_clock_that_could_be_told() -> None:
    found = explained(skewed(HOUR, ticks=2))
    assert {d.cause for ds in found.values() for d in ds} == {Cause.LATE}


def test_a_store_that_stands_still_fits_no_one_clock() -> None:
    """It is read later and later after the same interval, or right before and wrong after."""
    still = [served(n, tick=NOW - 1, request_us=event_of(NOW - 1 + n) + 20 * MINUTE) for n in range(1, 5)]
    assert {d.cause for ds in explained(still).values() for d in ds} == {Cause.LATE, Cause.MATERIALIZATION_GAP}
    right = [served(n, tick=NOW) for n in range(5, 8)]
    behind = [served(n, tick=NOW, request_us=event_of(NOW + 2) + 20 * MINUTE) for n in range(8, 11)]
    assert {d.cause for ds in explained(behind).values() for d in ds} == {Cause.LATE}, (
        "one interval may be a clock or not"
    )
    assert {d.cause for ds in explained([*right, *behind]).values() for d in ds} == {Cause.LATE}


@pytest.mark.parametrize(("ahead", "skew"), [(MOST_APART - 1, False), (MOST_APART + 1, True)])
def test_a_clock_is_wrong_beyond_what_two_clocks_may_be_apart(ahead: int, skew: bool) -> None:
    """The reading at the very end of an interval, by the ledger's clock, tells how far ahead the other one is at least."""
    rows = [served(n, tick=tick, request_us=commit_time(tick + 1) + ahead) for n, tick in enumerate((3, 4, 5), 1)]
    assert ({d.cause for ds in explained(rows).values() for d in ds} == {Cause.CLOCK_SKEW}) is skew


def test_another_process_is_not_blamed_for_a_clock() -> None:
    wrong = [replace(row, process="wrong") for row in skewed(5 * HOUR)]
    late = [served(n, tick=NOW - 1, process="late", request_us=event_of(NOW) + 2 * LAG) for n in (1, 2, 3)]
    found = explained([*wrong, *late])
    assert {d.cause for row in late for d in found[row.name]} == {Cause.LATE}
    assert {d.cause for row in wrong for d in found[row.name]} == {Cause.CLOCK_SKEW}


@pytest.mark.parametrize(("apart", "skew"), [(MOST_APART, False), (MOST_APART + 1, True)])
def test_a_request_that_says_another_time_than_it_was_read_at_is_skewed_beyond_what_two_clocks_may_be_apart(
    apart: int, skew: bool
) -> None:
    at = event_of(NOW + 1) + 2 * LAG
    row = served(request_us=at, read_us=at - apart)
    assert {d.cause for d in explained([row])[row.name]} == {Cause.CLOCK_SKEW if skew else Cause.LATE}


# Pairs.


def test_two_faults_in_one_row_keep_a_cause_each() -> None:
    row = served(read={"spend": read_of(None), "risk": risk_with(1, calls=-1)})
    found = explained([row])[row.name]
    assert told(found) == (
        whole("spend", Cause.MISSING)
        | in_training(Cause.MISSING, *SPENT)
        | held("calls", Cause.CORRUPTION)
        | in_training(Cause.CORRUPTION, ("risk", "calls"))
    )


def test_two_columns_of_one_view_that_are_wrong_for_two_reasons_keep_them() -> None:
    rows = process(
        risk=lambda key: risk_with(
            key,
            risk_7d=values_of("risk", key, NOW)["risk_1d"],
            **({"calls": -1} if key == 4 else {}),
        )
    )
    found = explained(rows)
    misread = held("risk_7d", Cause.WRONG_ROW) | in_training(Cause.WRONG_ROW, ("risk", "risk_7d"))
    damaged = held("calls", Cause.CORRUPTION) | in_training(Cause.CORRUPTION, ("risk", "calls"))
    assert told(found[rows[3].name]) == misread | damaged
    assert all(told(found[row.name]) == misread for row in rows if row is not rows[3])


def test_two_faults_in_two_rows_of_one_process_keep_a_cause_each() -> None:
    stale = served(1, read={"spend": read_of(spend_of(1, NOW - 1))})
    lost = served(2, read={"spend": read_of(None)})
    foreign = served(3, read={"spend": read_of(spend_of(7, NOW))})
    found = explained([stale, lost, foreign, served(4)])
    causes = [{d.cause for d in found[row.name]} for row in (stale, lost, foreign)]
    assert causes == [{Cause.MATERIALIZATION_GAP}, {Cause.MISSING}, {Cause.WRONG_ROW}]
    assert found["p/4"] == []


def test_what_is_early_does_not_excuse_what_is_wrong_beside_it() -> None:
    at = event_of(NOW) + 2 * LAG - 1
    row = served(request_us=at, read={"risk": risk_with(1, calls=-1)})
    found = explained([row])[row.name]
    assert held("calls", Cause.CORRUPTION) <= told(found)
    assert in_training(Cause.EARLY, *SPENT, ("risk", "risk_1d")) <= told(found)
    assert in_training(Cause.CORRUPTION, ("risk", "calls")) <= told(found)
    assert is_mismatch(found)


def test_a_sample_is_explained_by_its_own_rows_alone() -> None:
    rows = process(risk=lambda key: risk_with(key, risk_7d=values_of("risk", key, NOW)["risk_1d"]))
    case = case_of(rows)
    assert {d.cause for d in explain(case)[rows[0].name]} == {Cause.WRONG_ROW}
    few = explain(case, [rows[0].name, rows[1].name])
    assert set(few) == {rows[0].name, rows[1].name}
    assert {d.cause for ds in few.values() for d in ds} == {Cause.CORRUPTION}
