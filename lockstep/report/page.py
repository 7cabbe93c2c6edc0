"""The frame of every page: HTML that is well-formed XML too, loads nothing and runs nothing; same input, same bytes."""

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

from lockstep.report.numbers import breakable, decimal, moment, percent, percent_above, place, plain, signed, whole


def environment(package: str) -> Environment:
    """Return what renders the templates of a package: its own by `page/`, the frame and its parts by `report/`."""
    made = Environment(
        loader=PrefixLoader({"page": PackageLoader(package, ""), "report": PackageLoader("lockstep.report", "")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        f.__name__: f for f in (whole, plain, decimal, signed, moment, percent, percent_above, place, breakable)
    }
    return made
