"""What observation hands to judgement: frozen values, no behaviour that touches the host.

`inventory` says what lies in `_base` and in the quarantine, `usage` what may need it. An answer that could
not be had is a value of its own (`Unknown`), so that nobody can mistake it for "no".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from .names import Name
from .verdicts import Reason

Inode: TypeAlias = tuple[int, int]
"""Device and inode number: the same file under whatever name, within one boot."""


class Part(StrEnum):
    """A part of the observation whose time is told apart."""

    INVENTORY = "inventory"
    """The cache and the quarantine."""
    LIBVIRT = "libvirt"
    DISKS = "disks"
    """The instances tree, the headers of disks, and the signs of other hosts."""
    LOCKS = "locks"
    """Locks, and who has a file open."""


class FileType(StrEnum):
    """What kind of directory entry it is; only regular files are ever removed."""

    REGULAR = "regular file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    OTHER = "special file"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One entry of `_base`."""

    name: Name
    type: FileType
    inode: Inode
    size: int
    """Bytes as `ls -l` shows them."""
    allocated: int
    """Bytes of allocated blocks."""
    links: int
    mtime: float
    """Unix seconds; nova's "last seen used", never "content changed"."""

    @property
    def reclaimable(self) -> int:
        """The bytes that removing this name would free: none while another hard link exists."""
        return self.allocated if self.links <= 1 and self.type is FileType.REGULAR else 0


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One removed file, as its side-car tells; everything a restore or purge needs is in here."""

    id: str
    """The entry's directory name."""
    name: Name
    inode: Inode
    size: int
    allocated: int
    links: int
    mtime: float
    removed_at: float
    due_at: float
    """When it may be purged, Unix seconds."""
    reason: str
    """Why it was removed: a `Reason` value."""
    last_users: tuple[str, ...] = ()
    round: int | None = None
    """The round of the hosts of a shared cache by which it was removed; None: no other host was asked."""

    @property
    def reclaimable(self) -> int:
        """The bytes that a purge would free."""
        return self.allocated if self.links <= 1 else 0


@dataclass(frozen=True, slots=True)
class Note:
    """Something that an operator may want to know and that holds nothing."""

    about: str
    """A short CamelCase tag, e.g. `ChainLoop`."""
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How full the file system of the cache is, in bytes."""

    used: int
    available: int
    """What an ordinary user may still write."""

    @property
    def used_percent(self) -> float:
        """How full it is, as df has it: what only root may write belongs to neither side."""
        usable = self.used + self.available
        return 100 * self.used / usable if usable else 0.0


@dataclass(frozen=True, slots=True)
class Inventory:
    """One scan of `_base` and of the quarantine in it."""

    files: tuple[CachedFile, ...] = ()
    entries: tuple[QuarantineEntry, ...] = ()
    notes: tuple[Note, ...] = ()
    directory: int | None = None
    """The inode number of `_base`; None where it does not exist."""
    room: Room | None = None
    """How full its file system is; None where that cannot be asked."""
    shared: Mapping[Inode, int] = field(default_factory=dict)
    """Bytes of files of the cache and the quarantine whose extents other files share, where that was asked."""


class Source(StrEnum):
    """Where a piece of evidence of use comes from."""

    OVERLAY = "overlay"
    """A disk's header, or a base's own backing file."""
    DOMAIN = "domain"
    """A libvirt domain's XML names the file itself."""


@dataclass(frozen=True, slots=True)
class User:
    """One thing that needs a base."""

    source: Source
    who: str
    """What an operator can look up: a disk's path as shown, or `domain <uuid>`."""


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A domain whose metadata says that it was made from an image."""

    who: str
    needed: bool
    """One of its local disks is missing or unreadable: the image may be all that is left to rebuild it from."""


@dataclass(frozen=True, slots=True)
class Identity:
    """By which an acknowledged path is known to be still the same."""

    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A source that could not be read: it holds every removal that it could have prevented."""

    message: str
    """One sentence: what was asked, what happened, what to do."""
    path: str | None = None
    """As shown: relative to the instances path where it lies under it. None: not a path (libvirt)."""
    identity: Identity | None = None
    only: frozenset[bytes] | None = None
    """The base names whose removal this could have prevented; None: any that a disk can be built on."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """A directory without a domain that changed a moment ago."""

    path: str
    changed_at: float


@dataclass(frozen=True, slots=True)
class Ownerless:
    """An instance directory without a domain, as the walk met it."""

    path: str
    """As shown: its entry in the instances path."""
    directories: tuple[bytes, ...]
    """It and those in it, as walked."""
    changed_at: float
    """The newest change that the walk saw, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """An instance directory without a domain, measured."""

    path: str
    """As shown: its entry in the instances path."""
    changed_at: float
    """The newest change in it, Unix seconds."""
    bytes: int
    """What it takes up, as far as it can be read: allocated blocks, each file once."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Why this storage must be taken for shared with other hosts."""

    message: str
    holds: bool = True
    """Whether it stops every removal; otherwise the hosts agree on what may go."""
    also: tuple[str, ...] = ()
    """What else stops it, in a sentence each."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that another host's own judgement keeps, though nothing is known to need it."""

    reason: Reason
    message: str
    since: float | None = None
    """Since when that host knows of no use, Unix seconds; None: the file's time stamp says nothing."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What one round of all hosts let go, for the next round to confirm."""

    files: frozenset[tuple[bytes, Inode]] = frozenset()
    """By name and inode."""
    entries: frozenset[str] = frozenset()
    """Ids of quarantine entries."""


