"""How a change that makes nodes more aggressive reaches them: in waves, which stop on trouble. Pure.

Nothing of it is kept anywhere but in the nodes' own objects (`spec.rollout`): a controller that starts in the middle,
or a second one, comes to the same answer.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .snapshots import NodeCache, Policy


@dataclass(frozen=True, slots=True)
class Wave:
    """Who may be told more now, and why not the others."""

    moved: frozenset[str] = frozenset()
    stopped: str | None = None
    """The trouble that stops the rollout."""
    next_at: float | None = None
    """When the next nodes may be told, Unix seconds, if nothing stops that."""


def wave(
    policy: Policy, followers: Sequence[NodeCache | None], waiting: Iterable[str], ready: frozenset[str], now: float
) -> Wave:
    """Choose among the `waiting` nodes of a policy.

    `followers` are the objects of all nodes that follow it (None: not made yet), `ready` the names of the nodes that
    are Ready themselves: one that is down is not waited for.
    """
    if policy.spec is None:
        return Wave()
    there = [cache for cache in followers if cache is not None]
    if (trouble := _trouble(policy, there, ready)) is not None:
        return Wave(stopped=trouble)
    lately = [at for cache in there if (at := _moved_at(policy, cache)) is not None and now - at < policy.spec.interval]
    room = policy.spec.rollout.most(len(followers)) - len(lately)
    queue = sorted(waiting, key=lambda name: _place(policy, name))
    moved = frozenset(queue[: max(0, room)])
    next_at = min(lately) + policy.spec.interval if lately else now + policy.spec.interval
    return Wave(moved, next_at=next_at if len(moved) < len(queue) else None)


def _trouble(policy: Policy, there: Iterable[NodeCache], ready: frozenset[str]) -> str | None:
    """What is wrong with a node that this rollout has told more."""
    for cache in sorted(there, key=lambda item: item.name):
        if _moved_at(policy, cache) is None or not _is_of_this(policy, cache):
            continue
        if cache.said.breaker is not None:
            return f"the breaker of {cache.name} is open: {cache.said.breaker}"
        if cache.said.failing is not None:
            return f"{cache.name} fails: {cache.said.failing}"
        told_and_silent = cache.said.heartbeat is not None and cache.said.observed_generation != cache.generation
        if told_and_silent and cache.name in ready:
            return f"{cache.name} has not reported since it was told"
    return None


def _is_of_this(policy: Policy, cache: NodeCache) -> bool:
    return (
        cache.spec is not None and cache.spec.rollout is not None and cache.spec.rollout.generation == policy.generation
    )


def _moved_at(policy: Policy, cache: NodeCache) -> float | None:
    """When a wave of this policy moved the node."""
    spec = cache.spec
    if spec is None or spec.policy is None or spec.policy.uid != policy.uid or spec.rollout is None:
        return None
    return None if spec.rollout.moved_at is None else spec.rollout.moved_at.timestamp()


def _place(policy: Policy, name: str) -> bytes:
    """A node's place in the queue: the same for everybody, and not rack by rack as names would have it."""
    return hashlib.sha256(f"{policy.uid}/{name}".encode()).digest()
