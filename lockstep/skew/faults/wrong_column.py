"""A column that is read from the field of another: one slip in a mapping of names.

Requests are answered, nothing fails, and every value is a plausible one. It is a process of its own, too:
`python -m lockstep.skew.faults.wrong_column --view terminal_risk --column risk_7d --read risk_1d`, and the transformer's own
arguments.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, nearest
from lockstep.online.layout import field_of
from lockstep.online.reader import ReadPlan
from lockstep.serving.server import run
from lockstep.serving.transformer import serve_contract, transformer_arguments
from lockstep.skew.fault import Fault
from lockstep.skew.windows import last_measure


@dataclass(frozen=True, kw_only=True)
class WrongColumn(Fault):
    """One column of a view has another one's values."""

    view: str
    column: str
    source: str

    def plan(self, plan: ReadPlan) -> ReadPlan:
        """Read the field of the other column."""
        return misread(plan, self.view, self.column, self.source)


def variants(contract: FeatureContract) -> Iterator[Fault]:
    """Yield, for each view with windows, the second window of its last measure, read from the first one's field."""
    for view in contract.views:
        measure = last_measure(view)
        if len(measure) > 1:
            source, column = measure[0].name, measure[1].name
            yield WrongColumn(
                name=f"wrong-column:{view.name}",
                says=f"{column} is read from the field of {source}",
                causes=frozenset({"wrong_row"}),
                view=view.name,
                column=column,
                source=source,
            )


def misread(plan: ReadPlan, view: str, column: str, source: str) -> ReadPlan:
    """Return a plan with the field of one column replaced by another's."""
    fields = {field_of(view, column): field_of(view, source)}
    groups = tuple(replace(group, fields=tuple(fields.get(f, f) for f in group.fields)) for group in plan.groups)
    return replace(plan, groups=groups)


def misreading_plan(contract: FeatureContract, view: str, column: str, read: str) -> ReadPlan:
    """Return the contract's plan with the field of one column replaced by another's.

    Raises:
        BadInput: the contract reads no such column of such a view.
    """
    columns = {c.name: c.dtype for v in contract.views if v.name == view for c in v.columns}
    for name in (column, read):
        if name not in columns:
            raise BadInput(f"the contract reads no {view}:{name}", hint=nearest(name, columns))
    return misread(ReadPlan.compile(contract), view, column, read)


def main() -> None:
    """Serve, misreading the column that the command line names."""
    parser = transformer_arguments()
    parser.add_argument("--view", required=True, help="the stored view")
    parser.add_argument("--column", required=True, help="the feature that is served wrong")
    parser.add_argument("--read", required=True, help="the feature whose field is read in its place")
    given = parser.parse_args()
    serve_contract(given, partial(misreading_plan, view=given.view, column=given.column, read=given.read))


if __name__ == "__main__":
    run(main)