@dataclass(frozen=True, slots=True)
class Group:
    """The hosts that share the storage, as one of them knows them."""

    known: tuple[str, ...]
    """All but this one and those that are gone, by nova's names."""
    silent: tuple[str, ...]
    """Those of them that have not answered the latest round so that it can be understood."""
    round: int
    """The latest round; 0: none yet."""
    leader: str | None
    """The host that opened it."""
    leads: bool
    """Whether that is this one, now."""
    skew: float
    """Seconds that the file server's clock is ahead of this host's."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Everything that is known to need a base, and everything that could not be asked."""

    by_name: Mapping[bytes, tuple[User, ...]] = field(default_factory=dict)
    """Users by base name, whether a file of that name exists or not."""
    by_inode: Mapping[Inode, tuple[User, ...]] = field(default_factory=dict)
    """Users by the file that their chains really reach."""
    images: Mapping[bytes, tuple[ImageUser, ...]] = field(default_factory=dict)
    """Domains by the original base name of the image that their metadata names."""
    qemu_locks: frozenset[Inode] = frozenset()
    """Files of `_base` and of the quarantine on which a running qemu holds an image lock."""
    nova_locks: frozenset[bytes] = frozenset()
    """Lock names (`Name.lock_name`) that somebody holds right now."""
    open_files: Mapping[Inode, str] = field(default_factory=dict)
    """Files of `_base` that a visible process has open, and which, e.g. `process 4711 (rsync)`."""
    unknown: tuple[Unknown, ...] = ()
    spawns: tuple[Spawn, ...] = ()
    spawn_grace: float = 600.0
    """Seconds within which a directory without a domain counts as a spawn in this look."""
    unidentified_raw: tuple[str, ...] = ()
    """Raw root disks whose image nothing names, so that any original may be the one they were made from."""
    nova_pass_at: float | None = None
    """When nova's own manager last registered this host in `compute_nodes`; it touches used bases then."""
    nova_bases: frozenset[bytes] = frozenset()
    """Originals under the root disks of nova's domains here: what its manager touches, where its database agrees."""
    ownerless: tuple[Ownerless, ...] | None = None
    """None: what has a domain could not be asked."""
    shared: Shared | None = None
    directories: int = 0
    """Instance directories seen."""
    domains: int = 0
    claimed: Mapping[str, bool] = field(default_factory=dict)
    """Instance directories that belong to a domain, as shown; whether it names the image of its disks."""
    registry: Mapping[str, float] = field(default_factory=dict)
    """The other hosts that nova's registry lists, fresh or not, and when each registered, Unix seconds."""
    registry_problem: str | None = None
    """Why it does not tell all hosts: the end of a sentence."""
    registry_absent: bool = False
    kept: Mapping[bytes, Kept] = field(default_factory=dict)
    """Names that another host's judgement keeps."""
    unused_since: Mapping[bytes, float] = field(default_factory=dict)
    """Since when another host knows of no use of these, Unix seconds."""
    purged_elsewhere: frozenset[bytes] = frozenset()
    """Names of what other hosts purged lately."""
    clock_margin: float = 0.0
    """Seconds by which ages are reckoned less, because the clocks of hosts differ."""
    agreed: Agreed | None = None
    """Nothing else may be removed or purged; None: whatever judgement lets go."""
    group: Group | None = None
    """None: this host does not coordinate with others."""
    libvirt_failure: str | None = None
    """Why the list of domains is not complete, in one sentence; then an `Unknown` says so as well."""
    homeless_domains: tuple[str, ...] = ()
    """nova's domains with local disks whose instance directory does not exist."""
    local_domains: int = 0
    """nova's domains with local disks, homeless or not."""
    notes: tuple[Note, ...] = ()
