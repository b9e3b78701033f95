"""The engine's settings: an operator's policy as plain values, and where things are on this host.

The custom resource (`basekeeper.resources`) is parsed and validated elsewhere and turned into these. The
engine takes any duration: the floors of the resource protect clusters, not tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .names import Kind
from .windows import Window

MINUTE = 60.0
HOUR = 60 * MINUTE


class Mode(StrEnum):
    """What a pass may change."""

    AUDIT = "Audit"
    ENFORCE = "Enforce"


class CachedOnly(StrEnum):
    """What to do with a base that no disk needs but that an instance was made from."""

    KEEP = "Keep"
    REMOVE = "Remove"


class SharedStorageMode(StrEnum):
    """What to do when other hosts use the same instances directory."""

    REFUSE = "Refuse"
    COORDINATE = "Coordinate"


class Drain(StrEnum):
    """How to empty the quarantine."""

    RESTORE = "Restore"
    PURGE = "Purge"


class Algorithm(StrEnum):
    """What digests of bases are made with."""

    XXH3 = "XXH3"
    """128 bits of XXH3: as fast as memory; finds every damage, but not a change that somebody made to go unseen."""
    SHA256 = "SHA256"
    """The first 128 bits of SHA-256."""


@dataclass(frozen=True, slots=True)
class Integrity:
    """How bases are verified."""

    interval: float = 168 * HOUR
    """Seconds within which each base is read once."""
    max_bytes_per_second: int = 50 << 20
    algorithm: Algorithm = Algorithm.XXH3


@dataclass(frozen=True, slots=True)
class MinimumAge:
    """How long, in seconds, a file must have been unused before it may go; nova's defaults."""

    original: float = 24 * HOUR
    resized: float = 1 * HOUR
    swap: float = 24 * HOUR
    ephemeral: float = 24 * HOUR
    partial: float = 24 * HOUR
    never_used: float | None = None
    """Of an original that was never seen in use, if that is to be longer."""

    def of(self, kind: Kind, *, used: bool = True) -> float:
        """The minimum age of a kind; Foreign files have none, they are never removed. `used`: ever seen in use."""
        if kind is Kind.ORIGINAL and not used:
            return max(self.original, self.never_used or 0.0)
        ages: Mapping[Kind, float] = {
            Kind.ORIGINAL: self.original,
            Kind.RESIZED: self.resized,
            Kind.SWAP: self.swap,
            Kind.EPHEMERAL: self.ephemeral,
            Kind.PARTIAL: self.partial,
        }
        return ages.get(kind, float("inf"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one pass may remove: throttles, never reasons to keep."""

    max_files: int = 20
    max_bytes: int | None = None
    max_percent: int = 25
    """Of the cache's files, 1 to 100."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """When unused files go before their own age, because the file system is full."""

    high_percent: int = 85
    """Above this eviction begins."""
    low_percent: int = 75
    """At this it ends."""
    minimum_age: float = 1 * HOUR
    """Seconds that a file must have been unused all the same; where its own age is shorter, that counts."""
    ignore_windows: bool = False
    """It may break maintenance windows."""


@dataclass(frozen=True, slots=True)
class AcknowledgedPath:
    """A policy's word that an unknown at `path` is known to be harmless until `until` (Unix seconds)."""

    path: str
    reason: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants on this node."""

    name: str = ""
    mode: Mode = Mode.AUDIT
    suspend: bool = False
    minimum_age: MinimumAge = MinimumAge()
    cached_only: CachedOnly = CachedOnly.KEEP
    pinned_images: frozenset[str] = frozenset()
    limits: Limits = Limits()
    retention: float = 6 * HOUR
    """Seconds between quarantine and purge."""
    drain: Drain | None = None
    """Empty the quarantine, and remove nothing meanwhile; for `mode` ENFORCE."""
    pressure: Pressure | None = None
    """None: a full file system changes nothing."""
    max_cache_bytes: int | None = None
    """What cache and quarantine may take up together."""
    acknowledged: tuple[AcknowledgedPath, ...] = ()
    shared_storage: SharedStorageMode = SharedStorageMode.REFUSE
    retired_hosts: frozenset[str] = frozenset()
    """Hosts whose silence no longer counts, by nova's names in lower case."""
    interval: float = 40 * MINUTE
    """Seconds between passes: a leader that opened no round for several of them is followed by another."""
    shared_with: tuple[str, ...] = ()
    """Nodes that report the same directories as this one, as the controller found out."""
    reset_trips: frozenset[str] = frozenset()
    """Names of trips of the breaker that an operator ends."""
    touch_in_use: bool = False
    """Refresh the time stamps of bases in use, for a nova manager that still removes; for `mode` ENFORCE."""
    windows: tuple[Window, ...] = ()
    """Outside all of these nothing is removed, purged or verified; without any that is always allowed."""
    integrity: Integrity | None = None
    """None: nothing is verified unless somebody orders it."""

    @property
    def eviction_age(self) -> float:
        """Seconds that a file must have been unused before pressure or the budget may take it."""
        return (self.pressure or Pressure()).minimum_age

    @property
    def ignores_windows(self) -> bool:
        """Whether files may go for want of room while no maintenance window is open."""
        return self.pressure is not None and self.pressure.ignore_windows

    @property
    def draining(self) -> Drain | None:
        """How the quarantine is emptied now: in Audit it is not."""
        return self.drain if self.mode is Mode.ENFORCE else None


@dataclass(frozen=True, slots=True)
class NovaSays:
    """What a nova.conf says of nova's own manager of the cache."""

    problem: str | None = None
    """Why it could not be read, in one sentence; then nothing else here counts."""
    runs: bool = True
    """Whether the manager runs at all: touches, registers, and removes if it may."""
    runs_origin: str = ""
    """The line that says so, or nova's default."""
    removes: bool = True
    """Whether it removes when it runs."""
    removes_origin: str = ""
    original_age: float = 24 * HOUR
    """Seconds after the last touch at which it removes originals, and swap and ephemeral bases."""
    resized_age: float = HOUR

    def age_of(self, kind: Kind) -> float:
        """The age at which it removes bases of a kind."""
        return self.resized_age if kind is Kind.RESIZED else self.original_age


@dataclass(frozen=True, slots=True)
class Host:
    """Where things are on this host and how to ask it."""

    node: str
    instances: Path
    base: Path
    snapshots: Path
    state: Path
    libvirt: str | None = "qemu:///system"
    """A libvirt URI; None is the operator's word that there is no hypervisor to ask."""
    libvirt_timeout: float = 10.0
    """Seconds that one libvirt call may take."""
    nova_host: str | None = None
    """nova's `host` for this machine, with or without its domain; None: the node's name."""
    nova_conf: Path | None = None
    """Where the nova.conf of this host's nova-compute is; None: it is not given."""
    nova_says: NovaSays | None = None
    """What it said when it was last read."""
    spawn_grace: float = 10 * MINUTE
    """A directory without a domain that changed this recently may be a spawn; 0: nothing spawns here."""

    @property
    def locks(self) -> Path:
        """Where nova keeps its file locks: always here, whatever `lock_path` says."""
        return self.instances / "locks"

    def shown(self, path: bytes) -> bytes:
        """`path` as people see it: relative to the instances path where it lies under it."""
        prefix = bytes(self.instances) + b"/"
        return path.removeprefix(prefix)
