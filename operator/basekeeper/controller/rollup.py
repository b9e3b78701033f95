"""What every policy's status should be: the nodes that follow it, counted, summed and told in rows. Pure."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from basekeeper.cache.amounts import format_size, some
from basekeeper.cache.moments import timestamp
from basekeeper.cache.settings import Mode
from basekeeper.resources.conditions import Condition, PolicyCondition, Said, Status, Why, settle, shortened
from basekeeper.resources.fields import MOST_BYTES, moment
from basekeeper.resources.image_cache_policy import (
    MAX_DISAGREEMENTS,
    MAX_ROWS,
    MAX_SUSPECTS,
    NodeState,
    PolicyStatus,
)

from . import agreement, caution, matching
from .agreement import Comparison, Disagreement
from .desired import Desired, Wanted
from .rollout import STALE_AFTER, Wave
from .snapshots import NodeCache, Policy
from .store import World

MISSING_IS_TROUBLE_AFTER = 600.0
"""Seconds in which a new node's first report may be on its way."""
ENOUGH_PERCENT = 95
_MOST_FILES = 2**31 - 1
"""As much as the status can hold, like `MOST_BYTES`: a node that tells nonsense must not hide all others."""
_ORDER = {state: place for place, state in enumerate(NodeState)}
_TROUBLE = (NodeState.FAILING, NodeState.BREAKER_OPEN, NodeState.MISSING, NodeState.STALE)
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Follower:
    """A node that follows the policy."""

    wanted: Wanted
    cache: NodeCache | None
    state: NodeState
    current: bool
    in_trouble: bool

    @property
    def name(self) -> str:
        return self.wanted.node.name


def statuses(world: World, desired: Desired, now: float) -> dict[str, dict[str, Any]]:
    """The status of each policy by its name, at `now`, Unix seconds."""
    followers: dict[str, list[_Follower]] = {name: [] for name in world.policies}
    losers: dict[str, list[Wanted]] = {name: [] for name in world.policies}
    for name, wanted in desired.wanted.items():
        policy = wanted.match.winner
        if policy is not None and policy.spec is not None:
            followers[policy.name].append(_follower(policy, wanted, world.caches.get(name), now))
        for loser in wanted.match.losers:
            losers[loser.name].append(wanted)
    nodes = {name: frozenset(item.name for item in found) for name, found in followers.items()}
    everybody = frozenset().union(*nodes.values())
    compared = agreement.compare(world.caches)
    return {
        name: _status(
            policy,
            followers[name],
            losers[name],
            desired.waves.get(name),
            compared.told_to(nodes[name], everybody),
            now,
        )
        for name, policy in world.policies.items()
    }


def states(world: World, desired: Desired, now: float) -> Counter[NodeState]:
    """How many nodes that follow a policy are in each state: all of them, also where a status has no room for rows."""
    found: Counter[NodeState] = Counter()
    for name, wanted in desired.wanted.items():
        policy = wanted.match.winner
        if policy is not None and policy.spec is not None:
            found[_follower(policy, wanted, world.caches.get(name), now).state] += 1
    return found


def _follower(policy: Policy, wanted: Wanted, cache: NodeCache | None, now: float) -> _Follower:
    current = cache is not None and _is_current(policy, wanted, cache)
    state = _state(wanted, cache, now, current=current)
    young = cache is None or now - cache.created < MISSING_IS_TROUBLE_AFTER
    trouble = state in _TROUBLE and not (state is NodeState.MISSING and young)
    return _Follower(wanted, cache, state, current, trouble)


def _is_current(policy: Policy, wanted: Wanted, cache: NodeCache) -> bool:
    """Whether the node's last pass ran under this generation of the policy, and under all of it."""
    told = cache.spec is not None and cache.spec.policy == wanted.spec.policy and not wanted.waiting
    said = cache.said
    ran = said.policy == (policy.uid, policy.generation) and said.observed_generation == cache.generation
    return told and ran and said.applied and not _is_waiting(cache)


def _is_waiting(cache: NodeCache) -> bool:
    return cache.spec is not None and cache.spec.rollout is not None and cache.spec.rollout.waiting


