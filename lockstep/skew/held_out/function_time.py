"""On-demand functions are given the request time in another unit or of another zone; reading and logging have the right one.

Stored parts are equal and what the function makes of them is not: `transform`. The clock of the process is right, so it is no
`clock_skew`; and what differs is not the time but a feature made of it, so it is no conversion of a value either.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from numpy.typing import NDArray

from lockstep.clock import MICROSECOND
from lockstep.contract import FeatureContract
from lockstep.serving.features import REQUEST_TIME_US, Function
from lockstep.skew.fault import Fault

Times = NDArray[Any]
ZONE = timedelta(hours=5, minutes=30)


def in_milliseconds(times_us: Times) -> Times:
    """Return times in milliseconds, where microseconds are wanted."""
    return times_us // 1_000


def in_zone(times_us: Times) -> Times:
    """Return the local time of a zone ahead of UTC."""
    return times_us + ZONE // MICROSECOND


@dataclass(frozen=True, kw_only=True)
class FunctionTime(Fault):
    """What takes the request time gets another one."""

    to: Callable[[Times], Times]

    def functions(self, contract: FeatureContract, functions: Mapping[str, Function]) -> Mapping[str, Function]:
        """Change what they are given."""
        return {name: self._changed(function) for name, function in functions.items()}

    def _changed(self, function: Function) -> Function:
        def changed(columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
            if REQUEST_TIME_US not in columns:
                return function(columns)
            return function({**columns, REQUEST_TIME_US: self.to(columns[REQUEST_TIME_US])})

        return changed


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield both, if a function takes the request time."""
    if any(column.name == REQUEST_TIME_US for view in contract.on_demand for column in view.inputs):
        yield FunctionTime(
            name="function-milliseconds",
            says="on-demand functions are given the request time in milliseconds for microseconds",
            causes=frozenset({"transform"}),
            to=in_milliseconds,
        )
        yield FunctionTime(
            name="function-zone+5.5h",
            says="on-demand functions are given a local time 5.5 h ahead of UTC",
            causes=frozenset({"transform"}),
            to=in_zone,
        )
