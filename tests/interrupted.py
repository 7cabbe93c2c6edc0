"""A run that ends in the middle, as a process does that is killed there."""

from collections.abc import Callable

import pytest


def interrupted(monkeypatch: pytest.MonkeyPatch, owner: type, step: str, run: Callable[[], object]) -> None:
    """Run until a method is about to begin, and end there."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(owner, step, die)
        with pytest.raises(KeyboardInterrupt):
            run()