def _state(wanted: Wanted, cache: NodeCache | None, now: float, *, current: bool) -> NodeState:
    if cache is None or cache.said.heartbeat is None:
        return NodeState.MISSING
    said = cache.said
    if now - cache.said.heartbeat > STALE_AFTER:
        return NodeState.STALE  # whatever it said: nobody knows whether it still holds
    if said.failing is not None:
        return NodeState.FAILING
    if said.breaker is not None:
        return NodeState.BREAKER_OPEN
    if wanted.waiting:
        return NodeState.WAITING
    if not current:
        return NodeState.PENDING
    return NodeState.HOLDING if said.holding is not None else NodeState.CURRENT


def _status(
    policy: Policy,
    followers: Sequence[_Follower],
    losers: Sequence[Wanted],
    wave: Wave | None,
    compared: Comparison,
    now: float,
) -> dict[str, Any]:
    rows = sorted(followers, key=lambda item: (_ORDER[item.state], item.name))
    caches = [item.cache for item in followers if item.cache is not None]
    totals = {
        "cacheBytes": _sum(caches, "bytes", MOST_BYTES),
        "cacheFiles": _sum(caches, "files", _MOST_FILES),
        "reclaimableBytes": _sum(caches, "reclaimableBytes", MOST_BYTES),
        "quarantinedBytes": _sum(caches, "quarantinedBytes", MOST_BYTES),
        "quarantinedFiles": _sum(caches, "quarantinedFiles", _MOST_FILES),
        "reclaimedBytes": _sum(caches, "reclaimedBytes", MOST_BYTES),
        "corruptFiles": min(_MOST_FILES, sum(cache.said.corrupt_files for cache in caches)),
    }
    said = [
        _ready(policy, followers),
        _enforcing(policy, followers),
        _degraded(followers),
        _rolling_out(followers, wave),
        _overridden(policy, losers),
        _caches_agree(compared),
    ]
    conditions = settle(said, _known(policy.status), policy.generation, moment(now))
    status = {
        "observedGeneration": policy.generation,
        "conditions": [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in conditions],
        "nodes": _counts(followers, losers),
        "totals": totals,
        "reclaimable": format_size(totals["reclaimableBytes"]),
        "nodeStatuses": [_row(item) for item in rows[:MAX_ROWS]],
        "truncated": len(rows) > MAX_ROWS,
        "disagreements": [_disagreement(item) for item in compared.disagreements[:MAX_DISAGREEMENTS]],
    }
    PolicyStatus.model_validate(status)  # what the server would refuse must fail here, where it can be found
    return status


def _known(status: Mapping[str, Any]) -> Iterator[Condition]:
    """The conditions that are there, but for what somebody else left and cannot be read."""
    for item in status.get("conditions") or ():
        with contextlib.suppress(ValidationError):
            yield Condition.model_validate(item)


def _sum(caches: Iterable[NodeCache], what: str, most: int) -> int:
    return min(most, sum(cache.said.cache.get(what, 0) for cache in caches))


def _counts(followers: Sequence[_Follower], losers: Sequence[Wanted]) -> dict[str, int]:
    saids = [item.cache.said for item in followers if item.cache is not None]
    seen = Counter(item.state for item in followers)
    stale, missing = seen[NodeState.STALE], seen[NodeState.MISSING]
    return {
        "matched": len(followers),
        "current": sum(item.current for item in followers),
        "reporting": len(followers) - stale - missing,
        "stale": stale,
        "missing": missing,
        "holding": sum(said.holding is not None for said in saids),
        "failing": seen[NodeState.FAILING] + seen[NodeState.BREAKER_OPEN],
        "waiting": sum(item.wanted.waiting for item in followers),
        "overridden": len(losers),
    }


