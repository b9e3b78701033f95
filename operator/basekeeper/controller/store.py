"""What is known of the cluster: snapshots by kind and name, from events and from lists, the newer of which counts.

Not kopf's index: that keeps objects which were deleted while the watch was down.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        self._gone: dict[str, int] = {}
        """The version at which an object went, since the last list: what is older and comes later is its ghost."""
        self._listed_at = 0

    def all(self) -> dict[str, S]:
        """What is known now."""
        with self._lock:
            return dict(self._known)

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take an event of a watch."""
        metadata = event["object"]["metadata"]
        name, version = metadata["name"], snapshots.version(metadata)
        new = None if event["type"] == "DELETED" else self.read(event["object"])
        with self._lock:
            old = self._known.get(name)
            if self._is_past(name, version):
                return
            if new is None:
                self._drop(name, version)
            else:
                self._known[name] = new
        if old != new:
            self._changed()

    def wrote(self, new: S) -> None:
        """Take what a write of ours made of an object, ahead of its event, which knows more if it came first."""
        with self._lock:
            old = self._known.get(new.name)
            if not self._is_past(new.name, new.version) and (old is None or old.version < new.version):
                self._known[new.name] = new

    def deleted(self, name: str) -> None:
        """Take that a write of ours deleted an object."""
        with self._lock:
            old = self._known.get(name)
            if old is not None:
                self._drop(name, old.version)

    def listed(self, found: Mapping[str, S], version: int) -> None:
        """Take a whole list, as of resource version `version`: what is not in it, and is not newer, is gone."""
        with self._lock:
            before = self._known
            restored = version < self._listed_at  # etcd from a backup: what was newer has never been
            self._gone = {name: at for name, at in self._gone.items() if at > version and not restored}
            now = {name: item for name, item in before.items() if item.version > version and not restored}
            for name, item in found.items():
                if name not in self._gone and (name not in now or now[name].version <= item.version):
                    now[name] = item
            self._known = now
            self._listed_at = version
            changed = now != before
        if changed:
            self._changed()

    def _is_past(self, name: str, version: int) -> bool:
        """Whether something newer than `version` is known of an object: itself, that it went, or a list without it."""
        old = self._known.get(name)
        newest = old.version if old is not None else max(self._listed_at, self._gone.get(name, 0)) + 1
        return 0 < version < newest

    def _drop(self, name: str, version: int) -> None:
        self._known.pop(name, None)
        self._gone[name] = version


@dataclass(frozen=True, slots=True)
class World:
    """All that is known at one moment."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    caches: Mapping[str, NodeCache] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    """Names of the nodes to which an agent's pod is bound."""


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
