"""What every `NodeImageCache` should be: its owner, its spec, or that it should not be. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from basekeeper.resources.fields import moment
from basekeeper.resources.node_image_cache import NodeRollout, NodeSpec, Origin
from basekeeper.resources.node_settings import NodeSettings

from . import caution, rollout
from .matching import Match, match
from .rollout import Wave
from .sharing import sharers
from .snapshots import Node, NodeCache, Policy
from .store import World

ORPHANED_AFTER = 24 * 3600.0
"""Seconds without an agent's pod on the node and without a report, after which a node's object goes."""
_IDLE = NodeSpec()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one node's object should be."""

    node: Node
    match: Match
    spec: NodeSpec
    more_aggressive: bool
    """A wave brings it: what is only safer goes first."""

    @property
    def waiting(self) -> bool:
        """Whether the node waits for its wave."""
        return self.spec.rollout is not None and self.spec.rollout.waiting


@dataclass(frozen=True, slots=True)
class Desired:
    """What everything should be."""

    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    """Nodes whose objects should go."""
    waves: Mapping[str, Wave] = field(default_factory=dict)
    """By policy name, where nodes wait."""


def desired(world: World, now: float) -> Desired:
    """What everything should be at `now`, Unix seconds."""
    gone = frozenset(name for name, cache in world.caches.items() if _should_go(cache, world, now))
    kept = [name for name in world.caches.keys() | world.agents if name in world.nodes and name not in gone]
    policies = list(world.policies.values())
    matches = {name: match(world.nodes[name], policies) for name in sorted(kept)}
    wanted: dict[str, Wanted] = {}
    followers: dict[str, list[str]] = {}
    for name, found in matches.items():
        if found.winner is None or found.winner.spec is None:
            wanted[name] = Wanted(world.nodes[name], found, _IDLE, more_aggressive=False)
        else:
            followers.setdefault(found.winner.name, []).append(name)
    waves: dict[str, Wave] = {}
    sharing = sharers(world.caches)
    for policy_name, names in followers.items():
        policy = world.policies[policy_name]
        told, wave = _Orders(policy, {name: world.caches.get(name) for name in names}, sharing).given(world, now)
        for name, (spec, moved) in told.items():
            wanted[name] = Wanted(world.nodes[name], matches[name], spec, more_aggressive=moved)
        if wave is not None:
            waves[policy_name] = wave
    return Desired(wanted, gone, waves)


def is_there(cache: NodeCache | None, wanted: Wanted) -> bool:
    """Whether a node's object is already what it should be."""
    if cache is None or cache.spec is None or wanted.node.uid not in cache.owners:
        return False
    if wanted.spec.policy is None:
        return cache.spec.policy is None
    return cache.spec == wanted.spec


def _should_go(cache: NodeCache, world: World, now: float) -> bool:
    """Whether a node's object has outlived its node, or its agent."""
    if cache.name not in world.nodes:
        return True
    last_sign = max(cache.said.heartbeat or 0.0, cache.created)
    return cache.name not in world.agents and now - last_sign > ORPHANED_AFTER


class _Orders:
    """What the nodes of one policy should be told. Nodes that have been told the same share one answer."""

    def __init__(
        self, policy: Policy, caches: Mapping[str, NodeCache | None], sharing: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._policy = policy
        self._caches = caches
        self._sharing = sharing
        self._current = {name: _current(cache) for name, cache in caches.items()}
        self._full = _by_node(policy, caches)
        self._bolder: dict[tuple[int, int], bool] = {}
        self._specs: dict[tuple[int, int, bool, bool, tuple[str, ...]], NodeSpec] = {}

    def given(self, world: World, now: float) -> tuple[dict[str, tuple[NodeSpec, bool]], Wave | None]:
        """Each node's spec, and whether a wave brings it; and the wave, where nodes wait for one."""
        queue = {name for name in self._caches if self._is_more_aggressive(name)}
        wave = None
        if queue:
            ready = {name for name in self._caches if world.nodes[name].ready}
            wave = rollout.wave(self._policy, self._caches, queue, ready, now)
        moved = wave.moved if wave is not None else frozenset()
        told = {
            name: (self._spec(name, now, moved=name in moved, waits=name in queue and name not in moved), name in moved)
            for name in self._caches
        }
        return told, wave

    def _is_more_aggressive(self, name: str) -> bool:
        current, full = self._current[name], self._full[name]
        key = id(current), id(full)
        if key not in self._bolder:
            self._bolder[key] = caution.is_more_aggressive(current, full)
        return self._bolder[key] or caution.ends_sharing(current, full, self._sharing.get(name, ()))

    def _spec(self, name: str, now: float, *, moved: bool, waits: bool) -> NodeSpec:
        current, full = self._current[name], self._full[name]
        before = current.shared_storage_with if current is not None else ()
        shared = caution.sharers_to_tell(before, self._sharing.get(name, ()), waits=waits)
        key = id(current), id(full), moved, waits, shared
        if key not in self._specs:
            settings = caution.safer_of(current if waits else full, full)
            stand = _stand(self._policy, current, moved=moved, waits=waits, now=now)
            policy = self._policy
            origin = Origin.model_construct(name=policy.name, uid=policy.uid, generation=policy.generation)
            told = {**settings, "policy": origin, "rollout": stand, "shared_storage_with": shared}
            self._specs[key] = NodeSpec.model_construct(**told)
        return self._specs[key]


def _current(cache: NodeCache | None) -> NodeSpec | None:
    """What a node has been told; None: nothing."""
    spec = cache.spec if cache is not None else None
    return spec if spec is not None and spec.policy is not None and spec.mode is not None else None


def _by_node(policy: Policy, names: Iterable[str]) -> dict[str, NodeSettings]:
    """All settings of a policy, as each node gets them: without the acknowledged paths and the trips of others."""
    given: dict[str, Any] = {name: getattr(policy.spec, name) for name in NodeSettings.model_fields}
    rows, resets = given["acknowledged"], given["reset_trips"]
    common = {"acknowledged": tuple(row for row in rows if row.node is None), "reset_trips": ()}
    everybodys = NodeSettings.model_construct(**{**given, **common})
    special = {row.node for row in (*rows, *resets)}
    return {name: everybodys if name not in special else _for_node(given, name) for name in names}


def _for_node(given: Mapping[str, Any], node: str) -> NodeSettings:
    rows = tuple(row for row in given["acknowledged"] if row.node in (None, node))
    resets = tuple(row for row in given["reset_trips"] if row.node == node)
    return NodeSettings.model_construct(**{**given, "acknowledged": rows, "reset_trips": resets})


def _stand(policy: Policy, current: NodeSpec | None, *, moved: bool, waits: bool, now: float) -> NodeRollout | None:
    """Where a node stands in the rollout; what a wave of this policy did to it stays written."""
    if moved:
        return NodeRollout.model_construct(moved_at=moment(now), generation=policy.generation, waiting=False)
    ours = current is not None and current.policy is not None and current.policy.uid == policy.uid
    before = current.rollout if current is not None and ours else None
    moved_at = before.moved_at if before is not None else None
    if not waits and moved_at is None:
        return None
    generation = before.generation if before is not None else None
    return NodeRollout.model_construct(moved_at=moved_at, generation=generation, waiting=waits)