def _row(item: _Follower) -> dict[str, Any]:
    told: dict[str, Any] = {"node": item.name, "state": item.state.value}
    if item.wanted.spec.mode is not None:
        told["mode"] = item.wanted.spec.mode.value
    if item.cache is None:
        return told
    said = item.cache.said
    told |= {
        "cacheBytes": said.cache.get("bytes", 0),
        "reclaimableBytes": said.cache.get("reclaimableBytes", 0),
        "quarantinedBytes": said.cache.get("quarantinedBytes", 0),
        "reclaimedBytes": said.cache.get("reclaimedBytes", 0),
        "heldFiles": min(_MOST_FILES, said.held_files),
    }
    if said.outcome is not None:
        told["outcome"] = said.outcome
    if said.last_pass is not None:
        told["lastPassTime"] = timestamp(said.last_pass)
    if (message := _matter(item.state, item.cache)) is not None:
        told["message"] = shortened(message, 400)
    return told


def _matter(state: NodeState, cache: NodeCache) -> str | None:
    said = cache.said
    matter = said.failing or said.breaker or said.holding
    if state is NodeState.STALE and said.heartbeat is not None:
        return f"silent since {timestamp(said.heartbeat)}" + (f"; it said: {matter}" if matter else "")
    return matter


# --- conditions ----------------------------------------------------------------------------------------------------


def _ready(policy: Policy, followers: Sequence[_Follower]) -> Said:
    kind = PolicyCondition.READY
    if policy.problem is not None:
        return Said(kind, Status.FALSE, Why.NOT_ACCEPTED, policy.problem)
    asked = [item for item in followers if item.wanted.node.ready]
    if not asked:
        return Said(kind, Status.TRUE, Why.NO_NODES, "no node that is Ready follows the policy")
    current = sum(item.current for item in asked)
    message = f"{current} of {_nodes(len(asked))} run generation {policy.generation}"
    if 100 * current >= ENOUGH_PERCENT * len(asked):
        return Said(kind, Status.TRUE, Why.ALL_NODES_CURRENT, message)
    others = [item.name for item in asked if not item.current]
    waiting = any(item.wanted.waiting for item in asked)
    why = Why.IN_PROGRESS if waiting else Why.NODES_PENDING
    return Said(kind, Status.FALSE, why, f"{message}; not yet: {_some(others)}")


def _enforcing(policy: Policy, followers: Sequence[_Follower]) -> Said:
    kind = PolicyCondition.ENFORCING
    spec = policy.spec
    if spec is None:
        return Said(kind, Status.FALSE, Why.NOT_ACCEPTED, "the policy is not accepted, so no node follows it")
    if spec.mode is Mode.AUDIT:
        return Said(kind, Status.FALSE, Why.AUDIT, "mode: Audit decides and reports, and removes nothing")
    if spec.suspend:
        return Said(kind, Status.FALSE, Why.SUSPENDED, "suspend: true stops removals and purges")
    if spec.quarantine.drain is not None:
        return Said(kind, Status.FALSE, Why.DRAINING, f"quarantine.drain: {spec.quarantine.drain}; nothing is removed")
    told = [item for item in followers if caution.acts(item.wanted.spec)]  # who waits may act as before
    if not told:
        why = Why.IN_PROGRESS if followers else Why.NO_NODES
        return Said(kind, Status.FALSE, why, "no node has been told to remove anything")
    return Said(kind, Status.TRUE, Why.ENFORCE, f"{len(told)} of {_nodes(len(followers))} remove what may go")


def _degraded(followers: Sequence[_Follower]) -> Said:
    kind = PolicyCondition.DEGRADED
    whys = {
        NodeState.FAILING: Why.NODES_FAILING,
        NodeState.BREAKER_OPEN: Why.BREAKER_OPEN,
        NodeState.MISSING: Why.NODES_MISSING,
        NodeState.STALE: Why.NODES_STALE,
    }
    troubled = sorted((item for item in followers if item.in_trouble), key=lambda item: (_ORDER[item.state], item.name))
    if not troubled:
        return Said(kind, Status.FALSE, Why.AS_EXPECTED, "no node is in trouble")
    message = "; ".join(
        f"{state}: {_some(names)}"
        for state in _TROUBLE
        if (names := [item.name for item in troubled if item.state is state])
    )
    return Said(kind, Status.TRUE, whys[troubled[0].state], message)


