"""The hosts that share one cache: who must answer, what they said, and what follows from it. Pure.

A host that is known and has not answered, or whose answer cannot be understood, is *unknown*: it holds every removal
and purge. What it said before still counts as evidence of use, never as evidence of disuse.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from .amounts import some
from .evidence import Agreed, Group, Inventory, Kept, Shared, Source, Unknown, Usage, User
from .host_evidence import HostEvidence
from .memory import LastSigns
from .settings import HOUR, MINUTE, Mode, Policy, SharedStorageMode
from .verdicts import Reason

MOST_SKEW = 5 * MINUTE
"""Seconds that a host's clock may differ from the file server's."""
GONE_AFTER = 25 * HOUR
"""Seconds without a sign of life after which a retired host is gone, whatever it did before; nova counts 24 hours."""
ANSWERS_WITHIN = MINUTE
"""Seconds in which an agent that is alive publishes anew after a round was opened: several of its looks for one."""
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Round:
    """A question to all hosts, opened by the one that leads. Its number grows with each, and is the fencing token."""

    number: int
    host: str
    """The leader, by nova's name."""
    instance: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What lies on the share in the name of one host."""

    host: str
    evidence: HostEvidence | None
    problem: str = ""
    """Why it cannot be understood: the end of a sentence."""
    at: float = 0.0
    """When it was written, Unix seconds by the file server's clock."""
    told: str = ""
    """The same for people."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """The share as one host finds it before a look."""

    own: str
    """nova's name of this host."""
    heard: tuple[Heard, ...] = ()
    """What lies there in the name of other hosts."""
    round: Round | None = None
    """The latest one; None: there has been none, or it cannot be read."""
    skew: float = 0.0
    """Seconds that the file server's clock is ahead of this host's."""
    problem: str | None = None
    """Why this host cannot take part, in one sentence; it holds."""
    leads: bool = False
    """This host opened the round, and its own look begins after the answers."""
    acts: bool = False
    """This host is to remove or purge, so that the others' objections count."""
    agreed: Agreed | None = None
    """What an earlier round let go, where this one acts: nothing else may go."""
    retired: Mapping[str, LastSigns] = field(default_factory=dict)
    """Hosts, in lower case, that an earlier pass met as retired already."""

    @property
    def margin(self) -> float:
        """Seconds by which ages are reckoned less: the largest difference of any clock."""
        skews = [abs(one.evidence.skew) for one in self.heard if one.evidence is not None]
        return min(max([abs(self.skew), *skews]), MOST_SKEW)


def merged(usage: Usage, inventory: Inventory, hearing: Hearing, policy: Policy, now: float) -> Usage:
    """Usage with what the other hosts published; `now` is in Unix seconds, by the file server's clock."""
    roll = _call(hearing, usage, policy, now)
    everyone = (*roll.answered, *roll.earlier)
    device = device_of(inventory)
    number = hearing.round.number if hearing.round is not None else 0
    leader = hearing.round.host if hearing.round is not None else None
    # Which directories belong to a domain changes all the time: only what was true in this round counts.
    claimed = _claimed(roll.answered)
    spawns = (*usage.spawns, *(spawn for found in everyone for spawn in found.spawns))
    passes = [usage.nova_pass_at, *(found.nova_pass_at for found in everyone)]
    return replace(
        usage,
        by_name=_joined(usage.by_name, *({n: _of(u, e) for n, u in e.used.items()} for e in everyone)),
        by_inode=_joined(
            usage.by_inode, *({(device, n): _of(u, e) for n, u in e.used_files.items()} for e in everyone)
        ),
        images=_joined(
            usage.images,
            *(
                {name: tuple(replace(user, who=_on(user.who, e)) for user in users) for name, users in e.images.items()}
                for e in everyone
            ),
        ),
        qemu_locks=usage.qemu_locks.union(*({(device, n) for n in e.qemu_locks} for e in everyone)),
        nova_locks=usage.nova_locks.union(*(e.nova_locks for e in roll.answered)),
        open_files={(device, n): _on(who, e) for e in everyone for n, who in e.open_files.items()}
        | dict(usage.open_files),
        unknown=(*usage.unknown, *(unknown for found in everyone for unknown in _unknowns(found))),
        spawns=tuple(dict.fromkeys(one for one in spawns if one.path not in claimed and one.path not in usage.claimed)),
        unidentified_raw=tuple(path for path in usage.unidentified_raw if not claimed.get(path.partition("/")[0])),
        nova_pass_at=None if roll.silent or None in passes else min(one for one in passes if one is not None),
        domains=usage.domains + sum(found.domains for found in everyone),
        kept=_kept(roll),
        unused_since=_unused_since(everyone, hearing.skew),
        purged_elsewhere=frozenset(name for found in everyone for name in found.purged),
        clock_margin=hearing.margin,
        shared=_shared(roll, usage, leader),
        agreed=hearing.agreed,
        group=Group(tuple(sorted(roll.known)), tuple(sorted(roll.silent)), number, leader, hearing.leads, hearing.skew),
    )


