"""On-demand functions, row by row, against plain Python, and what their source may hold."""

import hashlib
import importlib.util
import inspect
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.definitions import use_case
from feature_repo.on_demand.deviation import amount_deviation
from feature_repo.on_demand.distance import terminal_distance
from feature_repo.on_demand.payment import payment
from feature_repo.on_demand.transaction import transaction_context
from lockstep.clock import from_micros, to_micros
from lockstep.hashing import source_hash
from lockstep.views import OnDemandView

WINDOWS = (1, 7, 30)
NAN = math.nan

cents = st.integers(0, 300_000)
moments = st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
# What a card paid before: None for a card without a stored row.
histories = (
    st.none() | st.lists(cents, max_size=40) | st.integers(0, 40).flatmap(lambda n: cents.map(lambda c: [c] * n))
)


def stored(histories: Sequence[Sequence[int] | None]) -> dict[str, np.ndarray]:
    """The columns of `customer_spend`, where every window holds all a card's payments."""
    measures: Mapping[str, Callable[[Sequence[int]], int]] = {
        "nb_tx": len,
        "amount_cents": sum,
        "amount_cents_squared": lambda paid: sum(cents * cents for cents in paid),
    }
    return {
        f"{name}_{days}d": np.array([NAN if paid is None else float(measure(paid)) for paid in histories])
        for name, measure in measures.items()
        for days in WINDOWS
    }


def same(found: np.ndarray, expected: Sequence[float]) -> bool:
    return np.array_equal(found, np.array(expected), equal_nan=True)


# --- the payment ---


def naive_payment(cents: int, time: datetime) -> dict[str, float]:
    return {
        "tx_amount": cents / 100,
        "tx_during_weekend": float(time.strftime("%a") in {"Sat", "Sun"}),
        "tx_during_night": float(time.hour <= 6),
    }


@given(rows=st.lists(st.tuples(cents, moments), min_size=1, max_size=20))
def test_amount_weekend_and_night_are_read_off_the_request(rows: list[tuple[int, datetime]]) -> None:
    columns = {
        "amount_cents": np.array([cents for cents, _ in rows]),
        "request_time_us": np.array([to_micros(time) for _, time in rows]),
    }
    expected = [naive_payment(*row) for row in rows]

    found = payment(columns)

    assert {name: values.tolist() for name, values in found.items()} == {
        name: [row[name] for row in expected] for name in expected[0]
    }
    published = transaction_context({**columns, **stored([None] * len(rows))})
    assert all(same(values, published[name]) for name, values in found.items())


@pytest.mark.parametrize("function", [payment, transaction_context])
@pytest.mark.parametrize(
    ("time", "night"),
    [
        ("2018-04-03T00:00:00+00:00", 1.0),
        ("2018-04-03T06:59:59.999999+00:00", 1.0),
        ("2018-04-03T07:00:00+00:00", 0.0),
        ("2018-04-03T23:59:59+00:00", 0.0),
        ("2018-04-03T08:30:00+02:00", 1.0),
    ],
)
def test_night_ends_at_seven_utc(function: Callable[..., dict[str, np.ndarray]], time: str, night: float) -> None:
    assert at(function, time)["tx_during_night"].tolist() == [night]


@pytest.mark.parametrize("function", [payment, transaction_context])
@pytest.mark.parametrize(
    ("time", "weekend"),
    [
        ("2018-04-06T23:59:59.999999+00:00", 0.0),  # a Friday
        ("2018-04-07T00:00:00+00:00", 1.0),
        ("2018-04-08T23:59:59+00:00", 1.0),
        ("2018-04-09T00:00:00+00:00", 0.0),
    ],
)
def test_the_weekend_is_saturday_and_sunday_utc(
    function: Callable[..., dict[str, np.ndarray]], time: str, weekend: float
) -> None:
    assert at(function, time)["tx_during_weekend"].tolist() == [weekend]


def at(function: Callable[..., dict[str, np.ndarray]], time: str) -> dict[str, np.ndarray]:
    micros = np.array([to_micros(datetime.fromisoformat(time))])
    return function({"amount_cents": np.array([100]), "request_time_us": micros, **stored([[]])})


# --- the payment counted in ---


@given(rows=st.lists(st.tuples(cents, histories), min_size=1, max_size=20))
def test_the_payment_at_hand_is_counted_into_what_is_stored(rows: list[tuple[int, list[int] | None]]) -> None:
    time = to_micros(datetime(2018, 4, 3, 12, tzinfo=UTC))
    columns = {"amount_cents": np.array([c for c, _ in rows]), "request_time_us": np.full(len(rows), time)}

    found = transaction_context({**columns, **stored([paid for _, paid in rows])})

    counts = [NAN if paid is None else len(paid) + 1.0 for _, paid in rows]
    means = [
        NAN if paid is None else float(Fraction(sum(paid) + cents, 100 * (len(paid) + 1))) for cents, paid in rows
    ]
    assert all(same(found[f"customer_nb_tx_{days}d"], counts) for days in WINDOWS)
    assert all(same(found[f"customer_avg_amount_{days}d"], means) for days in WINDOWS)
    assert found["tx_amount"].tolist() == [cents / 100 for cents, _ in rows]


