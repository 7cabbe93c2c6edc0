"""Whether a document is what a JSON Schema says: as much of JSON Schema as our schemas use, and a word that is not known fails.

https://json-schema.org/draft/2020-12/json-schema-validation
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.clock import parse_time

TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
    "integer": int,
}  # fmt: skip
KNOWN = {
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "format", "$ref", "$defs",
    "$schema", "title", "description", "default", "minimum", "maximum",
}  # fmt: skip


def problems(value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any], at: str = "$") -> Iterator[str]:
    """Yield where a value is not what a part of the `whole` schema says."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        yield from problems(value, whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole, at)
    if "anyOf" in schema and all(list(problems(value, choice, whole, at)) for choice in schema["anyOf"]):
        yield f"{at}: none of anyOf"
    if "type" in schema and not _is_a(value, schema["type"]):
        yield f"{at}: no {schema['type']}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{at}: {value!r} is not allowed"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is too small or too great"
    if schema.get("format") == "date-time":
        parse_time(value)
    yield from _inside(value, schema, whole, at)


def _inside(value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{at}: lacks {name}" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            of = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
            if of is False:
                yield f"{at}: {name} is unknown"
            elif of is not True:
                yield from problems(inner, of, whole, f"{at}.{name}")
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from problems(inner, schema.get("items", {}), whole, f"{at}[{number}]")


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and not (isinstance(value, bool) and kind in ("number", "integer"))
