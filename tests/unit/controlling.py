"""Short words for what the controller knows, and a cluster of values in which nodes do as they are told."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import Kind
from basekeeper.cache.settings import CachedOnly, Drain, Mode
from basekeeper.cache.windows import is_open
from basekeeper.controller import rollup, snapshots
from basekeeper.controller.desired import Desired, Wanted, desired, is_there
from basekeeper.controller.snapshots import Node, NodeCache, Policy
from basekeeper.controller.store import World
from basekeeper.resources.image_cache_policy import API_VERSION, KIND
from basekeeper.resources.node_settings import NodeSettings, to_engine

NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
INTERVAL = 40 * MINUTE
UUID = "0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f"
Spec = dict[str, Any]
NO_LABELS: Mapping[str, str] = {}


def policy(
    name: str = "compute",
    *,
    generation: int = 1,
    created: float = NOW - DAY,
    uid: str = "",
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Policy:
    """A policy as the API server gives it, in Enforce unless told otherwise."""
    metadata = {"name": name, "uid": uid or f"uid-{name}", "generation": generation, "resourceVersion": "1"}
    metadata["creationTimestamp"] = timestamp(created)
    found = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"mode": "Enforce"} | spec}
    return snapshots.policy(found | {"status": status or {}})


def node(name: str = "node-0", labels: Mapping[str, str] = NO_LABELS, *, ready: bool = True, uid: str = "") -> Node:
    """A Node."""
    conditions = [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    metadata = {"name": name, "uid": uid or f"uid-{name}", "labels": dict(labels), "resourceVersion": "1"}
    return snapshots.node({"metadata": metadata, "status": {"conditions": conditions}})


def cache(
    name: str = "node-0",
    *,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    generation: int = 1,
    created: float = NOW - DAY,
    owner: str = "",
) -> NodeCache:
    """A NodeImageCache."""
    metadata = {"name": name, "uid": f"uid-cache-{name}", "generation": generation, "resourceVersion": "1"}
    metadata |= {"creationTimestamp": timestamp(created)}
    metadata |= {"ownerReferences": [{"kind": "Node", "name": name, "uid": owner or f"uid-{name}"}]}
    return snapshots.node_cache({"metadata": metadata, "spec": dict(spec or {}), "status": dict(status or {})})


def condition(kind: str, status: str, reason: str = "Because", message: str = "of this") -> dict[str, Any]:
    """A condition of a node."""
    since = timestamp(NOW - DAY)
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


FAILS = condition("Ready", "False", "PassFailed", "the disk is gone")
BREAKER = condition("BreakerClosed", "False", "UsersVanished", "all users are gone")
HOLDS = condition("Holding", "True", "UnknownUsage", "a/disk cannot be read")


def report(
    policy: Policy | None, generation: int, *said: Mapping[str, Any], at: float = NOW, **other: Any
) -> dict[str, Any]:
    """A node's status after a pass under a policy; `said` are conditions that replace the good ones."""
    conditions = {
        "Ready": condition("Ready", "True"),
        "PolicyApplied": condition("PolicyApplied", "True" if policy else "False"),
        "BreakerClosed": condition("BreakerClosed", "True"),
        "Holding": condition("Holding", "False"),
    } | {item["type"]: dict(item) for item in said}
    status: dict[str, Any] = {"observedGeneration": generation, "heartbeatTime": timestamp(at)}
    status["conditions"] = list(conditions.values())
    if policy is not None:
        status["policy"] = {"name": policy.name, "uid": policy.uid, "generation": policy.generation}
    return status | other


def json_of(wanted: Wanted) -> Spec:
    """The spec as it is sent to the API server, and comes back from there."""
    told = {} if wanted.spec.policy is None else wanted.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    found: Spec = json.loads(json.dumps(told))
    return found


def settings_of(told: Mapping[str, Any]) -> Spec:
    """What of a spec the agent acts by."""
    return {key: value for key, value in told.items() if key not in ("policy", "rollout")}


