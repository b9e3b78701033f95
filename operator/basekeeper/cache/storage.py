"""Who else uses this storage: other hosts' instances cannot be seen from here.

Three signals count. nova's registry `compute_nodes` in the instances path, a JSON object `{host: time}` that each
host's image-cache task rewrites in place (`virt/storage_users.py`); hosts are never dropped from it, so an entry
says something only while it is fresh. The file system's type: a network or cluster type is there to be mounted by
several hosts, whether or not they registered. And the word of the controller that another node reports the same
directories, which it tells by `identity`.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import identity as ids
from .evidence import Note, Room, Shared, Unknown, Usage
from .files import FILE, identity_of, inode_at, open_quietly
from .names import display
from .settings import HOUR, Host, Policy

FRESH = 25 * HOUR
"""nova counts a host for 24 hours; one more, because clocks and intervals differ."""

# Types that several hosts are meant to mount at once. Not 9p and virtiofs: those hand one directory of a
# hypervisor to one guest, and guests that do share one show themselves in the registry.
_SHARED_TYPES = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "gfs2", "ocfs2", "lustre", "beegfs", "fhgfs"),
        *("gpfs", "afs", "orangefs", "pvfs2", "panfs", "wekafs", "acfs", "fuse.glusterfs", "fuse.moosefs", "fuse.mfs"),
        *("fuse.lizardfs", "fuse.saunafs", "fuse.seaweedfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.dfuse"),
    }
)
_SHARED_PREFIXES = ("fuse.ceph", "fuse.juicefs", "fuse.quobyte")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_LARGEST_REGISTRY = 1 << 22


@dataclass(frozen=True, slots=True)
class Storage:
    """What is known about who shares the storage."""

    shared: Shared | None = None
    own_entry_at: float | None = None
    """When nova on this host last registered, Unix seconds; never in the future."""
    others: Mapping[str, float] = field(default_factory=dict)
    """The other hosts of the registry, fresh or not, and when each registered."""
    problem: str | None = None
    """Why the registry does not tell all hosts: the end of a sentence."""
    absent: bool = False
    """There is no registry."""
    unknown: tuple[Unknown, ...] = ()
    notes: tuple[Note, ...] = ()


def look(host: Host, now: float) -> Storage:
    """Read the registry and the file-system types; `now` is in Unix seconds. Raises nothing."""
    path = host.instances / "compute_nodes"
    by_type = _shared_by_type(host)
    entries, trouble = _read_registry(path)
    unknown: list[Unknown] = []
    notes: list[Note] = []
    if trouble is not None:
        message = f"nova's registry of the hosts that share the instances path, compute_nodes, {trouble}"
        if by_type is not None:
            message += "; who else uses this storage is unknown until nova has written it again"
            unknown.append(Unknown(message, "compute_nodes", identity_of(bytes(path))))
        else:
            notes.append(Note("RegistryUnreadable", message, "compute_nodes"))
    ours = {name: seen for name, seen in entries.items() if is_own(host, name)}
    own = [seen for seen in ours.values() if seen <= now]
    others = {name: seen for name, seen in entries.items() if name not in ours}
    present = {name: seen for name, seen in ours.items() if now - seen < FRESH}
    if not _can_be_one(present):
        others |= present
    fresh = sorted(name for name, seen in others.items() if now - seen < FRESH)
    stale = sorted(others.keys() - set(fresh))
    if stale and by_type is None:
        message = f"compute_nodes still lists hosts that have not registered for a day: {', '.join(stale[:5])}"
        notes.append(Note("RegistryStale", message, "compute_nodes"))
    shared = by_type
    if fresh:
        shared = Shared(
            f"compute_nodes says that other hosts use this storage ({', '.join(fresh[:5])}); if one of them is this "
            "host under its former name, its entry ceases to count after a day"
        )
    absent = not entries and trouble is None and not path.exists()
    problem = "does not exist" if absent else trouble
    return Storage(shared, max(own, default=None), others, problem, absent, tuple(unknown), tuple(notes))


def as_told(usage: Usage, policy: Policy) -> Usage:
    """Usage with what the controller found out by comparing nodes, where nothing on this host shows it."""
    if usage.shared is not None or not policy.shared_with:
        return usage
    message = (
        f"{', '.join(policy.shared_with)} report the same directories as this node, so that their instances may use "
        "these bases; if they are disks that were cloned, delete .basekeeper-id in the instances path and "
        ".basekeeper/id in the cache on one of them, and run `basekeeper adopt` there"
    )
    return replace(usage, shared=Shared(message))


def is_own(host: Host, name: str) -> bool:
    """Whether the registry's `name` is this host: the name given for it, else the node's, with or without its domain.

    nova takes the full name or the short one as its deployment has it, Kubernetes likewise, and not always the same.
    """
    mine, other = (host.nova_host or host.node).lower(), name.lower()
    return mine == other or mine.startswith(f"{other}.") or other.startswith(f"{mine}.")


def _can_be_one(names: Iterable[str]) -> bool:
    """Whether all these can name one host: a short name may have one domain, not two."""
    longest_first = sorted((name.lower() for name in names), key=len, reverse=True)
    return all(f"{longest_first[0]}.".startswith(f"{name}.") for name in longest_first)


def _read_registry(path: Path) -> tuple[Mapping[str, float], str | None]:
    """The registry's entries, and what is wrong with it: the end of a sentence."""
    try:
        descriptor = open_quietly(bytes(path), FILE)
        try:
            text = os.read(descriptor, _LARGEST_REGISTRY)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, f"cannot be read ({error.strerror})"
    try:
        registry = json.loads(text)
    except (ValueError, RecursionError):
        return {}, "is no complete JSON"
    if not isinstance(registry, dict):
        return {}, "is no JSON object"
    entries = {name: float(seen) for name, seen in registry.items() if _is_time(seen)}
    return entries, None if len(entries) == len(registry) else "has entries without a time"


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)


