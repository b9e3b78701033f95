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
from .snapshots import Node, NodeCache, Policy
from .store import World

ORPHANED_AFTER = 24 * 3600.0
"""Seconds without an agent's pod on the node and without a report, after which a node's object goes."""


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
    followers: dict[str, list[str]] = {}
    for name, found in matches.items():
        if found.winner is not None:
            followers.setdefault(found.winner.name, []).append(name)
    wanted = {name: _idle(world.nodes[name]) for name, found in matches.items() if found.winner is None}
    waves: dict[str, Wave] = {}
    for policy_name, names in followers.items():
        policy = world.policies[policy_name]
        made, wave = _for_policy(policy, names, matches, world, now)
        wanted |= made
        if wave is not None:
            waves[policy_name] = wave
    return Desired(wanted, gone, waves)


def _should_go(cache: NodeCache, world: World, now: float) -> bool:
    """Whether a node's object has outlived its node, or its agent."""
    if cache.name not in world.nodes:
        return True
    last_sign = max(cache.said.heartbeat or 0.0, cache.created)
    return cache.name not in world.agents and now - last_sign > ORPHANED_AFTER


def _idle(node: Node) -> Wanted:
    return Wanted(node, Match(), NodeSpec(), more_aggressive=False)


def _for_policy(
    policy: Policy, names: Iterable[str], matches: Mapping[str, Match], world: World, now: float
) -> tuple[dict[str, Wanted], Wave | None]:
    """What the nodes of one policy should be told now."""
    names = list(names)
    full = {name: _settings(policy, name) for name in names}
    current = {name: _current(world.caches.get(name)) for name in names}
    queue = [name for name in names if caution.is_more_aggressive(current[name], full[name])]
    wave = None
    if queue:
        ready = frozenset(name for name in names if world.nodes[name].ready)
        wave = rollout.wave(policy, [world.caches.get(name) for name in names], queue, ready, now)
    waiting = set(queue) - (wave.moved if wave is not None else frozenset())
    made = {}
    for name in names:
        settings = caution.safer_of(current[name], full[name]) if name in waiting else dict(full[name])
        moved = wave is not None and name in wave.moved
        stand = _stand(policy, current[name], moved=moved, waiting=name in waiting, now=now)
        origin = Origin.model_construct(name=policy.name, uid=policy.uid, generation=policy.generation)
        spec = NodeSpec.model_construct(**{**settings, "policy": origin, "rollout": stand})
        made[name] = Wanted(world.nodes[name], matches[name], spec, more_aggressive=moved)
    return made, wave


def _current(cache: NodeCache | None) -> NodeSpec | None:
    """What a node has been told; None: nothing."""
    spec = cache.spec if cache is not None else None
    return spec if spec is not None and spec.policy is not None and spec.mode is not None else None


def _settings(policy: Policy, node: str) -> NodeSettings:
    """All settings of a policy, as one node gets them: without the acknowledged paths of others."""
    given: dict[str, Any] = {name: getattr(policy.spec, name) for name in NodeSettings.model_fields}
    given["acknowledged"] = tuple(row for row in given["acknowledged"] if row.node in (None, node))
    return NodeSettings.model_construct(**given)


def _stand(policy: Policy, current: NodeSpec | None, *, moved: bool, waiting: bool, now: float) -> NodeRollout | None:
    """Where a node stands in the rollout; what a wave of this policy did to it stays written."""
    before = current.rollout if current is not None and current.policy is not None else None
    ours = before if current is not None and current.policy is not None and current.policy.uid == policy.uid else None
    if moved:
        return NodeRollout.model_construct(moved_at=moment(now), generation=policy.generation, waiting=False)
    moved_at = ours.moved_at if ours is not None else None
    generation = ours.generation if ours is not None else None
    if not waiting and moved_at is None:
        return None
    return NodeRollout.model_construct(moved_at=moved_at, generation=generation, waiting=waiting)
