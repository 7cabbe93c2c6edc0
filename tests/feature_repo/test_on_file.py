"""What is on file about customers and terminals: a first row each, then every change, known minutes later."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.simulator import SimulatorParameters, World, simulate
from feature_repo.simulator.on_file import (
    CATEGORIES,
    SEGMENTS,
    OnFile,
    draw_customer_file,
    draw_terminal_file,
)
from feature_repo.simulator.population import draw_population

DAY, MINUTE = 86_400_000_000, 60_000_000
START = 17_622 * DAY  # 2018-04-01
PUBLISHED = SimulatorParameters()
SMALL = SimulatorParameters(customers=120, terminals=150, days=60, start=datetime(2018, 4, 1, tzinfo=UTC), radius=20.0)

# Who draws it, how many there are, what it may be, changes a year, and the oldest age in days.
FILES = [
    pytest.param(draw_customer_file, PUBLISHED.customers, SEGMENTS, 1.0, 5 * 365, id="customers"),
    pytest.param(draw_terminal_file, PUBLISHED.terminals, CATEGORIES, 1 / 3, 10 * 365, id="terminals"),
]
for_each_file = pytest.mark.parametrize(("draw", "population", "names", "yearly", "oldest"), FILES)
Draw = Callable[[SimulatorParameters], OnFile]


@pytest.fixture(scope="module")
def small() -> World:
    return simulate(SMALL)


def by_key(rows: OnFile) -> dict[int, list[tuple[str, int, int, int]]]:
    """(kind, since_day, changed_at, known_at) of each id, in order."""
    found = defaultdict(list)
    columns = (rows.id, rows.kind, rows.since_day, rows.changed_at, rows.known_at)
    for key, *row in zip(*(column.tolist() for column in columns), strict=True):
        found[key].append(tuple(row))
    return found


@for_each_file
def test_everyone_has_a_first_row_of_the_day_before_the_world(
    draw: Draw, population: int, names: tuple[str, ...], yearly: float, oldest: int
) -> None:
    found = by_key(draw(PUBLISHED))

    assert list(found) == list(range(population))
    assert {rows[0][2:] for rows in found.values()} == {(START - DAY, START - DAY)}
    kinds = Counter(rows[0][0] for rows in found.values())
    assert set(kinds) == set(names)
    assert min(kinds.values()) == pytest.approx(population / len(names), rel=0.1)
    ages = [START // DAY - 1 - rows[0][1] for rows in found.values()]
    assert (min(ages) >= 0, max(ages) < oldest) == (True, True)
    assert np.mean(ages) == pytest.approx(oldest / 2, rel=0.05)


@for_each_file
def test_a_change_is_to_another_kind_inside_the_world_and_known_minutes_later(
    draw: Draw, population: int, names: tuple[str, ...], yearly: float, oldest: int
) -> None:
    found = by_key(draw(PUBLISHED))

    changes = [(before, after) for rows in found.values() for before, after in itertools.pairwise(rows)]
    assert len(changes) == pytest.approx(population * yearly * PUBLISHED.days / 365, rel=0.1)
    moves = Counter((before[0], after[0]) for before, after in changes)
    assert set(moves) == {(one, other) for one in names for other in names if one != other}
    for before, after in changes:
        assert before[1] == after[1]
        assert START <= after[2] < START + PUBLISHED.days * DAY
        assert before[2] < after[2]
        assert after[3] - after[2] in range(MINUTE, 31 * MINUTE, MINUTE)


@for_each_file
def test_more_days_leave_the_changes_of_the_first_days_as_they_were(
    draw: Draw, population: int, names: tuple[str, ...], yearly: float, oldest: int
) -> None:
    short, long = by_key(draw(replace(PUBLISHED, days=30))), by_key(draw(PUBLISHED))

    assert short == {key: [row for row in rows if row[2] < START + 30 * DAY] for key, rows in long.items()}


def test_with_more_customers_the_first_ones_were_the_same_from_the_beginning() -> None:
    few, many = (draw_customer_file(replace(SMALL, customers=n, days=1)) for n in (100, 200))
    first = [rows[0] for rows in by_key(many).values()][:100]
    assert [rows[0] for rows in by_key(few).values()] == first


def test_a_row_of_the_world_has_the_place_and_what_is_on_file(small: World) -> None:
    population = draw_population(SMALL)
    for table, places, drawn in (
        (small.customers, population.customer_places, draw_customer_file(SMALL)),
        (small.terminals, population.terminal_places, draw_terminal_file(SMALL)),
    ):
        expected = [
            (int(key), *places[key].tolist(), str(kind), int(since), int(changed), int(known))
            for key, kind, since, changed, known in zip(
                drawn.id, drawn.kind, drawn.since_day, drawn.changed_at, drawn.known_at, strict=True
            )
        ]
        stamps = [pa.int64() if pa.types.is_timestamp(t) else t for t in table.schema.types]
        plain = table.cast(pa.schema(list(zip(table.column_names, stamps, strict=True))))
        rows = [tuple(row.values()) for row in plain.to_pylist()]
        assert len(rows) > len(places)
        assert rows == sorted(expected, key=lambda row: (row[-1], row[0]))


def test_changes_on_file_follow_the_seed_and_leave_the_payments_alone(small: World) -> None:
    again = simulate(SMALL)
    assert again.customers.equals(small.customers)
    # Streams of their own: more terminals move payments, and no customer's segment.
    other = simulate(replace(SMALL, terminals=151))
    columns = ["customer_id", "segment", "card_issued_day", "changed_at", "known_at"]
    assert other.customers.select(columns).equals(small.customers.select(columns))
    assert not other.transactions.equals(small.transactions)
