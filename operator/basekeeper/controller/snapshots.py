"""What the controller keeps of each object: named scalars, frozen and small, so that 5,000 nodes fit in memory."""

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from basekeeper.resources import manifest
from basekeeper.resources.conditions import NodeCondition, Status, shortened
from basekeeper.resources.image_cache_policy import API_VERSION, KIND, LabelSelector, PolicySpec
from basekeeper.resources.node_image_cache import NodeSpec

from . import digests

Object = Mapping[str, Any]
MAX_PRIORITY = 2**31 - 1
_LONGEST = 400
"""Characters of what a node says that are kept."""


@dataclass(frozen=True, slots=True)
class Policy:
    """An `ImageCachePolicy`."""

    name: str
    uid: str
    version: int = field(compare=False)
    generation: int
    created: float
    selector: LabelSelector | None
    """None: every node."""
    priority: int
    spec: PolicySpec | None
    """None: it is not accepted, see `problem`; it still keeps its nodes from policies of a lower priority."""
    problem: str | None
    status: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """As it was last written."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Node."""

    name: str
    uid: str
    version: int = field(compare=False)
    labels: Mapping[str, str] = field(hash=False)
    ready: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """An agent's pod that is bound to a node and has not ended."""

    name: str
    version: int = field(compare=False)
    node: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a node's status says, in short."""

    heartbeat: float | None = None
    observed_generation: int | None = None
    policy: tuple[str, int] | None = None
    """Uid and generation of the policy that the last pass ran under."""
    applied: bool = False
    failing: str | None = None
    """Why the last pass failed."""
    breaker: str | None = None
    """Which anomaly stops removals."""
    holding: str | None = None
    outcome: str | None = None
    last_pass: float | None = None
    """When its evidence was judged, Unix seconds."""
    held_files: int = 0
    cache: Mapping[str, int] = field(default_factory=dict, hash=False)
    corrupt_files: int = 0
    identity: str | None = None
    """Which directories it sees."""
    digests: bytes = b""
    """Of its original bases, as `digests.packed` makes them."""


@dataclass(frozen=True, slots=True)
class NodeCache:
    """A `NodeImageCache`."""

    name: str
    uid: str
    version: int = field(compare=False)
    generation: int
    created: float
    owners: frozenset[str]
    """The uids of the Nodes that own it; a backup that was restored may have added one."""
    spec: NodeSpec | None
    """None: it cannot be read, and is written anew."""
    said: Said


def policy(found: Object) -> Policy:
    """The snapshot of an ImageCachePolicy."""
    metadata = found["metadata"]
    spec, problem = None, None
    try:
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": found.get("spec") or {}}
        given = manifest.parse(document, metadata["name"]).spec
        # As nodes' objects can say it: what is finer than a nanosecond would always seem to wait to be told.
        spec = PolicySpec.model_validate(given.model_dump(mode="json", by_alias=True, exclude_none=True))
    except manifest.PolicyError as error:
        problem = str(error)
    selector, priority = (spec.node_selector, spec.priority) if spec else _claim(found.get("spec") or {})
    return Policy(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version(metadata),
        generation=int(metadata.get("generation", 0)),
        created=seconds(metadata.get("creationTimestamp")) or 0.0,
        selector=selector,
        priority=priority,
        spec=spec,
        problem=problem,
        status=found.get("status") or {},
    )


def _claim(spec: Object) -> tuple[LabelSelector | None, int]:
    """The selector and the priority of a policy that is not accepted. What of them cannot be read is the widest.

    It may be there to protect its nodes, so that no other policy may have them instead.
    """
    selector, priority = None, spec.get("priority", 0)
    if "nodeSelector" in spec:
        with contextlib.suppress(ValidationError):
            selector = LabelSelector.model_validate(spec["nodeSelector"])
    return selector, priority if type(priority) is int else MAX_PRIORITY


def node(found: Object) -> Node:
    """The snapshot of a Node."""
    metadata = found["metadata"]
    conditions = (found.get("status") or {}).get("conditions") or ()
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    labels = metadata.get("labels") or {}
    return Node(metadata["name"], metadata["uid"], version(metadata), dict(labels), ready)


def pod(found: Object) -> Pod | None:
    """The snapshot of an agent's pod; None while it is not bound, and once it has ended."""
    metadata, spec = found["metadata"], found.get("spec") or {}
    ended = (found.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if ended or not spec.get("nodeName"):
        return None
    return Pod(metadata["name"], version(metadata), spec["nodeName"])


def node_cache(found: Object) -> NodeCache:
    """The snapshot of a NodeImageCache."""
    metadata = found["metadata"]
    owners = (item["uid"] for item in metadata.get("ownerReferences") or () if item.get("kind") == "Node")
    return NodeCache(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version(metadata),
        generation=int(metadata.get("generation", 0)),
        created=seconds(metadata.get("creationTimestamp")) or 0.0,
        owners=frozenset(owners),
        spec=spec_of(found.get("spec") or {}),
        said=_said(found.get("status") or {}),
    )


def spec_of(spec: Object) -> NodeSpec | None:
    """A node's spec as a value, which nodes that are told the same share; None if it is none of ours."""
    return _spec_of(json.dumps(spec, sort_keys=True))


@functools.lru_cache(maxsize=1024)
def _spec_of(text: str) -> NodeSpec | None:
    try:
        return NodeSpec.model_validate(json.loads(text))
    except ValidationError:
        return None


def _said(status: Object) -> Said:
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}

    def message_if(kind: NodeCondition, wanted: Status) -> str | None:
        item = conditions.get(kind, {})
        said = f"{item.get('reason')}: {item.get('message')}" if item.get("status") == wanted else None
        return None if said is None else shortened(said, _LONGEST)

    told, ran = status.get("policy") or {}, status.get("lastPass") or {}
    return Said(
        heartbeat=seconds(status.get("heartbeatTime")),
        observed_generation=status.get("observedGeneration"),
        policy=(told["uid"], told["generation"]) if told else None,
        applied=conditions.get(NodeCondition.POLICY_APPLIED, {}).get("status") == Status.TRUE,
        failing=message_if(NodeCondition.READY, Status.FALSE),
        breaker=message_if(NodeCondition.BREAKER_CLOSED, Status.FALSE),
        holding=message_if(NodeCondition.HOLDING, Status.TRUE),
        outcome=ran.get("outcome"),
        last_pass=seconds(ran.get("time")),
        held_files=sum((ran.get("held") or {}).values()),
        cache={key: int(value) for key, value in (status.get("cache") or {}).items()},
        corrupt_files=int((status.get("integrity") or {}).get("corruptFiles", 0)),
        identity=(status.get("fileSystem") or {}).get("identity"),
        digests=digests.packed((status.get("integrity") or {}).get("digests")),
    )


def version(metadata: Object) -> int:
    """The resource version. etcd's are numbers that grow; Kubernetes promises since 1.35 that they compare so."""
    text = str(metadata.get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


def seconds(text: str | None) -> float | None:
    """A time as Kubernetes writes it, in Unix seconds; None for none, and for what is no time."""
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
