"""A home with a world of cards in it, all views computed: what the benchmarks of training begin with."""

from datetime import datetime, timedelta
from pathlib import Path

from feature_repo.definitions import use_case
from feature_repo.world import append_slice, make_world
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.offline.registry import apply_definitions
from lockstep.settings import Settings
from lockstep.views.compute import bootstrap


def lived_in(home: Path, cards: int, days: int) -> tuple[Settings, Lake, datetime]:
    """Make the world and compute its views; return its settings, its lake, and when it ends."""
    settings = Settings(home=home, clock_file=home / "clock").resolved()
    lake, ledger = Lake.open(settings, use_case.project), Ledger.open(settings, use_case.project)
    world = make_world(cards, days)
    start, end = world.parameters.start, world.parameters.start + timedelta(days=days)
    settings.clock.advance_to(end + timedelta(hours=1))
    append_slice(lake, world, None, end)
    apply_definitions(settings, use_case)
    for view in use_case.views:
        bootstrap(settings, lake, ledger, view, start, end)
    return settings, lake, end
