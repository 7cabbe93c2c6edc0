"""A transformer that reads one stored feature from another's field, as after a slip in a mapping of columns.

`python -m lockstep.skew.wrong_column --view terminal_risk --column risk_7d --read risk_1d`, and the transformer's own arguments.
The request is answered, nothing fails, and every value is a plausible one.
"""

from dataclasses import replace
from functools import partial

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, nearest
from lockstep.online.layout import field_of
from lockstep.online.reader import ReadPlan
from lockstep.serving.server import run
from lockstep.serving.transformer import serve_contract, transformer_arguments


def misreading_plan(contract: FeatureContract, view: str, column: str, read: str) -> ReadPlan:
    """Return the contract's plan with the field of one column replaced by another's.

    Raises:
        BadInput: the contract reads no such column of such a view.
    """
    plan = ReadPlan.compile(contract)
    columns = {c.name: c.dtype for v in contract.views if v.name == view for c in v.columns}
    for name in (column, read):
        if name not in columns:
            raise BadInput(f"the contract reads no {view}:{name}", hint=nearest(name, columns))
    fields = {field_of(view, column): field_of(view, read)}
    groups = tuple(replace(group, fields=tuple(fields.get(f, f) for f in group.fields)) for group in plan.groups)
    return replace(plan, groups=groups)


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
