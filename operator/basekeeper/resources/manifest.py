"""Reads an `ImageCachePolicy` from a file, or from a document that something else has read.

Whatever is wrong comes out as one `PolicyError`, whose message is one line: the file, the field, what was
expected, what to do. The parser's and the validator's own words stay inside, chained to it.
"""

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .image_cache_policy import API_VERSION, KIND, ImageCachePolicy
from .quantities import shown

MAX_BYTES = 1 << 20
"""A larger file is no policy: etcd would not take it either."""
MAX_ERRORS = 5
"""Errors that one message names."""


class PolicyError(Exception):
    """A policy that cannot be used; the message is one line that names the file and the fields."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message))


def load(path: Path) -> ImageCachePolicy:
    """Read the policy in the YAML file `path`; raises PolicyError for whatever is wrong with it."""
    documents = [document for document in _documents(_text(path), path) if document is not None]
    if len(documents) != 1:
        found = f"{len(documents)} documents" if documents else "nothing"
        raise PolicyError(f"{path}: expected one {KIND}, got {found}; give a file of its own to each policy")
    return parse(documents[0], str(path))


def parse(document: object, source: str) -> ImageCachePolicy:
    """Turn a document, as YAML or the API server gives it, into a policy.

    `source` is where it came from, for the message of the PolicyError that anything wrong raises.
    """
    if not isinstance(document, Mapping):
        raise PolicyError(f"{source}: expected an {KIND}, got {shown(document)}")
    if document.get("kind") == "List":
        raise PolicyError(f"{source}: expected an {KIND}, got a List; give one policy only")
    try:
        # `status` is the controller's: kubectl prints it with the rest, nobody here reads it.
        return ImageCachePolicy.model_validate({key: value for key, value in document.items() if key != "status"})
    except ValidationError as error:
        raise PolicyError(f"{source}: {_sentence(error.errors(include_url=False))}") from error
    except RecursionError as error:
        raise PolicyError(f"{source}: nested too deeply") from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError(f"{path}: cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"{path}: larger than 1 MiB, which no {KIND} is")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not a text file in UTF-8") from error


class _Loader(yaml.SafeLoader):
    """YAML as far as a policy needs it: no tags, no aliases (they can unfold into gigabytes), no key twice.

    Time stamps stay text and `<<` is a key like any other, as for the API server.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias, write the value out", problem_mark=mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="a tag, remove it", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"a key that is {shown(key)}", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {shown(key)} twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# PyYAML keeps what plain scalars resolve to by their first character.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _documents(text: str, path: Path) -> list[object]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise PolicyError(f"{path}: not the YAML of a policy{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise PolicyError(f"{path}: not YAML: it has a character that YAML does not allow") from error
    except RecursionError as error:
        raise PolicyError(f"{path}: nested too deeply") from error
    except (ValueError, ArithmeticError) as error:  # PyYAML takes `0b_` and numbers without end for integers
        raise PolicyError(f"{path}: not YAML: a number in it cannot be read") from error


def _sentence(errors: list[ErrorDetails]) -> str:
    """Put the errors of one validation into one line."""
    lines = [_error(error) for error in errors[:MAX_ERRORS]]
    more = len(errors) - MAX_ERRORS
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _error(error: ErrorDetails) -> str:
    field = _field(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{field}: {_unknown(error['loc'])}"
    return f"{field}: {_expected(error)}" if field else _expected(error)


def _field(location: Iterable[int | str]) -> str:
    """Write a field's path as people do: `spec.pinnedImages[2]`."""
    path = ""
    for part in location:
        if part == "[key]":  # pydantic's mark for an error in a mapping's key; the key is the part before it
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + (part if len(part) <= 80 else part[:80] + "...")
    return path


def _unknown(location: tuple[int | str, ...]) -> str:
    close = difflib.get_close_matches(str(location[-1])[:80], _siblings(location), n=1)
    return f"unknown field; did you mean {close[0]}?" if close else "unknown field; remove it"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Name the known fields beside the unknown one at `location`."""
    model: Any = ImageCachePolicy
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = next(info.annotation for info in model.model_fields.values() if info.alias == part)
            model = next(kind for kind in _models(annotation))
    return [info.alias for info in model.model_fields.values() if info.alias]


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    """Find the models in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


_EXPECTED = {
    "missing": "required",
    "model_type": "expected a mapping, got {got}",
    "model_attributes_type": "expected a mapping, got {got}",
    "dict_type": "expected a mapping, got {got}",
    "tuple_type": "expected a list, got {got}",
    "int_type": "expected a whole number, got {got}",
    "bool_type": "expected true or false, got {got}",
    "string_type": "expected text, got {got}; put it in quotes",
    "string_unicode": "expected text, got {got}",
    "string_too_short": "expected text, got nothing",
    "string_too_long": "expected at most {max_length} characters",
    "too_long": "expected at most {max_length} entries, got {actual_length}",
    "greater_than_equal": "expected at least {ge}, got {got}",
    "less_than_equal": "expected at most {le}, got {got}",
    "enum": "expected {expected}, got {got}",
    "literal_error": "expected {expected}, got {got}",
}
"""What to say for pydantic's types of error; `{got}` is the value as people wrote it."""

_MISSING = {
    "spec.mode": "required; write Audit, which removes nothing, or Enforce",
    "apiVersion": f"required; write {API_VERSION}",
    "kind": f"required; write {KIND}",
}
_PATTERNS = {
    "metadata.name": "expected lower-case letters, digits, - and ., got {got}",
}


def _expected(error: ErrorDetails) -> str:
    field, context = _field(error["loc"]), error.get("ctx", {})
    got = shown(error["input"])
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "too_long" and context.get("actual_length") is None:  # of a mapping pydantic counts none
        context = {**context, "actual_length": len(error["input"])}
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(field, "expected a label's key or value, got {got}").format(got=got)
    if error["type"] == "missing" and field in _MISSING:
        return _MISSING[field]
    expected = re.sub(r"'", "", str(context.get("expected", "")))
    template = _EXPECTED.get(error["type"])
    if template is None:
        return f"not accepted, got {got}"
    return template.format(**{**context, "got": got, "expected": expected})