def removes_no_more(told: NodeSettings | None, before: NodeSettings | None) -> bool:
    """Whether a node that is told this removes and purges nothing that it would not have before.

    Written a second time, from what the settings mean, to compare the controller's rules with.
    """
    if told is None or told.mode is not Mode.ENFORCE or told.suspend:
        return True
    if before is None or before.mode is not Mode.ENFORCE or before.suspend:
        return False
    takes_no_more = told.quarantine.drain is not None or _takes_no_more(told, before)
    return _purges_no_more(told, before) and takes_no_more and _opens_no_more(told, before)


def _purges_no_more(told: NodeSettings, before: NodeSettings) -> bool:
    if before.quarantine.drain is Drain.PURGE:
        return True
    sooner = told.quarantine.retention < before.quarantine.retention or told.interval < before.interval
    return told.quarantine.drain is not Drain.PURGE and not sooner and _waives_no_more(told, before)


def _takes_no_more(told: NodeSettings, before: NodeSettings) -> bool:
    forever = float("inf")
    ages = all(ours >= theirs for ours, theirs in zip(_ages(told), _ages(before), strict=True))
    limits = told.limits.max_files <= before.limits.max_files and told.limits.max_percent <= before.limits.max_percent
    size = (told.limits.max_bytes or forever) <= (before.limits.max_bytes or forever)
    pins = _pinned(told) >= _pinned(before)
    cached = told.cached_only is CachedOnly.KEEP or before.cached_only is CachedOnly.REMOVE
    paced = told.interval >= before.interval
    ages = ages and _evicts_no_more(told, before) and (told.integrity is None or before.integrity is not None)
    rules = (before.quarantine.drain is None, ages, limits, size, pins, cached, paced, _waives_no_more(told, before))
    return all(rules)


def _opens_no_more(told: NodeSettings, before: NodeSettings) -> bool:
    """Whether windows are open only when they were before, in each half hour of a week."""
    ours, theirs = (to_engine(settings, "policy", "node").windows for settings in (told, before))
    week = (1_800_000_000.0 + 1800.0 * half for half in range(7 * 48))
    return ours == theirs or all(is_open(theirs, now) for now in week if is_open(ours, now))


def _evicts_no_more(told: NodeSettings, before: NodeSettings) -> bool:
    ours, theirs = told.pressure, before.pressure
    forever = float("inf")
    marks = ours is None or (
        theirs is not None
        and ours.high_percent >= theirs.high_percent
        and ours.low_percent >= theirs.low_percent
        and ours.minimum_age >= theirs.minimum_age
        and (theirs.ignore_windows or not ours.ignore_windows)
    )
    age, old_age = (to_engine(item, "policy", "node").eviction_age for item in (told, before))
    budget = told.max_cache_bytes is None or (
        told.max_cache_bytes >= (before.max_cache_bytes or forever) and age >= old_age
    )
    return marks and budget


def _ages(settings: NodeSettings) -> list[float]:
    ages = to_engine(settings, "policy", "node").minimum_age
    return [ages.of(kind, used=used) for kind in Kind for used in (True, False)]


def _pinned(settings: NodeSettings) -> frozenset[str]:
    return to_engine(settings, "policy", "node").pinned_images


def _waives_no_more(told: NodeSettings, before: NodeSettings) -> bool:
    forever = float("inf")
    rows = to_engine(before, "policy", "node").acknowledged
    return all(
        any(row.path == old.path and (row.until or forever) <= (old.until or forever) for old in rows)
        for row in to_engine(told, "policy", "node").acknowledged
    )


