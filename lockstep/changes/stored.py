"""What a change of a stored view takes: what `compute`, `correct` and parity do with a table that was made under another one."""

from collections.abc import Iterable, Iterator, Mapping

from lockstep.changes import words
from lockstep.changes.describe import StoredFacts
from lockstep.changes.difference import Change, Consequence
from lockstep.contract import FeatureContract
from lockstep.views.windowed import WindowedView

Models = Mapping[str, FeatureContract]

_UNTIL = "live ticks are refused until the computed ones are corrected under this definition"
_NAMED = "its contract names the old definition: parity refuses to compare what it is served until it is trained anew"
_REGISTERED = "Feast's registry holds it too: trainings are refused until it is applied"


def new_view(view: StoredFacts) -> Change:
    """Return what a view takes that was not there before."""
    told = f"{view.kind} view of {view.entity}, {len(view.features)} features, every {words.duration(view.every_us)}"
    return Change("view", "", told, Consequence.BACKFILL, "its table is empty: it has no history and nothing online")


def gone_view(view: StoredFacts, models: Models) -> Change:
    """Return what a view takes that is no longer declared."""
    told = f"{view.kind} view of {view.entity}, {len(view.features)} features"
    if models:
        return Change(
            "view",
            told,
            "",
            Consequence.BREAKS,
            f"{words.listed(models)} reads it, and nobody would compute it any more",
        )
    return Change("view", told, "", Consequence.SWEEP, f"no model in use reads it; the table {view.table} stays")


def stored_changes(old: StoredFacts, new: StoredFacts, models: Models) -> Iterator[Change]:
    """Yield how a view differs and what that takes.

    Args:
        old: the view as it was.
        new: as it is.
        models: the contracts of the models in use that list it.
    """
    yield from _definition(old, new, models)
    yield from _served(old, new, models)
    yield from metadata(old, new)


def metadata(old: object, new: object) -> Iterator[Change]:
    """Yield how what only describes a thing differs: its owner, description and tags."""
    for what in ("owner", "description", "tags"):
        before, after = getattr(old, what, None), getattr(new, what, None)
        if before != after:
            yield Change(what, _plain(before), _plain(after), Consequence.REGISTER, _REGISTERED)


def _plain(value: object) -> str:
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _definition(old: StoredFacts, new: StoredFacts, models: Models) -> Iterator[Change]:
    """Yield what is in the definition hash."""
    if old.definition_hash == new.definition_hash:
        return
    barred = dict(_barred(old, new))
    of_its_own = {"join key", "source", "every"}
    for what, before, after in _differing(old, new):
        reason = barred.get(what) or ("" if what in of_its_own else barred.get("columns", ""))
        consequence = Consequence.VERSION if reason else Consequence.BACKFILL
        yield Change(what, before, after, consequence, reason or ("" if barred else _UNTIL))
    if not barred:
        for name, contract in models.items():
            if contract.view(old.name).definition_hash != new.definition_hash:
                yield Change(f"model {name}", "", "", Consequence.RETRAIN, _NAMED)


def _differing(old: StoredFacts, new: StoredFacts) -> Iterator[tuple[str, str, str]]:
    """Yield which parts of the definition differ, as they were and as they are."""
    parts = {
        "kind": (old.kind, new.kind),
        "join key": (words.columns([old.join_key]), words.columns([new.join_key])),
        "source": (old.source, new.source),
        "event time": (old.event_time, new.event_time),
        "known at": (old.known_at, new.known_at),
        "every": (words.duration(old.every_us), words.duration(new.every_us)),
    }
    rules = dict.fromkeys(name for name in (*old.rules, *new.rules) if name != "kind")
    parts |= {name: _rule(name, old.rules.get(name), new.rules.get(name)) for name in rules}
    for what, (before, after) in parts.items():
        if before != after:
            yield what, before, after


def _rule(name: str, before: object, after: object) -> tuple[str, str]:
    if before == after:
        return "", ""
    if isinstance(before, list) and isinstance(after, list) and name != "windows":
        return words.only([words.rule(name, [p]) for p in before], [words.rule(name, [p]) for p in after])
    return words.rule(name, before) if before is not None else "", words.rule(name, after) if after is not None else ""


