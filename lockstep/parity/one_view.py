"""Hold one view against the lake and against training, whether or not a model reads it.

The view gets a service and a contract of its own, with all its features. Two things are compared to the last bit: rows that were
served by this contract, which is parity's own comparison, and history, which is held against the definition of a value.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from lockstep.contract import FeatureContract, TrainingCut
from lockstep.errors import BadInput, NotYetSupported, nearest
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote
from lockstep.materialize.ledger import Ledger
from lockstep.offline.history import training_features
from lockstep.offline.semantics import FeatureRow, as_known
from lockstep.parity.compare import Difference, is_mismatch
from lockstep.parity.expect import spine
from lockstep.parity.explain import explain
from lockstep.parity.facts import gather
from lockstep.parity.investigate import investigate
from lockstep.parity.sample import ServedRow, ServedView
from lockstep.serving.features import NUMERIC, build_vectors, complete_inputs, load_functions
from lockstep.serving.shadow import recent_events
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.views.declare import (
    ARROW_TYPES,
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    FeatureService,
    OnDemandView,
    StoredView,
)
from lockstep.views.use_case import UseCase

_TEXT = "string"
# Keys that no row has: what is served of them is what training says of them, nothing.
_NOBODY: Mapping[str, Any] = {"int32": -(2**31), "int64": -(2**31), "string": "no such key"}


@dataclass(frozen=True)
class Alone:
    """A view with a service of its own.

    Attributes:
        view: the view.
        use_case: the definitions, with that service.
        contract: of that service: its numbers are features, and its texts are read too.
        texts: the stored features that are text, which no vector holds.
        left_out: those of other types, and texts that are made on demand, which are logged nowhere: not compared.
    """

    view: StoredView | OnDemandView
    use_case: UseCase
    contract: FeatureContract
    texts: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def stored(self) -> tuple[StoredView, ...]:
        """The stored views that have to be computed for it: itself, or those that it reads."""
        return stored_behind(self.view)


@dataclass(frozen=True)
class Held:
    """What comparing gave.

    Attributes:
        rows: rows compared.
        values: values compared.
        excused: rows that differ for a reason that training expects.
        differing: per feature or view and cause, in how many rows it differs.
        examples: the first few differences, told.
        status: how many rows were read present, missing and stale, of all stored views.
        with_value: of each stored view, how many of the keys that were asked for were read present at some moment, and how many
            were asked for; of an on-demand view that reads none, how many rows got a number, of how many.
    """

    rows: int
    values: int
    differing: Mapping[str, int]
    excused: int = 0
    examples: tuple[str, ...] = ()
    status: Mapping[str, int] | None = None
    with_value: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


def find_view(use_case: UseCase, name: str) -> StoredView | OnDemandView:
    """Return the view of that name, stored or on demand.

    Raises:
        BadInput: there is none.
    """
    views: list[StoredView | OnDemandView] = [*use_case.views, *use_case.on_demand]
    found = next((view for view in views if view.name == name), None)
    if found is None:
        raise BadInput(f"there is no view {name!r}", hint=nearest(name, (view.name for view in views)))
    return found


def stored_behind(view: StoredView | OnDemandView) -> tuple[StoredView, ...]:
    """Return the stored views that a view is made of: itself, or those that it reads."""
    if isinstance(view, StoredView):
        return (view,)
    return tuple({source.name: source for source, _ in view.reads}.values())


def alone(use_case: UseCase, name: str, known_at: datetime) -> Alone:
    """Give a view a service of its own.

    Raises:
        BadInput: there is no such view.
        NotYetSupported: none of its features is a number.
        UseCaseError: it contradicts itself.
    """
    view = find_view(use_case, name)
    comparable = {*NUMERIC, _TEXT} if isinstance(view, StoredView) else NUMERIC
    kept = [feature for feature, dtype in view.features.items() if dtype in comparable]
    numbers = [feature for feature in kept if view.features[feature] in NUMERIC]
    if not numbers:
        raise NotYetSupported(
            f"view {name} has no feature that is a number", hint="models take numbers so far, and so does parity"
        )
    service = FeatureService(f"{name}_alone", tuple((view, feature) for feature in kept), view.owner)
    widened = replace(use_case, services=(*use_case.services, service))
    contract = compile_contract(widened, service.name, TrainingCut(tables=(), spine_hash="", known_at=known_at))
    contract = contract.model_copy(update={"features": tuple(f for f in contract.features if f.dtype in NUMERIC)})
    return Alone(
        view,
        widened,
        contract,
        tuple(feature for feature in kept if feature not in numbers),
        tuple(feature for feature in view.features if feature not in kept),
    )


def rows_to_ask(settings: Settings, lake: Lake, it: Alone, rows: int) -> list[dict[str, Any]]:
    """Return join keys and request inputs to ask for, and one row more, of keys that nobody has.

    Of a stored view they are keys of its source, in an order of chance that is always the same; of an on-demand view, the newest
    requests.

    Raises:
        BadInput: there are none.
        NotYetSupported: the model's requests do not have the inputs.
    """
    if isinstance(it.view, StoredView):
        found = _keys(settings, lake, it.view, rows)
    else:
        try:
            found = recent_events(settings, it.use_case, lake, it.contract, rows).to_pylist()
        except KeyError as missing:
            raise NotYetSupported(
                f"{it.view.name} is asked for what the model's requests do not have: {missing}",
                hint="let the recipe's `requests` select it",
            ) from missing
    if not found:
        raise BadInput(f"there is nothing to ask of {it.view.name}", hint="a larger world, or more days of it")
    nobody = {key.name: _NOBODY[key.dtype] for key in it.contract.join_keys}
    return [*found, {**found[0], **nobody}] if nobody else found


def _keys(settings: Settings, lake: Lake, view: StoredView, rows: int) -> list[dict[str, Any]]:
    key = view.entity.join_key
    with connect(settings) as connection:
        lake.register(connection, "raw", view.source.table, columns=[key])
        found: pa.Table = connection.sql(
            f"SELECT {quote(key)} FROM (SELECT DISTINCT {quote(key)} FROM raw WHERE {quote(key)} IS NOT NULL) "
            f"ORDER BY md5({quote(key)}::VARCHAR) LIMIT {rows}"
        ).to_arrow_table()
    return found.to_pylist()


def hold_served(settings: Settings, lake: Lake, ledger: Ledger, it: Alone, rows: Sequence[ServedRow]) -> Held:
    """Hold served rows against the lake and against training, by parity's own comparison, texts included."""
    facts = gather(settings, it.use_case, lake, ledger, it.contract, rows)
    found = explain(investigate(settings, facts))
    wrong = [difference for differences in found.values() for difference in differences]
    differing = Counter(name for of_row in found.values() for name in _told(of_row))
    examples = [f"{d.feature or d.view}: served {d.served}, {d.kind} says {d.expected}; {d.evidence}" for d in wrong]
    if it.texts and rows:
        service = it.contract.feature_service
        training = training_features(settings, it.use_case, service, spine(it.contract, rows)).rows
        for text in it.texts:
            for row, expected in zip(rows, training[text].to_pylist(), strict=True):
                served = _usable(row.views[it.view.name], text)
                if served != expected:
                    differing[f"{text} (training)"] += 1
                    examples.append(f"{text}: served {served}, training says {expected}")
    stored = sum(len(view.columns) for view in it.contract.views)
    return Held(
        rows=len(rows),
        values=len(rows) * (len(it.contract.features) + len(it.texts) + stored),
        differing=dict(differing),
        excused=sum(bool(differences) and not is_mismatch(differences) for differences in found.values()),
        examples=tuple(dict.fromkeys(examples))[:3],
        status=dict(Counter(read.status for row in rows for read in row.views.values())),
        with_value=_with_value(it, rows),
    )


