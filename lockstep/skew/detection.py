"""Whether parity finds a fault in samples of the rows that were logged, and whether it names the right cause."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from scipy.stats import hypergeom

from lockstep.clock import MICROSECOND
from lockstep.parity.compare import Difference, What, is_mismatch
from lockstep.parity.explain import explain
from lockstep.parity.facts import Facts, gather
from lockstep.parity.investigate import Case, investigate
from lockstep.parity.sample import ServedRow, Window, read_served, stratified, uniform
from lockstep.parity.versions import scores_of_others, vectors_of_others
from lockstep.skew.fault import Fault
from lockstep.skew.replay import Service
from lockstep.skew.subject import Subject
from lockstep.skew.world import World
from lockstep.views.declare import DAY

SIZES = (50, 500)


@dataclass(frozen=True)
class AtSize:
    """How samples of one size did.

    Attributes:
        size: how many rows, drawn uniformly.
        seeds: how many samples.
        found: in how many of them something was a mismatch.
        with_strata: the same, with the stratified sample beside it, as parity always draws it.
        right: in how many of those the causes named are right ones, and nothing else; of a pair 0 unless, over all the
            samples of this size, each half was named.
    """

    size: int
    seeds: int
    found: int
    with_strata: int
    right: int

    @property
    def recall(self) -> float:
        """The share of samples that found it."""
        return self.found / self.seeds if self.seeds else 0.0


@dataclass(frozen=True)
class Detection:
    """What parity says of a fault.

    Attributes:
        pool: how many rows were logged, of which samples were drawn; 0: none was answered.
        of_fallback: whether these are the rows that the fallback model answered.
        mismatches: the share of the pool that is a mismatch.
        of_stratum: the greatest share of a stratum's rows that have another vector or score than without the fault, or are a
            mismatch.
        named: in how many samples a cause was named for a mismatch.
        sizes: how samples did.
    """

    pool: int
    of_fallback: bool
    mismatches: float
    named: Mapping[str, int]
    sizes: tuple[AtSize, ...]
    of_stratum: float = 0.0

    def theoretical(self, size: int) -> float:
        """Return in which share of samples there is to be a mismatch, drawn from the pool without replacement."""
        if not self.pool:
            return 0.0
        return float(hypergeom.sf(0, self.pool, round(self.mismatches * self.pool), min(size, self.pool)))


@dataclass
class Detector:
    """Draws samples of what was logged, and has parity explain them.

    Args:
        subject: the model.
        world: where it was served.
        services: what it was served by; the first one without a fault.
    """

    subject: Subject
    world: World
    services: Sequence[Service]
    _pools: Mapping[tuple[str, bool], Sequence[ServedRow]] = field(init=False)

    def __post_init__(self) -> None:
        """Read the served log."""
        pools: defaultdict[tuple[str, bool], list[ServedRow]] = defaultdict(list)
        main, model = self.subject.contract, self.subject.model.digest
        since, until = self.subject.start - DAY, self.subject.end + DAY  # a clock may be hours off
        for contract in main.with_fallback:
            window = Window(model, contract, shadow=False, since=since, until=until)
            for row in read_served(self.world.settings, self.world.lake, window):
                pools[row.process, contract is not main].append(row)
        self._pools = pools

    def detect(self, service: Service, seeds: int) -> Detection:
        """Judge one service by so many samples of each size."""
        fault = service.fault
        of_fallback = (service.process, False) not in self._pools
        pool = self._pools.get((service.process, of_fallback), ())
        if not pool:
            return Detection(0, of_fallback=False, mismatches=0.0, named={}, sizes=())
        case = self._case(fault, pool, of_fallback)
        wrong = {name for name, differences in explain(case).items() if is_mismatch(differences)}
        samples = _explained(without_strangers(case), pool, seeds)
        named = Counter(cause for of_size in samples.values() for sample in of_size for cause in sample.causes)
        sizes = tuple(at_size(fault, size, of_size) for size, of_size in samples.items())
        touched = wrong | self._others(fault, pool)
        share = max(_shares(pool, touched).values(), default=0.0)
        return Detection(len(pool), of_fallback, len(wrong) / len(pool), dict(named.most_common()), sizes, share)

    def _others(self, fault: Fault, pool: Sequence[ServedRow]) -> set[str]:
        """Return the rows with another vector or score than the clean service's of the same request."""
        clean, ahead = self._served_clean, fault.clock // MICROSECOND
        return {
            row.name
            for row in pool
            if (row.vector, row.score) != clean.get((row.request_us - ahead, *sorted(row.keys.items())))
        }

    @cached_property
    def _served_clean(self) -> Mapping[tuple[object, ...], tuple[object, object]]:
        rows = self._pools.get((self.services[0].process, False), ())
        return {(row.request_us, *sorted(row.keys.items())): (row.vector, row.score) for row in rows}

    @cached_property
    def _shared(self) -> Mapping[bool, Facts]:
        """What is known of all rows that one lake, ledger and definitions tell of, whether the fallback answered or not.

        They are looked up together: to load the model takes as long as to ask it for a hundred thousand scores.
        """
        rows: defaultdict[bool, list[ServedRow]] = defaultdict(list)
        for service in self.services:
            for of_fallback in (False, True):
                if not service.fault.apart:
                    rows[of_fallback] += self._pools.get((service.process, of_fallback), ())
        clean = self.services[0].fault
        return {of_fallback: self._facts(clean, of, of_fallback) for of_fallback, of in rows.items() if of}

    def _case(self, fault: Fault, pool: Sequence[ServedRow], of_fallback: bool) -> Case:
        facts = self._facts(fault, pool, of_fallback) if fault.apart else part_of(self._shared[of_fallback], pool)
        return investigate(self.world.settings, facts)

    def _facts(self, fault: Fault, pool: Sequence[ServedRow], of_fallback: bool) -> Facts:
        main = self.subject.contract
        contract = (main.fallback or main) if of_fallback else main
        use_case = fault.definitions(self.world.use_case)
        settings, lake = self.world.settings, self.world.lake
        if fault.of_lake:
            settings, lake = self.world.lake_of(fault.name)
            since, until = (time.timestamp() for time in (self.subject.start, self.subject.end))
            fault.afterwards(lake, main, int(since) * 1_000_000, int(until) * 1_000_000)
        ledger = self.world.ledger_of(fault.name, fault.lags if fault.honest else {})
        # Other versions of the model are known where it was found.
        settings = settings.model_copy(update={"tracking_url": self.subject.settings.tracking_url})
        return gather(settings, use_case, lake, ledger, contract, pool, model=self.subject.model)