def _call(hearing: Hearing, usage: Usage, policy: Policy, now: float) -> "_Roll":
    """Call the roll: who shares the storage with this host, and who has answered."""
    roll = _Roll(hearing, policy, now)
    for heard in hearing.heard:
        roll.publisher(heard)
    for name, seen in sorted(usage.registry.items()):
        roll.registered(name, seen)
    for node in policy.shared_with:
        roll.node(node)
    apart = usage.shared is None and not roll.known and not policy.shared_with
    if usage.registry_problem and not (usage.registry_absent and apart):
        roll.waiting.append(
            f"nova's registry of the hosts that share the storage, compute_nodes, {usage.registry_problem}, so not all "
            "of them are known; nova writes it again when its image-cache task runs"
        )
    if abs(hearing.skew) > MOST_SKEW:
        roll.waiting.append(_skewed(f"this host ({hearing.own})", hearing.skew))
    if hearing.problem is not None:
        roll.waiting.insert(0, hearing.problem)
    return roll


@dataclass
class _Roll:
    """The roll call of one hearing."""

    hearing: Hearing
    policy: Policy
    now: float
    known: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    answered: list[HostEvidence] = field(default_factory=list)
    earlier: list[HostEvidence] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def publisher(self, heard: Heard) -> None:
        """A host that has published."""
        if self._is_retired(heard.host):
            signs = self.hearing.retired.get(heard.host.lower())
            resident = heard.evidence is None or heard.evidence.resident
            waits = signs is None or (resident and self.now - signs.noted_at < ANSWERS_WITHIN)
            said_before = signs is not None and not waits and _is_old(heard.at, signs.published)
            if said_before or self.now - heard.at > GONE_AFTER:
                return
            self._contradict(heard.host, f"it published at {heard.told}", new=waits)
        self.known.add(heard.host)
        found = heard.evidence
        if found is None:
            self.silent.add(heard.host)
            self.waiting.append(
                f"what host {heard.host} published at {heard.told} {heard.problem}, so what it needs is not known; "
                f"let its basekeeper publish again, or list {heard.host} in sharedStorage.retiredHosts if it is gone"
            )
            return
        latest = self.hearing.round.number if self.hearing.round is not None else 0
        if found.round != latest or latest == 0:
            self.silent.add(heard.host)
            self.earlier.append(found)
            self.waiting.append(_unanswered(heard.host, latest, f"it was last heard of at {heard.told}"))
            return
        self.answered.append(found)
        self._examine(found)

    def _examine(self, found: HostEvidence) -> None:
        """What stands in the way although the host has answered."""
        if abs(found.skew) > MOST_SKEW:
            self.waiting.append(_skewed(f"host {found.host}", found.skew))
        if not found.leader_lock_seen and self.hearing.leads:
            self.waiting.append(
                f"host {found.host} does not see that this host holds the lock of the leader, so file locks do not "
                "work between hosts here; mount the storage without nolock and local_lock"
            )
        if found.objection is not None and self.hearing.acts:
            self.waiting.append(f"host {found.host} lets nothing go from the cache: {found.objection}")

    def registered(self, name: str, seen: float) -> None:
        """A host that nova's registry lists."""
        if self._is_retired(name):
            signs = self.hearing.retired.get(name.lower())
            if self.now - seen > GONE_AFTER or (signs is not None and _is_old(seen, signs.registered)):
                return
            self._contradict(name, "nova registered it in compute_nodes within the last 25 hours", new=signs is None)
        publisher = self._publisher_of(name)
        if publisher is None:
            self.known.add(name)
            self.silent.add(name)
            number = self.hearing.round.number if self.hearing.round is not None else 0
            self.waiting.append(_unanswered(name, number, "it has never published here, and compute_nodes lists it"))

    def node(self, node: str) -> None:
        """A node that reports the same directories to the controller."""
        if all(found.node != node for found in (*self.answered, *self.earlier)):
            self.waiting.append(
                f"node {node} reports the same directories, and no host has published from it; "
                "give its agent sharedStorage.mode: Coordinate and the same cache directory"
            )

    def _publisher_of(self, registered: str) -> str | None:
        """The publisher that is the host of this name: of the same name, or the only one that it can be."""
        names = [heard.host for heard in self.hearing.heard]
        for name in names:
            if name.lower() == registered.lower():
                return name
        like = [name for name in names if _is_short_for(name, registered) or _is_short_for(registered, name)]
        return like[0] if len(like) == 1 else None

    def _is_retired(self, name: str) -> bool:
        return name.lower() in self.policy.retired_hosts

    def _contradict(self, name: str, sign: str, *, new: bool) -> None:
        listed = f"host {name} is listed in sharedStorage.retiredHosts"
        if new:
            self.waiting.append(f"{listed}; that counts from a next pass on, if it gives no sign of life until then")
            return
        self.waiting.append(
            f"{listed}, but {sign}, after that was said; it counts until 25 hours after its last sign of life: switch "
            "it off, or take it from the list"
        )


