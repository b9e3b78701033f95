"""How a change that makes nodes more aggressive reaches them: in waves, which stop on trouble. Pure.

Nothing of it is kept anywhere but in the nodes' own objects (`spec.rollout`): a controller that starts in the middle,
or a second one, comes to the same answer.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .snapshots import NodeCache, Policy

STALE_AFTER = 2 * 3600.0
"""Seconds without a heartbeat: agents write one at least every half hour."""
_SAME_ROLLOUT = 2.0
"""Waves that are not further apart than so many intervals belong to one rollout: only trouble keeps them apart."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Who may be told more now, and why not the others."""

    moved: frozenset[str] = frozenset()
    stopped: str | None = None
    """The trouble that stops the rollout."""
    next_at: float | None = None
    """When the next nodes may be told, Unix seconds, if nothing stops that."""


def wave(
    policy: Policy,
    followers: Mapping[str, NodeCache | None],
    waiting: Iterable[str],
    ready: Collection[str],
    now: float,
) -> Wave:
    """Choose among the `waiting` nodes of a policy.

    `followers` are the objects of all nodes that follow it, by name (None: not made yet), `ready` the names of the
    nodes that are Ready themselves: one that is down is not waited for.
    """
    if policy.spec is None:
        return Wave()
    queue = set(waiting)
    there = [cache for cache in followers.values() if cache is not None]
    told = _told_more(policy, there, now, reach=_SAME_ROLLOUT * policy.spec.interval)
    if (trouble := _first_trouble(told)) is not None:
        return Wave(stopped=trouble)
    interval = policy.spec.interval
    lately = {
        cache.name: at for cache in there if (at := _moved_at(policy, cache)) is not None and abs(now - at) < interval
    }
    room = policy.spec.rollout.most(len(followers)) - len(lately)
    if room <= 0 and not queue & lately.keys():
        return Wave(next_at=min(lately.values()) + interval)
    if (silent := _first_silent(told, ready)) is not None:
        return Wave(stopped=f"{silent} has not reported since it was told")
    unwell = {name: why for name in queue if (why := _unwell(followers[name], ready, now)) is not None}
    able = sorted(queue - unwell.keys(), key=lambda name: _place(policy, followers[name], name, ready))
    if not able and unwell:
        name, why = min(unwell.items())
        more = f", and {len(unwell) - 1} more are not well either" if len(unwell) > 1 else ""
        return Wave(stopped=f"{name} {why}{more}")
    again = [name for name in able if name in lately]  # who was told lately takes no place of others
    others = [name for name in able if name not in lately]
    moved = frozenset([*again, *others[: max(0, room)]])
    next_at = min([*lately.values(), now]) + interval
    return Wave(moved, next_at=next_at if len(moved) < len(able) else None)


def _told_more(policy: Policy, there: Sequence[NodeCache], now: float, *, reach: float) -> list[NodeCache]:
    """The nodes that this rollout has told more, by name; those that earlier ones told have no say in it.

    An edit of the policy in the middle goes on with the same rollout, whatever it does: trouble is not forgotten for
    it. Waves further apart than `reach` seconds belong to different ones.
    """
    moved = [(at, cache) for cache in there if (at := _moved_at(policy, cache)) is not None]
    goes_on = any(_waits(policy, cache) for cache in there)
    before = None if goes_on else now
    told = []
    for at, cache in sorted(moved, key=lambda item: -item[0]):
        if at <= now:  # a clock that was ahead of ours says nothing about the others
            if before is not None and before - at > reach:
                break
            before = at
        told.append(cache)
    return sorted(told, key=lambda cache: cache.name)


def _first_trouble(told: Iterable[NodeCache]) -> str | None:
    """What is wrong with a node that has been told more."""
    for cache in told:
        if cache.said.breaker is not None:
            return f"the breaker of {cache.name} is open: {cache.said.breaker}"
        if cache.said.failing is not None:
            return f"{cache.name} fails: {cache.said.failing}"
    return None


def _first_silent(told: Iterable[NodeCache], ready: Collection[str]) -> str | None:
    """A node that has been told more and has not said what came of it.

    One that has never said anything is not waited for: its agent has yet to come, and `Missing` tells of it.
    """
    heard = (cache for cache in told if cache.said.heartbeat is not None)
    silent = (cache.name for cache in heard if cache.said.observed_generation != cache.generation)
    return next((name for name in silent if name in ready), None)


def _unwell(cache: NodeCache | None, ready: Collection[str], now: float) -> str | None:
    """Why a node is told nothing more for now: it would only stop the others."""
    if cache is None:
        return None
    if cache.said.breaker is not None:
        return "waits until its breaker is closed"
    if cache.said.failing is not None:
        return "waits until it does not fail"
    silent = now - max(cache.said.heartbeat or 0.0, cache.created) > STALE_AFTER
    return "waits until it reports" if silent and cache.name in ready else None


def _waits(policy: Policy, cache: NodeCache) -> bool:
    """Whether a node has been told that it waits in a rollout of this policy."""
    spec = cache.spec
    return (
        spec is not None
        and spec.policy is not None
        and spec.policy.uid == policy.uid
        and spec.rollout is not None
        and spec.rollout.waiting
    )


def _moved_at(policy: Policy, cache: NodeCache) -> float | None:
    """When a wave of this policy moved the node."""
    spec = cache.spec
    if spec is None or spec.policy is None or spec.policy.uid != policy.uid or spec.rollout is None:
        return None
    return None if spec.rollout.moved_at is None else spec.rollout.moved_at.timestamp()


def _place(policy: Policy, cache: NodeCache | None, name: str, ready: Collection[str]) -> tuple[bool, bytes]:
    """A node's place in the queue: the same for everybody, and not rack by rack as names would have it.

    Nodes that can say what comes of it go before those that are down, or have never reported.
    """
    mute = cache is None or cache.said.heartbeat is None or name not in ready
    return mute, hashlib.sha256(f"{policy.uid}/{name}".encode()).digest()
