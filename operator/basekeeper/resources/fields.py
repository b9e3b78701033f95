"""The kinds of value that fields of the custom resources hold, beyond what YAML has.

Each reads what YAML gives it, says in one line what it expected, and knows how the custom resource
definition describes it. `null` is refused everywhere: left to itself the API server prunes it, so that
`nodeSelector:` with nothing after it would silently select every node.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from .quantities import (
    DURATION_PATTERN,
    MAX_SIZE,
    SIZE_PATTERN,
    QuantityError,
    format_duration,
    parse_duration,
    parse_size,
    shown,
)


class Strict(BaseModel):
    """A mapping whose keys are all known and whose values are never coerced from another type."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 64}),
]
"""Seconds, written as `24h`, `1h30m`, `500ms`."""


def cel(*rules: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """Rules that the API server checks, for `json_schema_extra`: expression, sentence and, where it helps, field."""
    return {
        "x-kubernetes-validations": [
            {"rule": rule, "message": message, **({"fieldPath": path[0]} if path else {})}
            for rule, message, *path in rules
        ]
    }


def duration_default(seconds: float, *, least: str | None = None) -> Any:
    """Give a Duration field a default, which its schema shows as people write it, and the cluster's floor."""
    least = least or "0s"  # the rule also refuses, by its own reading, what is longer than Go can count
    rule = (f"duration(self) >= duration('{least}')", f"expected a duration from {least} to 2562047h")
    return Field(default=seconds, json_schema_extra={"default": format_duration(seconds), **cel(rule)})


def _read_size(value: object) -> int:
    size = parse_size(value)
    if size == 0:
        raise QuantityError('expected a size above 0, got 0; write "suspend: true" to stop removals')
    return size


Size = Annotated[
    int,
    BeforeValidator(_read_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_SIZE}, {"type": "string"}],
            "pattern": SIZE_PATTERN,
            "maxLength": 64,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""Bytes, written as a Kubernetes quantity (`10Gi`) or a number."""

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_UUID = re.compile(UUID_PATTERN)


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID, in whatever case."""
    return _UUID.fullmatch(text) is not None


def _read_uuid(value: object) -> str:
    if not isinstance(value, str) or not is_uuid(value):
        raise ValueError(f"expected an image's UUID such as 0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f, got {shown(value)}")
    return value


ImageId = Annotated[str, BeforeValidator(_read_uuid), WithJsonSchema({"type": "string", "pattern": UUID_PATTERN})]
"""A glance image's id. Kept as written: nova names the base after the hash of exactly this text."""

TIMESTAMP_PATTERN = (
    r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""RFC 3339 as far as both we and the API server's `date-time` read it."""
_TIMESTAMP = re.compile(TIMESTAMP_PATTERN)


def _read_timestamp(value: object) -> datetime:
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass  # the 30th of February has the right shape; it ends below like any other mistake
    raise ValueError(f"expected a time such as 2026-12-31T00:00:00Z, got {shown(value)}")


Timestamp = Annotated[
    datetime,
    BeforeValidator(_read_timestamp),
    PlainSerializer(lambda value: value.isoformat().replace("+00:00", "Z"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": TIMESTAMP_PATTERN, "maxLength": 40}),
]
"""A moment, written as RFC 3339 does."""


def moment(seconds: float) -> datetime:
    """Unix seconds as a moment, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC)


def _refuse_null(value: object) -> object:
    if value is None:
        raise ValueError("expected a value, got nothing; give it one or remove the line")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


T = TypeVar("T")
Omittable = Annotated[T | None, BeforeValidator(_refuse_null)]
"""A field that may be left out, but not be given as `null`."""

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""How many there are."""
MOST_BYTES = 2**60
"""More than any file system has, and a number that the API server can hold exactly."""
Bytes = Annotated[int, Field(ge=0, le=MOST_BYTES, json_schema_extra={"format": "int64"})]
"""A number of bytes, as status tells it."""
NodeName = Annotated[str, Field(min_length=1, max_length=253)]
HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
"""nova's `host` for a compute node: whatever its configuration says, a host's name as a rule."""
Text = Annotated[str, Field(min_length=1, max_length=1024)]
PathText = Annotated[
    str,
    Field(min_length=1, max_length=4096, json_schema_extra={"pattern": r"^[^\x00]*$"}),
    AfterValidator(_no_nul),
]
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LABEL_KEY_PATTERN = rf"^([a-z0-9.-]{{1,253}}/)?{_LABEL}$"
LabelKey = Annotated[str, Field(max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=63, pattern=rf"^({_LABEL})?$")]
_DNS = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
ObjectName = Annotated[str, Field(max_length=253, pattern=rf"^{_DNS}(\.{_DNS})*$")]


def omitted(schema: dict[str, Any]) -> None:
    """Take `null` out of an omittable field's JSON schema: people must not write it."""
    variants = [variant for variant in schema.pop("anyOf", []) if variant != {"type": "null"}]
    if len(variants) == 1:
        schema.update(variants[0])
    elif variants:
        schema["anyOf"] = variants
    if schema.get("default", ...) is None:
        del schema["default"]