def part_of(facts: Facts, rows: Sequence[ServedRow]) -> Facts:
    """Return what is known of some of the rows."""
    numbers = [facts.positions[row.name] for row in rows]
    looked = {view: replace(of, rows=[of.rows[number] for number in numbers]) for view, of in facts.looked.items()}
    remade, trained, rescored = facts.remade, facts.trained, facts.rescored
    return replace(
        facts,
        rows=rows,
        looked=looked,
        remade=remade and replace(remade, vectors=remade.vectors[numbers], rejected=remade.rejected[numbers]),
        trained=trained and replace(trained, vectors=trained.vectors[numbers], rejected=trained.rejected[numbers]),
        rescored=None if rescored is None else rescored[numbers],
    )


def without_strangers(case: Case) -> Case:
    """Return the case without the other versions that none of its rows is of: no sample's row is, and to load one takes long."""
    facts, seen = case.facts, {What.SCORE: list[int](), What.VECTOR: list[int]()}
    for n, divergences in case.divergences.items():
        for what in seen.keys() & {divergence.what for divergence in divergences}:
            seen[what].append(n)
    known = {
        *scores_of_others(facts, seen[What.SCORE]).values(),
        *vectors_of_others(facts, seen[What.VECTOR]).values(),
    }
    others = [other for other in facts.others() if other.called in known] if known else []
    return replace(case, facts=replace(facts, others=lambda: others))


@dataclass(frozen=True)
class Sample:
    """What was said of one sample: whether a row drawn uniformly is a mismatch, and all causes of mismatches."""

    found: bool
    causes: frozenset[str]


def _explained(case: Case, pool: Sequence[ServedRow], seeds: int) -> Mapping[int, Sequence[Sample]]:
    """Return what is said of so many samples of each size, each with the stratified one beside it.

    A sample in which no row differs needs no explanation.
    """
    nothing, differs = Sample(found=False, causes=frozenset()), {case.facts.rows[n].name for n in case.divergences}
    found = {size: [nothing] * seeds for size in SIZES}
    for seed in range(seeds) if differs else ():
        drawn = uniform(pool, max(SIZES), seed)
        strata = dict.fromkeys(row.name for rows in stratified(pool, seed).values() for row in rows)
        for size in SIZES:
            chosen = [row.name for row in drawn[:size]]
            sampled = dict.fromkeys(chosen) | strata
            if not differs.isdisjoint(sampled):
                explained = explain(case, list(sampled))
                found[size][seed] = Sample(any(is_mismatch(explained[name]) for name in chosen), _causes(explained))
    return found


def at_size(fault: Fault, size: int, samples: Sequence[Sample]) -> AtSize:
    """Count what was said of samples of one size."""
    named = frozenset[str]().union(*(sample.causes for sample in samples))
    whole = all(half.causes & named for half in fault.halves if half.causes)
    return AtSize(
        size,
        seeds=len(samples),
        found=sum(sample.found for sample in samples),
        with_strata=sum(bool(sample.causes) for sample in samples),
        right=sum(_right(fault, sample.causes) for sample in samples) if whole else 0,
    )


def _right(fault: Fault, causes: frozenset[str]) -> bool:
    return bool(causes & fault.causes) and causes <= fault.causes | fault.also


def _causes(found: Mapping[str, Sequence[Difference]]) -> frozenset[str]:
    return frozenset(d.cause.value for of in found.values() for d in of if not d.excused)


def _shares(pool: Sequence[ServedRow], touched: Collection[str]) -> Mapping[str, float]:
    """Return the share of each stratum's rows that are touched."""
    rows = Counter(name for row in pool for name in row.strata)
    of = Counter(name for row in pool if row.name in touched for name in row.strata)
    return {name: of[name] / count for name, count in rows.items()}
