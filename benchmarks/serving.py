"""Serving a score over HTTP: our service against Feast in a KServe transformer, each in processes of its own.

A request has one row; its vector is the 25 numbers of five views of one entity, scored by gradient boosting of the size of
`feature_repo`'s. *Ours* is a transformer and a predictor, as served. The *SDK peer* is what is written without us: a KServe
transformer that awaits Feast's `get_online_features_async`, KServe's own call of the predictor, and a KServe predictor of the
same estimator; *KServe echo* answers a constant: the floor of one hop. Peers run as they ship (one worker, their lines for each
request), all with one thread for arithmetic. The *feature server* is Feast's: the features alone, no model.

Another process sends the requests, one machine and one Redis serve all. Closed loop: each connection sends its next request once
answered. Open loop: so many a second at even intervals, each counted from when it was due, so that a server that stalls is
charged for all who wait. CPU is that of the serving processes together; that of Redis is beside it. Scores of ours and of the
peer, and of the features of Feast's server, are compared to the last bit before anything is measured.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks._online import HOUR_US, KEY, VALUES, OurReader, draw, fill
from benchmarks._serving.load import Load, Taken
from benchmarks._serving.processes import cpu_seconds_of
from benchmarks._serving.targets import CONTRACT, FEATURES, OURS, SDK, Pace, Target, targets, vector_of
from benchmarks._table import cpu_seconds, show
from feature_repo.model import make_estimator
from lockstep.local.redis import LocalRedis
from lockstep.online.store import connect
from lockstep.settings import Settings

READ = "our read alone"
STORED = 5_000
TRAINED = 10_000  # rows: each tree then has all the leaves it may have
COMPARED = 20


@dataclass(frozen=True)
class Plan:
    """What a run measures, and for how many seconds each."""

    paces: tuple[Pace, ...]
    open_paces: tuple[Pace, ...]
    others: bool
    seconds: float
    warm_up_seconds: float
    reads: int


PATIENCE = timedelta(seconds=20)  # how long answers take is measured, not whether they come in time
ONE = Pace(1)
FULL = Plan(
    (ONE, Pace(8), Pace(32)), (Pace(64, 25), Pace(64, 75)), others=True, seconds=1.5, warm_up_seconds=2.0, reads=2_000
)
QUICK = Plan((ONE, Pace(8)), (Pace(64, 25),), others=False, seconds=1.5, warm_up_seconds=0.5, reads=300)


def make_rows(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vectors as they are served, and labels that depend on some of their values."""
    random = np.random.default_rng(0)
    vectors = np.column_stack([VALUES[feature.dtype](random, count) for feature in CONTRACT.features]).astype(float)
    signal = (vectors[:, 0] * vectors[:, 3] + 40 * vectors[:, 5] + 40 * vectors[:, 14]) / 8_000
    return vectors, (signal + random.normal(size=count) > 3).astype(np.int64)


def require_equal(served: Sequence[Target], estimator: Any) -> None:
    """Compare the scores of some entities: ours, the peer's, and those of the features that Feast's server gives.

    Raises:
        ClickException: they are not the same bits, or ours were made of missing or stale features.
    """
    at = {target.case: target for target in served}
    with httpx.Client(timeout=60) as client:

        def ask(case: str, entity: int) -> dict[str, Any]:
            target = at[case]
            answer = client.post(f"http://127.0.0.1:{target.port}{target.path}", json=target.body(entity))
            if answer.status_code != 200:
                raise click.ClickException(f"{case} answered {answer.status_code}: {answer.text[:500]}")
            return answer.json()

        for entity in range(COMPARED):
            ours, theirs = ask(OURS, entity), ask(SDK, entity)
            of_features = estimator.predict_proba(vector_of(ask(FEATURES, entity)))[:, 1].tolist()
            if not ours["predictions"] == theirs["predictions"] == of_features or ours["flags"] != [[]]:
                raise click.ClickException(f"scores differ for {entity}: {ours}, {theirs}, {of_features}")


def send(target: Target, pace: Pace, seconds: float) -> Taken:
    """Send requests for the same entities whatever the target, from a process of its own."""
    entities = [request[KEY.name][0] for request in draw(500, 1, STORED)]
    bodies = [json.dumps(target.body(entity)) for entity in entities]
    load = Load(
        port=target.port,
        path=target.path,
        bodies=bodies,
        connections=pace.connections,
        seconds=seconds,
        rate=pace.rate,
    )
    command = [sys.executable, "-m", "benchmarks._serving.load"]
    done = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{target.case}, {pace}: {done.stderr[-2000:]}")
    return Taken(**json.loads(done.stdout))


