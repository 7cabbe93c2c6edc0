"""Drive the second use case from raw events to a champion, by its rendered workflows; the last line printed is what came of it.

One process, so that Hera, Feast and MLflow are imported once. Where things are, and which use case it is, comes from
LOCKSTEP_* variables alone; only the plant's events are this use case's own.
"""

import json
import os
import sys
from datetime import timedelta

from pump_care.plant import START, deliver, make_plant

from lockstep.lake import Lake
from lockstep.local import LocalService
from lockstep.parity import kept
from lockstep.parity.signature import make_keys
from lockstep.settings import Settings
from lockstep.training.registry import CHALLENGER, CHAMPION, require_model
from lockstep.views import load_use_case
from pipelines._project import manifests_root
from pipelines.local import load_library, load_template, run_workflow

NOW = START + timedelta(days=60)
HISTORY = NOW - timedelta(days=36)  # a day before the first row to train on
TICK = NOW + timedelta(hours=2)
COMPUTE_LAG, BOTH_LAGS = timedelta(minutes=5), timedelta(minutes=10)
ROWS = "200"


def run(settings: Settings, workflow: str, **parameters: str) -> dict[str, str]:
    """Run a rendered workflow; return its outputs, or end with its log."""
    manifest = load_template(manifests_root(), workflow)
    library = load_library(manifests_root(), manifest)
    ended = run_workflow(manifest, parameters, logs_dir=settings.home / "runs" / workflow, library=library)
    if not ended.succeeded:
        sys.exit(f"{workflow}: {ended.failed}\n{ended.failed.log.read_text() if ended.failed else ''}")
    return ended.outputs


def main() -> None:
    """Live through one tick of the plant."""
    settings = Settings.load()
    use_case, clock = load_use_case(settings.use_case), settings.clock
    lake, plant = Lake.open(settings, use_case.project), make_plant()
    deliver(lake, plant, None, NOW)
    clock.advance_to(NOW)
    make_keys(settings)
    run(settings, "apply-definitions")
    run(settings, "backfill", start=HISTORY.isoformat(), end=NOW.isoformat())
    trained = run(settings, "train", known_at=NOW.isoformat())
    model = require_model(settings, use_case.model.name, CHALLENGER)
    with LocalService(settings, model.model_dir, use_case.model.name, shadow=True) as service:
        os.environ["LOCKSTEP_SHADOW_URL"] = service.predict_url
        clock.advance_to(NOW + BOTH_LAGS)
        run(settings, "shadow-replay", rows=ROWS, batch="100", model=CHALLENGER)
        clock.advance_to(TICK + COMPUTE_LAG)
        deliver(lake, plant, NOW, TICK + COMPUTE_LAG)
        run(settings, "compute-and-materialize", window_end=TICK.isoformat())
        clock.advance_to(TICK + BOTH_LAGS + timedelta(minutes=5))
        run(settings, "shadow-replay", rows=ROWS, batch="100", model=CHALLENGER)
    promoted = run(settings, "promote", since=NOW.isoformat(), until=clock.now().isoformat(), model=CHALLENGER)
    champion = require_model(settings, use_case.model.name, CHAMPION)
    report = kept.load(settings, lake, promoted["report"])
    place = [feature.name for feature in champion.contract.features].index("repairs")
    served = lake.table("served_log").scan().to_arrow()
    repairs: dict[str, set[float]] = {}
    for keys, vector in zip(served["entity_keys"].to_pylist(), served["vector"].to_pylist(), strict=True):
        repairs.setdefault(json.loads(keys)["pump_id"], set()).add(vector[place])
    told = {
        "trained": trained,
        "no_skill": model.metrics["no_skill"],
        "promoted": promoted,
        "champion": {"version": champion.version, "digest": champion.digest, "tags": dict(champion.tags)},
        "contract": champion.contract.model_dump(mode="json"),
        "parity": report.model_dump(mode="json"),
        "report": report.hash,
        "repairs": {pump: sorted(values) for pump, values in repairs.items()},
        "tables": lake.tables(),
        "imported": sorted({"feature_repo", "pump_care"} & sys.modules.keys()),
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
