"""What an API server says to a value, by a structural schema: as far as the schemas of this project use one."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

Schema = Mapping[str, Any]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def spec_and_status(definition: Schema) -> tuple[Schema, Schema]:
    """The schemas of a custom resource's two halves."""
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return properties["spec"], properties["status"]


def wrongs(value: Any, schema: Schema, where: str = "") -> list[str]:
    """All that is wrong with a value; a field that the schema does not know would be pruned, which is wrong too."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: neither a number nor a text"]
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: {value!r} is no {kind}"]
    return [*_limits(value, schema, where), *_inside(value, schema, where)]


def _limits(value: Any, schema: Schema, where: str) -> Iterator[str]:
    checks: dict[str, Callable[[Any], bool]] = {
        "enum": lambda bound: value in bound,
        "minimum": lambda bound: value >= bound,
        "maximum": lambda bound: value <= bound,
        "minLength": lambda bound: len(value) >= bound,
        "maxLength": lambda bound: len(value) <= bound,
        "minItems": lambda bound: len(value) >= bound,
        "maxItems": lambda bound: len(value) <= bound,
        "maxProperties": lambda bound: len(value) <= bound,
        "pattern": lambda bound: re.search(bound, value) is not None,
        "required": lambda bound: set(bound) <= value.keys(),
    }
    for name, holds in checks.items():
        if name in schema and not holds(schema[name]):
            yield f"{where}: {value!r} against {name} {schema[name]!r}"
    if schema.get("format") == "date-time":
        datetime.fromisoformat(value)


def _inside(value: Any, schema: Schema, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        more = schema.get("additionalProperties")
        for key, item in value.items():
            part = schema.get("properties", {}).get(key, more)
            if part is None:
                yield f"{where}.{key}: not known"
            else:
                yield from wrongs(item, part, f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from wrongs(item, schema["items"], f"{where}[{number}]")


def walk(schema: Schema, where: str = "spec") -> Iterator[tuple[str, Schema]]:
    """Every part of a schema, with its path."""
    yield where, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{where}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{where}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{where}.*")
