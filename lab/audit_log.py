"""What an API server was asked, from its audit log: who asked for what, and how often."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

Entry = dict[str, Any]

# What an API server asks itself is nobody's traffic. Watches are long: they show up when they start, too.
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}],
}
_NODE_OF_A_BOUND_TOKEN = "authentication.kubernetes.io/node-name"  # noqa: S105 - a name of a claim


class Request(NamedTuple):
    """A kind of request; `resource` is empty for a URL such as /readyz."""

    user: str
    verb: str
    resource: str
    subresource: str


def text(log: Path, since: int) -> str:
    """Return the log from a position on."""
    with log.open("rb") as file:
        file.seek(since)
        return file.read().decode()


def read(log: Path, since: int) -> list[Entry]:
    """Return the entries from a position of the log on; a line that is being written is left for the next time."""
    return [json.loads(line) for line in text(log, since).splitlines(keepends=True) if line.endswith("\n")]


def node_of(entry: Entry) -> str | None:
    """Name the node whose pod asked, when it asked with a token that is bound to a pod."""
    names = entry["user"].get("extra", {}).get(_NODE_OF_A_BOUND_TOKEN, [None])
    return str(names[0]) if names[0] is not None else None


def count(entries: Iterable[Entry]) -> Counter[Request]:
    """Count requests, each once: a watch has one entry when it starts and one when it ends."""
    requests: dict[str, Request] = {}
    for entry in entries:
        target = entry.get("objectRef", {})
        requests[entry["auditID"]] = Request(
            entry["user"].get("username", ""), entry["verb"], target.get("resource", ""), target.get("subresource", "")
        )
    return Counter(requests.values())