def _told(differences: Sequence[Difference]) -> set[str]:
    """Return what differs in a row, each thing once: a value that is not the lake's is not training's either."""
    return {f"{d.feature or d.view} ({d.cause.value})" for d in differences if not d.excused}


def _with_value(it: Alone, rows: Sequence[ServedRow]) -> dict[str, tuple[int, int]]:
    if not it.contract.views:
        return {it.view.name: (sum(any(n is not None for n in row.vector) for row in rows), len(rows))}
    found: dict[str, tuple[int, int]] = {}
    for view in it.contract.views:
        read = [(tuple(row.keys[key.name] for key in view.join_keys), row.views[view.name].status) for row in rows]
        found[view.name] = len({key for key, status in read if status == "present"}), len({key for key, _ in read})
    return found


def _usable(read: ServedView, column: str) -> Any:
    return read.values[column] if read.status == "present" else None


def hold_history(settings: Settings, lake: Lake, it: Alone, asked: Sequence[tuple[Mapping[str, Any], int]]) -> Held:
    """Hold what training retrieves for rows of the past against the definition of a value, in plain Python.

    Args:
        settings: where everything is.
        lake: has the rows.
        it: the view.
        asked: join keys and request inputs, each with its time in microseconds.
    """
    contract, times = it.contract, [time for _, time in asked]
    inputs = complete_inputs(contract, [row for row, _ in asked], times)
    entity_rows: dict[str, pa.Array] = {
        key.name: pa.array([row[key.name] for row, _ in asked], ARROW_TYPES[key.dtype]) for key in contract.join_keys
    }
    entity_rows[EVENT_TIMESTAMP] = pa.array(times, pa.int64()).cast(ARROW_TYPES["timestamp"])
    entity_rows |= {c.name: pa.array(inputs[c.name], ARROW_TYPES[c.dtype]) for c in contract.request_inputs}
    training = training_features(settings, it.use_case, contract.feature_service, pa.table(entity_rows)).rows
    usable = _as_defined(settings, lake, it, asked)
    vectors = build_vectors(contract, load_functions(contract, settings.use_case), usable, inputs)
    differing: Counter[str] = Counter()
    examples: list[str] = []
    pairs: dict[str, tuple[list[Any], list[Any]]] = {
        feature.name: (vectors[:, n].tolist(), training[feature.name].cast(pa.float64()).to_pylist())
        for n, feature in enumerate(contract.features)
    }
    pairs |= {text: (list(usable[it.view.name, text]), training[text].to_pylist()) for text in it.texts}
    for name, (defined, retrieved) in pairs.items():
        for expected, found in zip(map(_null, defined), map(_null, retrieved), strict=True):
            if expected != found:
                differing[name] += 1
                examples.append(f"{name}: training has {found}, by definition it is {expected}")
    return Held(len(asked), len(asked) * len(pairs), dict(differing), examples=tuple(dict.fromkeys(examples))[:3])