def test_each_window_is_folded_into_its_own_features() -> None:
    columns = {
        "amount_cents": np.array([1_050]),
        "request_time_us": np.array([to_micros(datetime(2018, 4, 3, 12, tzinfo=UTC))]),
        **{f"nb_tx_{days}d": np.array([n]) for days, n in zip(WINDOWS, (0.0, 2.0, 6.0), strict=True)},
        **{f"amount_cents_{days}d": np.array([c]) for days, c in zip(WINDOWS, (0.0, 3_000.0, 10_000.0), strict=True)},
    }

    assert {name: values.tolist() for name, values in transaction_context(columns).items()} == {
        "tx_amount": [10.5],
        "tx_during_weekend": [0.0],
        "tx_during_night": [0.0],
        "customer_nb_tx_1d": [1.0],
        "customer_nb_tx_7d": [3.0],
        "customer_nb_tx_30d": [7.0],
        "customer_avg_amount_1d": [10.5],
        "customer_avg_amount_7d": [13.5],
        "customer_avg_amount_30d": [11_050 / 700],
    }


# --- the payment against those before it ---


def naive_ratio(cents: int, paid: Sequence[int] | None) -> float:
    return float(Fraction(cents * len(paid), sum(paid))) if paid and sum(paid) else NAN


def naive_zscore(cents: int, paid: Sequence[int] | None) -> float:
    deviation = statistics.pstdev(paid) if paid else 0.0
    return float(cents - statistics.mean([Fraction(c) for c in paid or [0]])) / deviation if deviation else NAN


@given(rows=st.lists(st.tuples(cents, histories), min_size=1, max_size=20))
def test_an_amount_is_held_against_mean_and_deviation_of_the_payments_before(
    rows: list[tuple[int, list[int] | None]],
) -> None:
    columns = {"amount_cents": np.array([c for c, _ in rows]), **stored([paid for _, paid in rows])}

    found = amount_deviation(columns)

    zscores = [naive_zscore(*row) for row in rows]
    for days in (7, 30):
        assert same(found[f"amount_to_avg_{days}d"], [naive_ratio(*row) for row in rows])
        assert found[f"amount_zscore_{days}d"].tolist() == pytest.approx(zscores, rel=1e-14, nan_ok=True)


@pytest.mark.parametrize(
    ("paid", "ratio", "zscore"),
    [
        (None, NAN, NAN),
        ([], NAN, NAN),
        ([500], 2.0, NAN),  # one payment has a mean and no deviation
        ([500, 500], 2.0, NAN),
        ([0, 0], NAN, NAN),  # free samples: nothing to divide by
        ([800, 1_200], 1.0, 0.0),
        ([300, 700], 2.0, 2.5),  # mean 5.00, population deviation 2.00
    ],
)
def test_a_payment_of_ten_against_few_payments_before(paid: list[int] | None, ratio: float, zscore: float) -> None:
    found = amount_deviation({"amount_cents": np.array([1_000]), **stored([paid])})

    assert (same(found["amount_to_avg_7d"], [ratio]), same(found["amount_zscore_30d"], [zscore])) == (True, True)


def test_each_window_is_held_against_its_own_features() -> None:
    week, month = stored([[300, 700]]), stored([[100, 100, 400]])
    columns = {name: (week if name.endswith("_7d") else month)[name] for name in week}

    found = amount_deviation({"amount_cents": np.array([1_000]), **columns})

    assert {name: values.tolist() for name, values in found.items()} == {
        "amount_to_avg_7d": [2.0],
        "amount_to_avg_30d": [5.0],
        "amount_zscore_7d": [2.5],
        "amount_zscore_30d": [2_400 / math.sqrt(180_000)],
    }


@given(
    cents=st.integers(0, 10**10),
    paid=st.integers(1, 10**10).flatmap(lambda c: st.lists(st.integers(c, c + 2), min_size=1, max_size=300)),
)
def test_sums_too_large_to_be_exact_give_no_impossible_value(cents: int, paid: list[int]) -> None:
    found = amount_deviation({"amount_cents": np.array([cents]), **stored([paid])})

    assert found["amount_to_avg_7d"][0] == pytest.approx(naive_ratio(cents, paid), rel=1e-14)
    zscore = float(found["amount_zscore_7d"][0])
    assert not math.isinf(zscore)
    assert math.isnan(zscore) or zscore == 0 or (zscore > 0) == (cents * len(paid) > sum(paid))