def measure_target(target: Target, pace: Pace, seconds: float, redis_pid: int) -> dict[str, float]:
    """Return the figures of one round."""
    pids = {**target.pids, "redis": redis_pid}
    before = {role: cpu_seconds_of(pid) for role, pid in pids.items()}
    taken = send(target, pace, seconds)
    requests = len(taken.milliseconds)
    spent = {role: 1_000 * (cpu_seconds_of(pid) - before[role]) / requests for role, pid in pids.items()}
    return {
        "p50_ms": float(np.percentile(taken.milliseconds, 50)),
        "p99_ms": float(np.percentile(taken.milliseconds, 99)),
        "requests_per_s": round(requests / taken.seconds),
        "cpu_ms": sum(spent[role] for role in target.pids),
        **{f"{role}_cpu_ms": milliseconds for role, milliseconds in spent.items()},
    }


def measure_read(reader: OurReader, count: int, redis_pid: int) -> dict[str, float]:
    """Return the figures of one round of reading in this process, without HTTP."""
    taken: list[int] = []
    requests = draw(count, 1, STORED)
    before = cpu_seconds_of(redis_pid)
    spent = cpu_seconds(lambda: taken.extend(reader.send(requests)))
    return {
        "p50_ms": float(np.percentile(taken, 50)) / 1_000_000,
        "p99_ms": float(np.percentile(taken, 99)) / 1_000_000,
        "requests_per_s": round(count / (sum(taken) / 1_000_000_000)),
        "cpu_ms": 1_000 * spent / count,
        "redis_cpu_ms": 1_000 * (cpu_seconds_of(redis_pid) - before) / count,
    }


def measure(plan: Plan, repeats: int, home: Path) -> list[dict[str, Any]]:
    """Serve, compare, warm up and measure."""
    watermark_us = time.time_ns() // 1_000 // HOUR_US * HOUR_US
    vectors, labels = make_rows(TRAINED)
    models: dict[str, Any] = {OURS: make_estimator()}
    if plan.others:
        models["ours, logistic regression"] = LogisticRegression(max_iter=2_000)
        models["ours, random forest"] = RandomForestClassifier(min_samples_leaf=20, random_state=0)
    estimators = {case: model.fit(vectors, labels) for case, model in models.items()}
    with LocalRedis(home) as local:
        settings = local.settings(Settings(home=home, request_budget=PATIENCE)).resolved()
        with connect(settings) as client:
            fill(client, CONTRACT.views, STORED, watermark_us)
        with (
            closing(OurReader(settings, CONTRACT, watermark_us)) as reader,
            targets(home, settings, estimators, plan.paces, plan.open_paces) as served,
        ):
            require_equal(served, estimators[OURS])
            for target in served:
                send(target, Pace(8), plan.warm_up_seconds)
            figures: dict[tuple[Pace, str], list[dict[str, float]]] = defaultdict(list)
            for _ in range(repeats):
                figures[ONE, READ].append(measure_read(reader, plan.reads, local.pid or 0))
                for pace in (*plan.paces, *plan.open_paces):
                    for target in served:
                        if pace in target.paces:
                            measured = measure_target(target, pace, plan.seconds, local.pid or 0)
                            figures[pace, target.case].append(measured)
    return rows(figures, repeats)


def rows(figures: Mapping[tuple[Pace, str], Sequence[Mapping[str, float]]], repeats: int) -> list[dict[str, Any]]:
    """Return a row for each case and pace, with the medians of its rounds; also its CPU over that of ours in the same round."""
    return [
        {
            "case": case,
            "pace": str(pace),
            "connections": pace.connections,
            "rate": pace.rate,
            "repeats": repeats,
            **{name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]},
            "ratio": round(statistics.median(_ratios(rounds, figures[pace, OURS])), 2),
        }
        for (pace, case), rounds in figures.items()
    ]


def _ratios(rounds: Sequence[Mapping[str, float]], ours: Sequence[Mapping[str, float]]) -> list[float]:
    return [each["cpu_ms"] / our["cpu_ms"] for each, our in zip(rounds, ours, strict=True)]


HEADINGS = {
    "case": "1 row x 25 features",
    "pace": "load",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "requests_per_s": "requests/s",
    "cpu_ms": "CPU ms a request",
    "ratio": "CPU over ours",
    "redis_cpu_ms": "Redis CPU ms",
}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer loads for a shorter time, and no other models.")
@click.option("--repeats", type=click.IntRange(1), help="Each figure is their median; 5, or 1 with --quick.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows here as well.")
def main(*, quick: bool, repeats: int | None, json_file: Path | None) -> None:
    """Print latencies, rates and CPU milliseconds a request, a row a case and load."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as home:
        measured = measure(QUICK if quick else FULL, repeats or (1 if quick else 5), Path(home))
    show(measured, HEADINGS, json_file)


if __name__ == "__main__":
    main()
