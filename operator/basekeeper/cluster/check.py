"""What an installation has to show: that every agent sees what it should, and that a node writes only for itself.

Asked of the API server with whatever rights the asker has; `check-cluster` and with it `helm test` print the answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from basekeeper.resources.conditions import NodeCondition, Status, Why
from basekeeper.resources.node_image_cache import KIND

from .api import Api, ApiRefused, Conflict, NotFound
from .kinds import NODE_CACHES, pods

FIELD_MANAGER = "basekeeper-check"
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing: whether it is as it should be, and a sentence."""

    good: bool
    message: str


def agents(api: Api, namespace: str, selector: str) -> list[Finding]:
    """A finding for every node with an agent's pod, or one that there is none. Raises ApiError."""
    running = sorted(_running(api, namespace, selector).items())
    if not running:
        return [Finding(good=False, message=f"no node has an agent's pod in the namespace {namespace}")]
    return [_agent(api, node, since) for node, since in running]


def _running(api: Api, namespace: str, selector: str) -> dict[str, datetime | None]:
    """Nodes with an agent's pod, and since when it has run."""
    found: dict[str, datetime | None] = {}
    for page in api.pages(pods(namespace), labelSelector=selector):
        for pod in page.get("items", ()):
            if node := pod.get("spec", {}).get("nodeName"):
                found[node] = _started(pod)
    return found


def _started(pod: Object) -> datetime | None:
    times = [
        told
        for container in pod.get("status", {}).get("containerStatuses", ())
        if (told := container.get("state", {}).get("running", {}).get("startedAt"))
    ]
    return _time(max(times)) if times else None


def _agent(api: Api, node: str, since: datetime | None) -> Finding:
    try:
        status = api.get(NODE_CACHES, node).get("status") or {}
    except NotFound:
        return Finding(good=False, message=f"{node}: has no {KIND} yet, which the controller makes")
    said = {item.get("type"): item for item in status.get("conditions", ())}
    heartbeat = status.get("heartbeatTime")
    if not said or not heartbeat or (since is not None and _time(heartbeat) < since):
        return Finding(good=False, message=f"{node}: its agent has not reported since it was started")
    return _judged(node, status, said)


def _judged(node: str, status: Object, said: Mapping[str, Object]) -> Finding:
    ready = said.get(NodeCondition.READY, {})
    libvirt = said.get(NodeCondition.LIBVIRT_REACHABLE, {})
    if ready.get("reason") == Why.NO_POLICY:
        what = "no policy selects the node, so its agent looks at nothing; apply one in mode Audit and check again"
        return Finding(good=False, message=f"{node}: {what}")
    if ready.get("status") != Status.TRUE:
        return Finding(good=False, message=f"{node}: {ready.get('message', 'the last pass failed')}")
    if libvirt.get("status") != Status.TRUE and libvirt.get("reason") != Why.NOT_ASKED:
        return Finding(good=False, message=f"{node}: {libvirt.get('message', 'libvirt was not asked')}")
    answers = "was not asked" if libvirt.get("reason") == Why.NOT_ASKED else "answers"
    base = status.get("paths", {}).get("base", "the cache")
    files = status.get("cache", {}).get("files", 0)
    return Finding(good=True, message=f"{node}: libvirt {answers}, {base} was read: files {files}")


def isolation(api: Api, node: str) -> list[Finding]:
    """What a token of this node may write, by dry runs: its own status, and no other. Raises ApiError."""
    try:
        api.apply(NODE_CACHES, node, {"status": {}}, subresource="status", dry_run=True)
    except (NotFound, Conflict) as error:
        return [Finding(good=False, message=f"{node}: has no {KIND} yet: {error}")]
    except ApiRefused as error:
        return [Finding(good=False, message=f"{node}: may not write its own status: {error}")]
    own = Finding(good=True, message=f"{node}: may write its own status")
    other = next((name for name in _names(api) if name != node), None)
    if other is None:
        return [own, Finding(good=True, message=f"{node} is the only node: there is no other one to be refused")]
    return [own, _refused(api, node, other)]


def _names(api: Api) -> Iterator[str]:
    for page in api.pages(NODE_CACHES):
        yield from (item["metadata"]["name"] for item in page.get("items", ()))


def _refused(api: Api, node: str, other: str) -> Finding:
    try:
        api.apply(NODE_CACHES, other, {"status": {}}, subresource="status", dry_run=True)
    except NotFound:
        return Finding(good=False, message=f"{other}: has gone meanwhile")
    except ApiRefused as error:
        return Finding(good=True, message=f"{node}: may not write {other}'s: {error}")
    what = f"{node}: MAY WRITE {other}'s status: the admission policy nodeimagecaches.basekeeper.io is not in force"
    return Finding(good=False, message=what)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
