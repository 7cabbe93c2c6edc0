"""Sweep what deleted views left in the online store, slowly, beside whoever reads and writes it.

A hash holds the fields of all views of its entity, and of a feature's field only a hash of its name is known. So it is a deleted
view's if it is none of a declared view, and either one of the features that the deleted view is known to have had, or no other
view is there that this project does not declare. Such a view may be a stock Feast one: it is never removed, unless it is named.

Each hash is looked at and changed in one atomic step, and nothing of a declared view is touched: a writer loses nothing. A sweep
that ended on the way is simply run again.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from redis.cluster import RedisCluster

from lockstep.contract import View
from lockstep.errors import BadInput
from lockstep.online.cluster import SCAN_KEYS, ask_each, scan
from lockstep.online.epoch import EpochStore
from lockstep.online.layout import field_of, fields_of, project_of_key
from lockstep.online.store import Store

PER_SECOND = 20_000
_SCRIPT_KEYS = 64

# ARGV: whether to remove; how many views go, and their names; how many fields are declared, and they; then the features' fields
# that are known to go. Answers how many hashes held such a view, how many fields went, and how many features are nobody's known.
_SWEEP = """
local at = 2
local function take()
  local found, last = {}, at + tonumber(ARGV[at])
  for n = at + 1, last do found[ARGV[n]] = true end
  at = last + 1
  return found
end
local going, declared, known = take(), take(), take()
local hashes, removed, left = 0, 0, 0
for _, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok == 'hash' then
    local names = redis.call('HKEYS', key)
    local own, features, is_there, is_shared = {}, {}, false, false
    for _, name in ipairs(names) do
      local view = string.match(name, '^_ts:(.*)$') or string.match(name, '^_lockstep:(.*)$')
      if view and going[view] then
        is_there = true
        own[#own + 1] = name
      elseif view and not declared[name] then is_shared = true
      elseif #name == 4 and not declared[name] then features[#features + 1] = name end
    end
    if is_there then
      hashes = hashes + 1
      for _, name in ipairs(features) do
        if known[name] or not is_shared then own[#own + 1] = name else left = left + 1 end
      end
      removed = removed + #own
      if ARGV[1] == '1' then redis.call('HDEL', key, unpack(own)) end
    end
  end
end
return {hashes, removed, left}
"""


@dataclass(frozen=True)
class Swept:
    """What a sweep did so far.

    Attributes:
        keys: how many of the store's keys it has seen.
        hashes: how many of them held a row of a view that goes.
        fields: how many fields went.
        left: how many features' fields stay, because they may be another undeclared view's.
    """

    keys: int = 0
    hashes: int = 0
    fields: int = 0
    left: int = 0


def sweep(
    store: Store,
    project: str,
    declared: Collection[View],
    going: Sequence[tuple[str, Collection[str]]],
    *,
    dry_run: bool = False,
    per_second: int = PER_SECOND,
    progress: Callable[[Swept], None] = lambda _: None,
) -> Swept:
    """Remove the rows of views that a project does not declare any more, and in the end what the epoch hash says of them.

    Args:
        store: the online store; the primaries of a cluster one after the other.
        project: whose keys.
        declared: the views that stay, as they are declared and as models in use read them.
        going: the views that go, each with the features that it is known to have had, if any.
        dry_run: only count.
        per_second: how many keys may be looked at a second.
        progress: told after each thousand keys or so.

    Raises:
        BadInput: a view that is to go is one that stays.
        Transient: the store does not answer, or slots were moved meanwhile; what went is gone, and running it again goes on.
        Terminal: it refuses.
    """
    if per_second < 1:
        raise BadInput(f"a sweep looks at one key a second at least, not {per_second}")
    if kept := sorted({name for name, _ in going} & {view.name for view in declared}):
        raise BadInput(
            f"{', '.join(kept)} is declared, or a model in use reads it: it stays online",
            hint="delete its declaration first, and promote a model that does not read it",
        )
    arguments = _arguments(declared, going, dry_run=dry_run)
    done, began = Swept(), time.monotonic()
    for keys in scan(store, min(SCAN_KEYS, per_second)):
        time.sleep(max(0.0, done.keys / per_second - (time.monotonic() - began)))
        mine = [key for key in keys if project_of_key(key) == project]
        hashes, fields, left = _swept(store, mine, arguments)
        done = Swept(done.keys + len(keys), done.hashes + hashes, done.fields + fields, done.left + left)
        progress(done)
    if not dry_run:
        for name, _ in going:
            EpochStore(store, project).forget(name)
    return done


def _arguments(
    declared: Collection[View], going: Sequence[tuple[str, Collection[str]]], *, dry_run: bool
) -> list[bytes | str | int]:
    names = [name for name, _ in going]
    stay = [field for view in declared for field in fields_of(view)]
    known = [field_of(name, feature) for name, features in going for feature in features]
    return ["0" if dry_run else "1", len(names), *names, len(stay), *stay, len(known), *known]


def _swept(store: Store, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]) -> tuple[int, int, int]:
    # A call's keys have to be in one slot of a cluster: of a thousand keys hardly two are.
    at_once = 1 if isinstance(store, RedisCluster) else _SCRIPT_KEYS
    parts = [keys[at : at + at_once] for at in range(0, len(keys), at_once)]
    answers = ask_each(store, [("EVAL", _SWEEP, len(part), *part, *arguments) for part in parts])
    hashes, fields, left = (sum(part) for part in zip((0, 0, 0), *answers, strict=True))
    return hashes, fields, left