def _barred(old: StoredFacts, new: StoredFacts) -> Iterator[tuple[str, str]]:
    """Yield what cannot be corrected in the table that is there, and why."""
    if old.join_key != new.join_key:
        yield "join key", f"the rows of table {old.table} and of the online store are kept by {old.join_key.name}"
    if old.source != new.source:
        yield "source", f"computed ticks are only ever computed again from what they were computed from, {old.source}"
    if old.every_us % new.every_us:
        yield "every", f"table {old.table} has rows between ticks of {words.duration(new.every_us)}"
    before, after = ({c.name: c.dtype for c in view.features} for view in (old, new))
    parts = [f"+{name}" for name in after if name not in before]
    parts += [f"-{name}" for name in before if name not in after]
    parts += [
        f"{name} {before[name]} → {after[name]}" for name in after if before.get(name, after[name]) != after[name]
    ]
    if parts:
        yield (
            "columns",
            f"table {old.table} has other columns ({words.listed(parts)}), and a table gains, loses and retypes none",
        )


def _served(old: StoredFacts, new: StoredFacts, models: Models) -> Iterator[Change]:
    """Yield what is not in the definition hash and decides when a row answers, or how it is judged."""
    if old.entity != new.entity:
        yield Change("entity", old.entity, new.entity, Consequence.REGISTER, _REGISTERED)
    if old.ttl_us != new.ttl_us:
        yield _ttl(old, new)
        pinned = [name for name, contract in models.items() if contract.view(old.name).ttl_us != new.ttl_us]
        yield from _pinned("ttl", pinned, "serving goes by the one in its contract and training by this one")
    if old.compute_lag_us != new.compute_lag_us:
        yield Change(
            "compute lag",
            words.duration(old.compute_lag_us),
            words.duration(new.compute_lag_us),
            Consequence.REGISTER,
            "bootstrapped ticks keep the created times of the old one",
        )
    if old.visible_lag_us != new.visible_lag_us:
        before, after = words.duration(old.visible_lag_us), words.duration(new.visible_lag_us)
        yield Change("visible lag", before, after, Consequence.REGISTER, _REGISTERED)
        pinned = [n for n, contract in models.items() if contract.view(old.name).visible_lag_us != new.visible_lag_us]
        yield from _pinned("visible lag", pinned, "parity goes by the one in its contract and training by this one")
    before, after = (words.freshness(view.freshness_us, hard=view.freshness_hard) for view in (old, new))
    if before != after:
        kept = f"the parity of {words.listed(models)} goes by {before} until it is trained anew" if models else ""
        yield Change("freshness", before, after, Consequence.REGISTER, kept or _REGISTERED)


def _ttl(old: StoredFacts, new: StoredFacts) -> Change:
    before, after = words.ttl(old.ttl_us), words.ttl(new.ttl_us)
    # From a row to the one that repeats it, when that can be read.
    between = new.every_us + new.compute_lag_us + new.visible_lag_us
    repeated = None if old.repeats_us is None else old.repeats_us + between
    if new.ttl_us and (repeated is None or repeated > new.ttl_us):
        seldom = "never" if old.repeats_us is None else f"every {words.duration(old.repeats_us)}"
        return Change(
            "ttl",
            before,
            after,
            Consequence.BACKFILL,
            f"rows that do not change were repeated {seldom}: quiet keys would answer with nothing",
        )
    if new.kind == WindowedView.kind and _after_windows(new) > _after_windows(old):
        return Change(
            "ttl",
            before,
            after,
            Consequence.BACKFILL,
            "keys live that much longer, and those that were quiet have no rows there: they would answer with nothing too soon",
        )
    return Change("ttl", before, after, Consequence.REGISTER, _REGISTERED)


def _after_windows(view: StoredFacts) -> int:
    """Return how long a key has rows after its last event left the longest window."""
    return view.ttl_us or view.every_us


def _pinned(what: str, models: Iterable[str], how: str) -> Iterator[Change]:
    for name in models:
        yield Change(
            f"model {name}", "", "", Consequence.RETRAIN, f"two kinds of {what} until it is trained anew: {how}"
        )
