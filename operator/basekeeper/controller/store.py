"""What is known of the cluster: snapshots by kind and name, from events and from lists, the newer of which counts.

Not kopf's index: that keeps objects which were deleted while the watch was down.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from . import snapshots
from .snapshots import Node, NodeCache, Pod, Policy


class _Versioned(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...


S = TypeVar("S", bound=_Versioned)


class Kind(Generic[S]):
    """The objects of one kind."""

    def __init__(self, read: Callable[[Mapping[str, Any]], S | None], changed: Callable[[], None]) -> None:
        self.read = read
        self._changed = changed
        self._lock = threading.Lock()
        self._known: dict[str, S] = {}

    def all(self) -> dict[str, S]:
        """What is known now."""
        with self._lock:
            return dict(self._known)

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take an event of a watch."""
        metadata = event["object"]["metadata"]
        name, version = metadata["name"], int(metadata.get("resourceVersion", 0))
        new = None if event["type"] == "DELETED" else self.read(event["object"])
        with self._lock:
            old = self._known.get(name)
            if old is not None and old.version > version:
                return
            self._put(name, new)
        if old != new:
            self._changed()

    def wrote(self, new: S) -> None:
        """Take what a write of ours made of an object, ahead of its event."""
        with self._lock:
            old = self._known.get(new.name)
            if old is None or old.version <= new.version:
                self._put(new.name, new)

    def deleted(self, name: str) -> None:
        """Take that a write of ours deleted an object."""
        with self._lock:
            self._known.pop(name, None)

    def listed(self, found: Mapping[str, S], version: int) -> None:
        """Take a whole list, as of resource version `version`: what is not in it, and is not newer, is gone."""
        with self._lock:
            before = self._known
            newer = {name: item for name, item in before.items() if item.version > version}
            self._known = {**found, **newer}
            changed = self._known != before
        if changed:
            self._changed()

    def _put(self, name: str, new: S | None) -> None:
        if new is None:
            self._known.pop(name, None)
        else:
            self._known[name] = new


@dataclass(frozen=True, slots=True)
class World:
    """All that is known at one moment."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    caches: Mapping[str, NodeCache] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    """Names of the nodes to which an agent's pod is bound."""

    def without(self, gone: set[str]) -> "World":
        """The same without these nodes' objects."""
        return replace(self, caches={name: item for name, item in self.caches.items() if name not in gone})


class Store:
    """Everything, by kind."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.policies: Kind[Policy] = Kind(snapshots.policy, changed)
        self.nodes: Kind[Node] = Kind(snapshots.node, changed)
        self.pods: Kind[Pod] = Kind(snapshots.pod, changed)
        self.caches: Kind[NodeCache] = Kind(snapshots.node_cache, changed)

    def world(self) -> World:
        """What is known now."""
        agents = frozenset(pod.node for pod in self.pods.all().values())
        return World(self.policies.all(), self.nodes.all(), self.caches.all(), agents)