def _is_old(at: float, noted: float | None) -> bool:
    """Whether a sign of life is the one that was known when the operator said that the host is gone."""
    return noted is not None and at <= noted


def last_signs(
    known: Mapping[str, LastSigns], heard: Iterable[Heard], usage: Usage, policy: Policy, now: float
) -> dict[str, LastSigns]:
    """What to remember of the retired hosts: as an earlier pass met them, or, of a new one, its signs of life now."""
    published = {one.host.lower(): one.at for one in heard}
    registered = {name.lower(): seen for name, seen in usage.registry.items()}
    return {
        host: known.get(host) or LastSigns(now, registered.get(host), published.get(host))
        for host in policy.retired_hosts
    }


def _is_short_for(short: str, name: str) -> bool:
    return name.lower().startswith(f"{short.lower()}.")


def _unanswered(host: str, number: int, heard: str) -> str:
    what = f"has not answered round {number}" if number else "has answered no round yet"
    return (
        f"host {host} {what}, so what it needs is not known; {heard}; let its basekeeper run with "
        f"sharedStorage.mode: Coordinate, or list {host} in sharedStorage.retiredHosts if it is gone for good"
    )


def _skewed(who: str, skew: float) -> str:
    where = "behind" if skew > 0 else "ahead of"
    return (
        f"the clock of {who} is {abs(skew):.0f} s {where} that of the file server, and {MOST_SKEW:.0f} s are allowed; "
        "ages mean nothing until it is set right"
    )


def _shared(roll: _Roll, usage: Usage, leader: str | None) -> Shared | None:
    """Whether the storage counts as shared, and whether that holds everything."""
    if roll.waiting:
        first, *also = roll.waiting
        return Shared(first, also=tuple(also))
    if not roll.known:
        return None if usage.shared is None else Shared(f"{usage.shared.message}; no other host is known", holds=False)
    message = f"{some(sorted(roll.known), 5)} share this storage, and all have answered; {leader} leads"
    return Shared(message, holds=False)


def device_of(inventory: Inventory) -> int:
    """The number of the device that the cache lies on, for inode numbers of other hosts; 0 where it is empty."""
    inodes = [file.inode for file in inventory.files] + [entry.inode for entry in inventory.entries]
    return inodes[0][0] if inodes else 0


def _on(who: str, found: HostEvidence) -> str:
    return f"{who} (host {found.host})"


def _of(users: Iterable[User], found: HostEvidence) -> tuple[User, ...]:
    """Users on another host. A disk on the share has one name for all hosts, and is told once."""
    return tuple(user if _is_on_share(user) else replace(user, who=_on(user.who, found)) for user in users)


def _is_on_share(user: User) -> bool:
    return user.source is Source.OVERLAY and not user.who.startswith("/")


def _joined(first: Mapping[K, tuple[V, ...]], *more: Mapping[K, tuple[V, ...]]) -> dict[K, tuple[V, ...]]:
    joined = dict(first)
    for one in more:
        for key, values in one.items():
            joined[key] = tuple(dict.fromkeys((*joined.get(key, ()), *values)))
    return joined


def _unknowns(found: HostEvidence) -> Sequence[Unknown]:
    return [Unknown(f"host {found.host}: {one.message}", None, None, one.only) for one in found.troubles]


def _claimed(answered: Iterable[HostEvidence]) -> dict[str, bool]:
    claimed: dict[str, bool] = {}
    for found in answered:
        claimed |= {path: claimed.get(path, False) or named for path, named in found.claimed.items()}
    return claimed


def _kept(roll: _Roll) -> dict[bytes, Kept]:
    """What some host's own judgement keeps; a pin is the weightiest.

    That a file was too young some time ago says only since when: it is told by `_unused_since`.
    """
    kept: dict[bytes, Kept] = {}
    for found in (*roll.answered, *roll.earlier):
        for name, why in found.kept.items():
            counts = why.reason is not Reason.TOO_YOUNG or found in roll.answered
            if counts and (name not in kept or why.reason is Reason.PINNED):
                kept[name] = replace(why, message=f"host {found.host}: {why.message}")
    return kept


def _unused_since(everyone: Iterable[HostEvidence], skew: float) -> dict[bytes, float]:
    """Since when the host that knows of the latest use of a file knows of none, by this host's clock."""
    latest: dict[bytes, float] = {}
    for found in everyone:
        for name, why in found.kept.items():
            if why.since is not None:
                latest[name] = max(latest.get(name, why.since - skew), why.since - skew)
    return latest


def objection_of(policy: Policy) -> str | None:
    """Why this host's policy lets nothing go from a cache that others share; None: it does not object."""
    if policy.shared_storage is not SharedStorageMode.COORDINATE:
        return "its sharedStorage.mode is not Coordinate"
    if policy.suspend:
        return "its policy says suspend: true"
    return None if policy.mode is Mode.ENFORCE else "its policy's mode is Audit"
