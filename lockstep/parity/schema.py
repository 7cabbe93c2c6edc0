"""The JSON Schema of a parity report, for whoever reads one without this library.

https://json-schema.org/draft/2020-12
"""

from typing import Any

import orjson

from lockstep.parity.report import ParityReport


def report_schema() -> dict[str, Any]:
    """Return what the JSON of a report is, as its model says."""
    schema = ParityReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Return the published file."""
    return orjson.dumps(report_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
