"""What basekeeper remembers between passes, as values that judgement can take.

The ledger stores it; nothing here reads or writes. Losing any of it must make nothing more aggressive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .evidence import Identity, Inode
from .verdicts import Reason


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, from the two clocks that together show a jump."""

    wall: float
    """Unix seconds."""
    uptime: float
    """Seconds since boot, suspend included."""
    boot: str
    """The kernel's boot id: uptimes compare only within one boot."""


class Directories(StrEnum):
    """Whether these are the directories of last time, told by the id files in them."""

    KNOWN = "known"
    NEW = "new"
    """No pass has ever acted here: ids are made when one does."""
    MEMORY_LOST = "memory lost"
    """A pass has acted here, but the ledger does not know of it: every age starts anew."""
    OTHER = "other"
    """The ledger knows other directories: nothing is removed until they are back, or adopted."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an acknowledged path was when the operator's word was given, or first met in the policy."""

    path: str
    identity: Identity | None
    by_hand: bool
    """Given on this host; otherwise the word is the policy's and only the identity is kept here."""
    reason: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class LastPass:
    """What the last pass with complete evidence saw."""

    used: frozenset[bytes]
    """Names of the bases that had users."""
    places: int
    """Instance directories and domains together."""


@dataclass(frozen=True, slots=True)
class Present:
    """The finished files that lay in the cache when a pass ended."""

    directory: int
    """The inode number of `_base`: names in another directory are about other files."""
    names: frozenset[bytes]
    at: float
    """When that was, Unix seconds."""


@dataclass(frozen=True, slots=True)
class LastSigns:
    """The signs of life of a host when a pass first met the operator's word that it is gone; Unix seconds."""

    noted_at: float
    """By the file server's clock."""
    registered: float | None = None
    """Its time in nova's registry."""
    published: float | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """Users that vanished all at once, which stops removals until it has been outlived."""

    cause: Reason
    since: float
    """Since when evidence has been complete, Unix seconds; `Memory.trips` has when it opened."""
    names: frozenset[bytes]
    """The bases whose users vanished."""


@dataclass(frozen=True, slots=True)
class Removing:
    """Corrupt files that a pass began to remove and about which it has not had its last look."""

    names: frozenset[bytes]
    since: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class NovaSeen:
    """What was seen of nova's own manager, and what must not be taken for its work."""

    used_since: Mapping[bytes, float] = field(default_factory=dict)
    """Since when each base that nova's domains here are built on has been seen in use, Unix seconds."""
    stamped: Mapping[bytes, float] = field(default_factory=dict)
    """The time stamps that basekeeper gave to bases: these are not nova's touches."""
    touched_at: float | None = None
    """When nova's manager last registered, of the times after which a base was seen that it had touched."""
    vanished_at: float | None = None
    """When finished files were last missed that basekeeper did not remove."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything that judgement may know of earlier passes."""

    last_used: Mapping[bytes, float] = field(default_factory=dict)
    """When each base was last seen in use, Unix seconds."""
    used_files: Mapping[bytes, int] = field(default_factory=dict)
    """The inode number of the file that each of these names was then, where that is known."""
    last_users: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)
    """Who used each base then; a removed file keeps this, so that of two of one name each user gets its own."""
    ages_since: float | None = None
    """No age counts from before this moment."""
    pins: Mapping[bytes, float] = field(default_factory=dict)
    """Names that an operator restored by hand, and until when they are pinned."""
    acknowledged: tuple[Acknowledged, ...] = ()
    compared: Mapping[tuple[str, int, int], bool] = field(default_factory=dict)
    """Whether a quarantine entry (by id) has the content of the newer file of its name (by inode number and size)."""
    given_up: frozenset[str] = frozenset()
    """Entries (by id) that an operator orders to be purged at this moment, though another file has their name."""
    removing: Removing | None = None
    """What this pass, or one that was killed, set out to remove as corrupt: what needs one of these gets it back."""
    damaged: Mapping[Inode, str] = field(default_factory=dict)
    """Files of the cache whose content changed since their baseline, and how; it says nothing about who needs them."""
    clock: Clock | None = None
    last_pass: LastPass | None = None
    present: Present | None = None
    breaker: Breaker | None = None
    trips: Mapping[Reason, float] = field(default_factory=dict)
    """Since when each anomaly stands that stood when the last pass ended, Unix seconds."""
    accepted_homeless: frozenset[str] = frozenset()
    """Domains of which an operator said that their instance directories may be gone."""
    evicting: bool = False
    """The file system was above `pressure.highPercent`, and has not come down to `lowPercent` since."""
    nova: NovaSeen = NovaSeen()
    directories: Directories = Directories.NEW
    directories_message: str = ""
    """For OTHER and MEMORY_LOST: one sentence that names the file and what to do."""

    def has_seen_in_use(self, name: bytes, inode: int) -> bool:
        """Whether this very file was ever seen in use: one that was fetched anew under its name is another."""
        return name in self.last_used and self.used_files.get(name, inode) == inode