class Cluster:
    """Objects of a cluster, as values. `reconcile` is what the controller does, `report` what the agents do."""

    def __init__(self, *policies: Policy, nodes: Iterable[Node | str] = (), now: float = NOW) -> None:
        self.now = now
        self.policies = {item.name: item for item in policies}
        self.nodes: dict[str, Node] = {}
        self.agents: set[str] = set()
        self.specs: dict[str, Spec] = {}
        self.generations: dict[str, int] = {}
        self.statuses: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, str] = {}
        self.created: dict[str, float] = {}
        self.rolled_up: dict[str, dict[str, Any]] = {}
        self.ill: dict[str, Mapping[str, Any]] = {}
        """What else than good nodes say of themselves."""
        self.mute: set[str] = set()
        """Nodes that do not report."""
        for item in nodes:
            self.join(item)

    def join(self, item: Node | str) -> None:
        """A Node with an agent's pod."""
        made = node(item) if isinstance(item, str) else item
        self.nodes[made.name] = made
        self.agents.add(made.name)

    def put(self, item: Policy) -> None:
        """Make or replace a policy."""
        self.policies[item.name] = item

    def world(self) -> World:
        """All that a controller knows that has just listed everything."""
        caches = {
            name: cache(
                name,
                spec=spec,
                status=self.statuses.get(name),
                generation=self.generations[name],
                created=self.created[name],
                owner=self.owners[name],
            )
            for name, spec in self.specs.items()
        }
        seen = {name: replace(item, status=self.rolled_up.get(name, {})) for name, item in self.policies.items()}
        return World(seen, dict(self.nodes), caches, frozenset(self.agents))

    def aim(self) -> Desired:
        """What the controller wants now."""
        return desired(self.world(), self.now)

    def reconcile(self, *, only: Iterable[str] | None = None) -> set[str]:
        """Write what the controller wants, of `only` some nodes if that is all it comes to; answers what changed."""
        world = self.world()
        aim = desired(world, self.now)
        changed = set()
        for name, wanted in aim.wanted.items():
            told = json_of(wanted)
            same = self.specs.get(name) == told and self.owners.get(name) == wanted.node.uid
            assert same == is_there(world.caches.get(name), wanted), "what is there is found to be so"
            if same or (only is not None and name not in only):
                continue
            changed.add(name)
            if self.specs.get(name) != told:
                self.generations[name] = self.generations.get(name, 0) + 1
            self.specs[name], self.owners[name] = told, wanted.node.uid
            self.created.setdefault(name, self.now)
        for name in aim.gone:
            for known in (self.specs, self.generations, self.statuses, self.owners, self.created):
                known.pop(name, None)
        return changed

    def report(self, *said: Mapping[str, Any], **other: Any) -> None:
        """Agents make a pass under what they are told, and report: that they are well, or `said`, or their illness."""
        for name in self.specs.keys() - self.mute:
            origin = self.specs[name].get("policy")
            followed = self.policies.get(origin["name"]) if origin else None
            seen = replace(followed, generation=origin["generation"]) if followed and origin else None
            ill = (self.ill[name],) if name in self.ill else said
            self.statuses[name] = report(seen, self.generations[name], *ill, at=self.now, **other)

    def settle(self) -> None:
        """Nodes get their objects, and report; nothing more goes out."""
        for _ in range(2):
            self.reconcile()
            self.report()

    def next_wave(self) -> set[str]:
        """An interval goes by, everybody reports, the controller looks; answers who was told to remove more."""
        self.now += INTERVAL
        self.report()
        moved = {name for name, item in self.aim().wanted.items() if item.more_aggressive}
        self.reconcile()
        self.report()
        return moved

    def roll_out(self) -> None:
        """Let all waves go out."""
        for _ in range(1000):
            if not self.next_wave() and not self.waiting():
                return
        raise AssertionError("the rollout does not end")

    def waiting(self) -> set[str]:
        """Nodes that have been told that they wait."""
        return {name for name, spec in self.specs.items() if spec.get("rollout", {}).get("waiting")}

    def modes(self) -> dict[str, str | None]:
        """What each node has been told."""
        return {name: spec.get("mode") for name, spec in self.specs.items()}

    def roll_up(self) -> dict[str, dict[str, Any]]:
        """The policies' statuses, which are written."""
        made = rollup.statuses(self.world(), self.aim(), self.now)
        self.rolled_up = json.loads(json.dumps(made))
        return self.rolled_up

    def said(self, kind: str, of: str = "compute") -> tuple[str, str, str]:
        """Status, reason and message of a condition of a policy."""
        (found,) = [item for item in self.roll_up()[of]["conditions"] if item["type"] == kind]
        return found["status"], found["reason"], found["message"]
