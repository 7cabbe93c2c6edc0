"""Let a request to end unwind the `with` blocks that hold child processes, as a Ctrl-C does."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """Somebody asked this process to end.

    Neither an `Exception`, which a step's caller takes for the step's failure, nor a `SystemExit`, which it takes for the
    step's exit code.
    """


_HEARD: list[tuple[float, int]] = []
"""When the running block heard which signals; handlers are the process's, and so is this."""


def raise_if_ending() -> None:
    """Raise if the running block has heard a signal: what was interrupted may have made something else of it.

    Raises:
        Ended: it has.
    """
    if _HEARD:
        raise Ended(signal.strsignal(_HEARD[-1][1]))


@contextmanager
def ending_on_signals(patience: float = 10.0) -> Generator[None]:
    """Inside the block, raise on SIGINT, SIGTERM and SIGHUP, so that everything that was begun is ended.

    The block is left with a KeyboardInterrupt after SIGINT, else with a SystemExit of 128 + the signal's number, also when
    something inside swallowed what was raised and the block came to its end. Outside the main thread, which alone may handle
    signals, and for a signal that is ignored (as under `nohup`) nothing changes.

    Args:
        patience: for so many seconds after a signal further ones change nothing, because the children are being ended and
            many a terminal or wrapper sends a signal twice. A later one interrupts again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def recently() -> bool:
        return bool(_HEARD) and time.monotonic() - _HEARD[-1][0] < patience

    def end(number: int, _: FrameType | None) -> None:
        if not recently():
            _HEARD.append((time.monotonic(), number))
            raise Ended(signal.strsignal(number))

    before = {number: signal.getsignal(number) for number in ENDING}
    # None is a handler that was not set from Python: it could not be given back.
    ours = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in ours:
            signal.signal(number, end)
        yield
        raise_if_ending()
    except (Ended, Exception) as error:
        # DuckDB, for one, raises a RuntimeError in place of what a handler raised while it ran a query.
        if not isinstance(error, Ended) and not recently():
            raise
        _, number = _HEARD[-1]
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number) from error
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        _HEARD.clear()