def _null(value: Any) -> Any:
    return None if value != value else value  # noqa: PLR0124 - NaN is unequal to itself


def _as_defined(
    settings: Settings, lake: Lake, it: Alone, asked: Sequence[tuple[Mapping[str, Any], int]]
) -> dict[tuple[str, str], list[Any]]:
    """Return each stored value by the definition, `semantics.as_known`, over the rows of the lake."""
    usable: dict[tuple[str, str], list[Any]] = {}
    for view in it.contract.views:
        names = [key.name for key in view.join_keys]
        columns = [*names, *(c.name for c in view.columns), EVENT_TIMESTAMP, CREATED_TIMESTAMP]
        wanted = {
            key.name: pa.array([row[key.name] for row, _ in asked], ARROW_TYPES[key.dtype]) for key in view.join_keys
        }
        with connect(settings) as connection:
            lake.register(connection, "stored", view.table, columns=columns)
            connection.register("wanted", pa.table(wanted))
            found: pa.Table = connection.sql(
                f"SELECT * REPLACE (epoch_us({EVENT_TIMESTAMP}) AS {EVENT_TIMESTAMP}, "
                f"epoch_us({CREATED_TIMESTAMP}) AS {CREATED_TIMESTAMP}) FROM stored "
                f"SEMI JOIN wanted USING ({', '.join(map(quote, names))})"
            ).to_arrow_table()
        rows: defaultdict[tuple[Any, ...], list[FeatureRow]] = defaultdict(list)
        for row in found.to_pylist():
            key = tuple(row[name] for name in names)
            rows[key].append(FeatureRow(key, row[EVENT_TIMESTAMP], row[CREATED_TIMESTAMP], row))
        answers: list[FeatureRow | None] = []
        for row, time in asked:
            key = tuple(row[name] for name in names)
            answers.append(as_known(rows[key], key, time, time, view.ttl_us, view.visible_lag_us))
        for column in view.columns:
            usable[view.name, column.name] = [row.values[column.name] if row else None for row in answers]
    return usable