# --- the place of the payment ---

place = st.none() | st.floats(0, 100)


@given(rows=st.lists(st.tuples(place, place, place, place), min_size=1, max_size=20))
def test_the_distance_is_that_of_two_known_places(rows: list[tuple[float | None, ...]]) -> None:
    names = ("home_x", "home_y", "terminal_x", "terminal_y")
    columns = {
        name: np.array([NAN if row[i] is None else row[i] for row in rows], float) for i, name in enumerate(names)
    }

    found = terminal_distance(columns)

    expected = [NAN if None in row else math.dist(row[:2], row[2:]) for row in rows]
    # abs: the square of less than 1e-154 is no number any more.
    assert found["distance_to_terminal"].tolist() == pytest.approx(expected, rel=1e-14, abs=1e-150, nan_ok=True)


def test_three_across_and_four_along_are_five() -> None:
    columns = {"home_x": [10.0], "home_y": [20.0], "terminal_x": [13.0], "terminal_y": [16.0]}
    found = terminal_distance({name: np.array(values) for name, values in columns.items()})
    assert found["distance_to_terminal"].tolist() == [5.0]


# --- what is declared, and what is hashed ---


@pytest.mark.parametrize("view", use_case.on_demand, ids=lambda view: view.name)
def test_a_function_takes_what_is_declared_and_gives_what_is_declared(view: OnDemandView) -> None:
    taken = {name: np.array([1]) for name in view.inputs}
    taken |= {column: np.array([1.0]) for _, column in view.reads}

    found = view.function(taken)

    assert found.keys() == view.outputs.keys()
    assert {values.dtype for values in found.values()} == {np.dtype(np.float64)}
    assert {values.shape for values in found.values()} == {(1,)}


@pytest.mark.parametrize("view", use_case.on_demand, ids=lambda view: view.name)
def test_the_source_hash_is_that_of_the_functions_module_alone(view: OnDemandView) -> None:
    """A change of a view's declaration is in the view's own hash; it must not look like a change of the function."""
    assert view.source_hash == digest_of(view.function.__module__)


@pytest.mark.parametrize("view", use_case.on_demand, ids=lambda view: view.name)
def test_a_functions_module_imports_nothing_that_could_change_unhashed_but_numpy(view: OnDemandView) -> None:
    source = Path(inspect.getfile(view.function)).read_text()
    imported = {name for name, _ in re.findall(r"^ *(?:import|from) ((\w|\.)+)", source, flags=re.MULTILINE)}
    assert imported == {"collections.abc", "numpy", "numpy.typing"}


def test_the_source_hash_covers_what_the_functions_module_imports_inside_the_use_case_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {
        "other_case/__init__.py": "",
        "other_case/asked.py": "import numpy as np\nfrom other_case.rates import RATE\n",
        "other_case/rates.py": "RATE = 1\n",
        "other_case/views.py": "from other_case import asked\n",
    }
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    before = source_hash("other_case.asked")
    assert before == digest_of("other_case.asked", "other_case.rates")
    (tmp_path / "other_case" / "views.py").write_text("another = 1\n")
    assert source_hash("other_case.asked") == before
    (tmp_path / "other_case" / "rates.py").write_text("RATE = 2\n")
    assert source_hash("other_case.asked") != before


def digest_of(*modules: str) -> str:
    """The SHA-256 of these modules' names and the SHA-256 of their sources, as JSON sorted by name."""
    sources = {name: Path(importlib.util.find_spec(name).origin).read_bytes() for name in sorted(modules)}
    hashes = {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}
    return hashlib.sha256(json.dumps(hashes, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("transaction_context", "a46a20338f4f04a02ce4bdffe8477be1622124890560ca41e8e75af9e1988a4f"),
        ("amount_deviation", "7bfe60c030ca27ee5721184c3e5e1a6b59c3d0d439eba903a9484f951857e779"),
        ("payment", "fa356163aee945494315f2507689a5cd18be7dae443403da4d8fc5d3488659c7"),
    ],
)
def test_a_published_function_is_the_one_that_was_published(name: str, published: str) -> None:
    """Models in the registry name this hash, and refuse to be served with another: a new version is a new name."""
    assert use_case.on_demand_view(name).source_hash == published


def test_times_before_1970_have_a_weekday_and_an_hour_too() -> None:
    found = payment({"amount_cents": np.array([0]), "request_time_us": np.array([-1])})
    last = from_micros(-1)
    assert (last.strftime("%A %H:%M"), found["tx_during_weekend"].tolist()) == ("Wednesday 23:59", [0.0])