def _rolling_out(followers: Sequence[_Follower], wave: Wave | None) -> Said:
    kind = PolicyCondition.ROLLING_OUT
    waiting = [item for item in followers if item.wanted.waiting]
    if not waiting:
        return Said(kind, Status.FALSE, Why.COMPLETE, "every node has been told")
    message = f"{len(waiting)} of {_nodes(len(followers))} wait for their wave"
    if wave is not None and wave.stopped is not None:
        return Said(kind, Status.TRUE, Why.STOPPED, f"{message}: {wave.stopped}")
    when = f"; the next one is at {timestamp(wave.next_at)}" if wave is not None and wave.next_at is not None else ""
    return Said(kind, Status.TRUE, Why.IN_PROGRESS, message + when)


def _overridden(policy: Policy, losers: Sequence[Wanted]) -> Said:
    kind = PolicyCondition.OVERRIDDEN
    winners: dict[str, tuple[Policy, int]] = {}
    for item in losers:
        winner = item.match.winner
        if winner is not None:
            winners[winner.name] = winner, winners.get(winner.name, (winner, 0))[1] + 1
    if not winners:
        return Said(kind, Status.FALSE, Why.NOT_OVERRIDDEN, "no other policy takes a node of this one")
    chief, _ = max(winners.values(), key=lambda item: (item[1], item[0].name))
    message = "; ".join(_taken(by, count) for _, (by, count) in sorted(winners.items()))
    reason = matching.why(chief, policy)
    words = {
        Why.HIGHER_PRIORITY: "its priority is higher",
        Why.OLDER_POLICY: "priorities are equal and it is older",
        Why.FIRST_NAME: "priorities and ages are equal and its name comes first",
    }
    return Said(kind, Status.TRUE, reason, f"{message} ({chief.name}: {words[reason]})")


def _caches_agree(compared: Comparison) -> Said:
    kind = PolicyCondition.CACHES_AGREE
    if not compared.bases:
        message = "no base of its nodes has a digest on a second node; spec.integrity makes nodes take digests"
        return Said(kind, Status.UNKNOWN, Why.NOTHING_TO_COMPARE, message)
    ours = compared.disagreements
    if suspect := [item for item in ours if item.suspects]:
        told = [f"{item.name} on {_some(item.suspects)} differs from {item.agreeing} that agree" for item in suspect]
        return Said(kind, Status.FALSE, Why.SUSPECT_CONTENT, _first(told))
    if undecided := [item for item in ours if item.undecided]:
        told = [f"{item.name} differs between {_some(item.undecided)}, and no two agree" for item in undecided]
        return Said(kind, Status.UNKNOWN, Why.UNDECIDED, _first(told))
    message = f"of {len(compared.bases)} bases that other nodes have too, no copy is suspect"
    if ours:
        told = [f"{item.name} has {item.variants} contents, as of other conversions" for item in ours]
        return Said(kind, Status.TRUE, Why.VARIANTS, f"{message}; {_first(told)}")
    return Said(kind, Status.TRUE, Why.SAME_CONTENT, message)


def _first(told: Sequence[str]) -> str:
    return "; ".join(told[:_NAMED]) + (f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else "")


def _disagreement(item: Disagreement) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind.value,
        "suspects": list(item.suspects[:MAX_SUSPECTS]),
        "undecided": list(item.undecided[:MAX_SUSPECTS]),
        "agreeing": item.agreeing,
        "variants": item.variants,
    }


def _taken(winner: Policy, count: int) -> str:
    follow = "1 node follows" if count == 1 else f"{count} nodes follow"
    return f"{follow} {winner.name}" if winner.spec else f"{follow} none, because {winner.name} is not accepted"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _some(names: Sequence[str]) -> str:
    return some(names, _NAMED)


def unchanged(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a policy's status says already what it should; conditions that others add are theirs."""
    ours = {item["type"]: item for item in wanted["conditions"]}
    found = {item.get("type"): item for item in there.get("conditions") or ()}
    same = all(found.get(kind) == item for kind, item in ours.items())
    return same and {**there, "conditions": None} == {**wanted, "conditions": None}
