"""The figures of docs/performance.md, made from the documents of the last whole run in benchmarks/results."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
TITLES = {
    "pass": "A pass, beside nova's own",
    "guests": "Beside running guests and a slow libvirtd",
    "verify": "Verification",
    "store": "Quarantine, purge and the ledger",
    "agent": "An agent over a thousand passes",
    "cluster": "Five thousand nodes",
}
"""In the order of the page, as `python -m benchmarks` runs them."""
_BEGIN, _END = "<!-- figures: made by `make generate` -->\n", "<!-- end of figures -->\n"
_FIGURES = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)


def written(page: str) -> str:
    """The page with the figures that it should have."""
    made = f"{_BEGIN}\n{figures(documents())}\n{_END}"
    return _FIGURES.sub(lambda _found: made, page, count=1)


def documents() -> list[dict[str, Any]]:
    """What each benchmark had to say in the last run that was kept, in the order of the page."""
    paths = [RESULTS / f"{name}.json" for name in TITLES]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def figures(found: Sequence[Mapping[str, Any]]) -> str:
    """All targets in one table, then a section for each benchmark."""
    targets = [
        (item["what"], item["wanted"], item["seen"], "met" if item["met"] else "**missed**")
        for document in found
        for item in document["targets"]
    ]
    parts = ["## Targets", _table(("", "target", "seen", ""), targets)]
    for document in found:
        parts += [f"## {TITLES[document['benchmark']]}", _about(document)]
        for table in document["tables"]:
            parts += [f"**{_cell(table['title'])}**", _table(table["columns"], table["rows"])]
            parts += [_cell(note) for note in table["notes"]]
    return "\n\n".join(parts) + "\n"


def _about(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    given = " ".join(_options(document["arguments"]))
    return (
        f"`python -m benchmarks.bench_{document['benchmark']}{' ' + given if given else ''}` at {document['commit']}, "
        f"{document['at']}. {machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['kernel']}, Python {machine['python']}; load average at the end {machine['load']}, "
        f"{machine['stolen']} of the processor's time taken by the machine's neighbours."
    )


def _options(arguments: Mapping[str, str]) -> Iterator[str]:
    for name, value in arguments.items():
        if value not in ("None", "False"):
            yield f"--{name.replace('_', '-')}" + ("" if value == "True" else f" {value}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(map(_cell, columns))} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