def _shared_by_type(host: Host) -> Shared | None:
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    for path in (host.instances, host.base):
        kind = file_system_type(mounts, os.path.realpath(bytes(path)))
        if _is_shared(kind):
            return Shared(
                f"{display(bytes(path))} is on a file system of type {kind}, which other hosts can mount, and their "
                "instances cannot be seen from here"
            )
    return None


def _is_shared(kind: str) -> bool:
    return kind in _SHARED_TYPES or kind.startswith(_SHARED_PREFIXES)


def file_system_type(mounts: bytes, path: bytes) -> str:
    """The type of the file system that `path`, absolute and without symlinks, is on.

    `mounts` is the content of `/proc/self/mountinfo` (proc(5)). The longest mount point that leads to the path
    counts, and of several at one place the last, which hides the others. Empty when there is none.
    """
    return _mount_of(mounts, path)[0]


def _mount_of(mounts: bytes, path: bytes) -> tuple[str, str]:
    """The type of the file system that a path is on, and what is mounted there."""
    best: tuple[int, str, str] = (-1, "", "")
    for line in mounts.splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) < 5 or not right:
            continue
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4]).rstrip(b"/")
        if (path == point or path.startswith(point + b"/")) and len(point) >= best[0]:
            kind, source, *_ = (*right.split(b" "), b"")
            best = len(point), kind.decode("ascii", "replace"), source.decode("ascii", "backslashreplace")
    return best[1], best[2]


@dataclass(frozen=True, slots=True)
class Capacity:
    """How full the file system of the cache is."""

    type: str
    """As the kernel calls it; empty where that is not known."""
    size: int
    available: int
    """Bytes that an ordinary user may still write."""
    identity: str | None = None
    """Which directories these are: see `identity`."""


def capacity(host: Host) -> Capacity | None:
    """The file system that the cache lies on; None when it cannot be asked."""
    try:
        found = os.statvfs(host.base)
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    kind = file_system_type(mounts, os.path.realpath(bytes(host.base)))
    return Capacity(kind, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, identity(host, mounts))


def room(host: Host) -> Room | None:
    """How full the file system of the cache is: one question to the kernel. None when it cannot be asked."""
    try:
        found = os.statvfs(host.base)
    except OSError:
        return None
    return Room((found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize)


def identity(host: Host, mounts: bytes) -> str | None:
    """A word that other hosts have too if they see the same directories, and only then; None where nothing tells.

    Two parts, for the instances path and for the cache, joined by a dot: one that is equal is enough. A part comes
    from the directory's id file, which the first acting pass makes; until there is one, on types that several hosts
    mount, from what is mounted there and the directory's inode number, which such a server gives to all alike. On
    other types neither name nor number says anything about another host.
    """
    try:
        carried = ids.read(host)
    except OSError:
        return None
    parts = [
        _part(role, carried_id, path, mounts)
        for role, carried_id, path in (
            ("instances", carried.instances, host.instances),
            ("base", carried.base, host.base),
        )
    ]
    return ".".join(part for part in parts if part is not None) or None


def _part(role: str, carried_id: str | None, path: Path, mounts: bytes) -> str | None:
    if carried_id is not None:
        return _opaque(role, "id", carried_id)
    kind, source = _mount_of(mounts, os.path.realpath(bytes(path)))
    inode = inode_at(path)
    return None if inode is None or not _is_shared(kind) else _opaque(role, kind, source, str(inode[1]))


def _opaque(*what: str) -> str:
    return hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]
