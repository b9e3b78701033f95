"""Which instance directories have no owner any more, and which bases are there for them alone. Pure, and only told.

Nothing here removes anything, and no removal follows from it: a directory without a domain may be a resize that will
be reverted, or an instance that is shut down on another host. But what only such directories need stays for as long as
they do, and nobody else would ever say so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .evidence import Inode, Inventory, Leftover, Usage, User
from .holds import unknown_about
from .memory import Clock, Memory
from .names import display
from .plan import plan
from .settings import HOUR, Policy
from .verdicts import USE_REASONS, Reason

AFTER = 24 * HOUR
"""Seconds without a change after which a directory without a domain counts, unless another time is asked for."""


class OrphanKind(StrEnum):
    """What a directory's name says that it is left from."""

    DELETED = "Deleted"
    RESIZED = "Resized"
    INSTANCE = "Instance"


ORPHAN_MEANING: dict[OrphanKind, str] = {
    OrphanKind.DELETED: "`..._del`: nova began to delete it, and did not end",
    OrphanKind.RESIZED: "`..._resize`: a resize or cold migration that was neither confirmed nor reverted",
    OrphanKind.INSTANCE: "any other name: an evacuated or moved instance's, a build that broke off, or somebody's own",
}
"""What each kind means; `docs/orphans.md` shows it."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An instance directory without a domain that nothing changes any more."""

    path: str
    """As shown: its entry in the instances path."""
    kind: OrphanKind
    changed_at: float
    """The newest change in it, Unix seconds."""
    bytes: int
    """What it takes up."""
    bases: tuple[str, ...]
    """Names of the bases that its disks need, in the cache or not."""
    alone: tuple[str, ...]
    """Those of the cache that nothing but this directory needs."""
    alone_bytes: int
    """What removing these would free."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """All of them."""

    directories: tuple[Orphan, ...] = ()
    """The largest first, with what it keeps alone."""
    kept_by: Mapping[bytes, tuple[str, ...]] | None = None
    """For each base of the cache that nothing but orphaned directories needs, which ones; None: see `unknown`."""
    alone_bytes: int = 0
    """What removing all these bases would free."""
    unknown: str | None = "no pass could tell which directories have a domain"
    """Why nothing can be said, if so."""

    @property
    def bytes(self) -> int:
        """What all the directories take up."""
        return sum(orphan.bytes for orphan in self.directories)

    @property
    def oldest(self) -> float | None:
        """When the one that has been there for longest was last changed, Unix seconds."""
        return min((orphan.changed_at for orphan in self.directories), default=None)


def judge(
    inventory: Inventory,
    usage: Usage,
    leftovers: Sequence[Leftover] | None,
    policy: Policy,
    memory: Memory,
    now: Clock,
    older_than: float,
) -> Orphans:
    """Which directories are orphaned, of those unchanged for `older_than` seconds and not just being made.

    `leftovers` are what the usage calls ownerless, measured; None where these are not known.
    """
    if usage.libvirt_failure is not None:
        return Orphans(unknown=f"which directories have a domain is not known: {usage.libvirt_failure}")
    if leftovers is None:
        return Orphans(unknown="which directories have a domain is not known: there is no libvirt to ask")
    if usage.shared is not None:
        return Orphans(unknown=f"a directory's domain may be on another host: {usage.shared.message}")
    starting = {spawn.path for spawn in usage.spawns}
    chosen = {
        left.path: left for left in leftovers if now.wall - left.changed_at >= older_than and left.path not in starting
    }
    if not chosen:
        return Orphans(kept_by={}, unknown=None)
    needs = _needs(inventory, usage, chosen)
    kept_by = _kept_by(inventory, usage, policy, memory, now, needs)
    sizes = {file.name.raw: file.reclaimable for file in inventory.files}
    made = (_orphan(left, needs.get(left.path, set()), kept_by, sizes) for left in chosen.values())
    ordered = sorted(made, key=lambda orphan: (-orphan.bytes - orphan.alone_bytes, orphan.path))
    return Orphans(tuple(ordered), kept_by, sum(sizes[name] for name in kept_by), None)


def _orphan(
    left: Leftover, needed: Iterable[bytes], kept_by: Mapping[bytes, tuple[str, ...]], sizes: Mapping[bytes, int]
) -> Orphan:
    alone = sorted(name for name in needed if kept_by.get(name) == (left.path,))
    kind = OrphanKind.DELETED if left.path.endswith("_del") else OrphanKind.INSTANCE
    return Orphan(
        left.path,
        OrphanKind.RESIZED if left.path.endswith("_resize") else kind,
        left.changed_at,
        left.bytes,
        tuple(map(display, sorted(needed))),
        tuple(map(display, alone)),
        sum(sizes[name] for name in alone),
    )


def _needs(inventory: Inventory, usage: Usage, chosen: Mapping[str, Leftover]) -> dict[str, set[bytes]]:
    """The bases that each of these directories needs, by name or by the file that its disks' chains reach."""
    names: dict[Inode, bytes] = {file.inode: file.name.raw for file in inventory.files}
    needs: dict[str, set[bytes]] = {}
    by_inode = ((names[inode], users) for inode, users in usage.by_inode.items() if inode in names)
    for name, users in (*usage.by_name.items(), *by_inode):
        for user in users:
            directory = _directory_of(user)
            if directory in chosen:
                needs.setdefault(directory, set()).add(name)
    return needs


def _directory_of(user: User) -> str:
    """The entry of the instances path that a user's path begins with."""
    return user.who.partition("/")[0]


def _kept_by(
    inventory: Inventory, usage: Usage, policy: Policy, memory: Memory, now: Clock, needs: Mapping[str, set[bytes]]
) -> dict[bytes, tuple[str, ...]]:
    """The bases that would have no reason left to stay but their age, were it not for these directories."""
    if not needs:
        return {}
    rest = replace(
        usage,
        by_name={name: _without(users, needs) for name, users in usage.by_name.items()},
        by_inode={inode: left for inode, users in usage.by_inode.items() if (left := _without(users, needs))},
    )
    without = plan(inventory, rest, policy, memory, now)
    keepers: dict[bytes, list[str]] = {}
    for directory, names in sorted(needs.items()):
        for name in names:
            keepers.setdefault(name, []).append(directory)
    return {
        judged.file.name.raw: tuple(keepers[judged.file.name.raw])
        for judged in without.files
        if judged.file.name.raw in keepers
        and _is_free(judged.reason)
        and not unknown_about(judged.file.name, without.unknown)
    }


def _without(users: tuple[User, ...], directories: Mapping[str, set[bytes]]) -> tuple[User, ...]:
    return tuple(user for user in users if _directory_of(user) not in directories)


def _is_free(reason: Reason) -> bool:
    return reason not in USE_REASONS and reason is not Reason.PINNED
