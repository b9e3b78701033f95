"""The table of docs/policy.md, made from the resource's schema: every field that a policy can have."""

import re
from collections.abc import Iterator
from typing import Any

from basekeeper.resources.generated import policy_spec

_HEAD = "| field of `spec` | what it says | nova |\n|---|---|---|\n"
_TABLE = re.compile(r"\| field of `spec` \|.*\n(?:\|.*\n)*")


def written(page: str) -> str:
    """The page with the table that it should have."""
    table = _HEAD + "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows(policy_spec()))
    return _TABLE.sub(lambda _found: table, page, count=1)


def rows(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field with its path, what it says, and what nova has for it, in the order of the schema."""
    for name, field in schema["properties"].items():
        full = f"{path}.{name}" if path else name
        says, _, nova = field["description"].partition(" nova: ")
        items = field.get("items", {})
        yield f"`{full}[]`" if items else f"`{full}`", _with_choices(says, field), nova
        inner = items if "properties" in items else field
        if "properties" in inner:
            yield from rows(inner, f"{full}[]" if items else full)


def _with_choices(says: str, field: dict[str, Any]) -> str:
    choices = [str(choice) for choice in field.get("enum", ()) if choice is not None]
    return says if not choices or all(choice in says for choice in choices) else f"{says} One of {', '.join(choices)}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
