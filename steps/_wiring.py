"""What every step is handed: settings, the use case, and the open stores of its project.

What opens them is imported when it is asked for: `lockstep render` imports every step and opens nothing.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from lockstep.settings import Settings
from lockstep.views import UseCase, load_use_case

if TYPE_CHECKING:
    from lockstep.lake import Lake
    from lockstep.materialize.interval import Materializer
    from lockstep.materialize.ledger import Ledger
    from lockstep.online.store import Store


class Wiring:
    """Opens what a step asks for, once."""

    def __init__(self) -> None:
        self.settings = Settings.load()

    @cached_property
    def use_case(self) -> UseCase:
        """What the project declares."""
        return load_use_case(self.settings.use_case)

    @cached_property
    def lake(self) -> "Lake":
        """The project's tables."""
        from lockstep.lake import Lake  # noqa: PLC0415 - PyIceberg

        return Lake.open(self.settings, self.use_case.project)

    @cached_property
    def ledger(self) -> "Ledger":
        """The project's ledger."""
        from lockstep.materialize.ledger import Ledger  # noqa: PLC0415 - SQLAlchemy

        return Ledger.open(self.settings, self.use_case.project)

    @cached_property
    def store(self) -> "Store":
        """The online store."""
        from lockstep.online.store import connect  # noqa: PLC0415 - redis-py

        return connect(self.settings)

    @cached_property
    def log_store(self) -> "Store":
        """Where the served log's stream is."""
        from lockstep.online.store import connect_log  # noqa: PLC0415 - redis-py

        return connect_log(self.settings)

    def materializer(self, view: str) -> "Materializer":
        """Return what brings a view online."""
        from lockstep.materialize.interval import Materializer  # noqa: PLC0415 - all of these

        declared = self.use_case.view(view)
        return Materializer(self.settings, self.lake, self.ledger, self.store, self.use_case.project, declared)
