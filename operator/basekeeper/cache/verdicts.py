"""The words for what may happen to a file and why: the one home of verdicts and reasons.

Status, metrics, command line and documentation show these values; a test compares them with `docs/`.
"""

from enum import StrEnum


class Verdict(StrEnum):
    """What a pass decided for one file."""

    KEEP = "Keep"
    REMOVE = "Remove"
    HOLD = "Hold"
    """It would go, but for something that must be cleared first."""
    FOREIGN = "Foreign"
    """Not nova's: never touched."""


class Reason(StrEnum):
    """Why; the texts are in `MEANING`."""

    IN_USE_BY_OVERLAY = "InUseByOverlay"
    IN_USE_BY_DOMAIN = "InUseByDomain"
    LOCKED_BY_QEMU = "LockedByQemu"
    LOCKED_BY_NOVA = "LockedByNova"
    OPEN_IN_PROCESS = "OpenInProcess"
    PINNED = "Pinned"
    IMAGE_OF_DOMAIN = "ImageOfDomain"
    TOO_YOUNG = "TooYoung"
    USER_APPEARED = "UserAppeared"
    IN_QUARANTINE = "InQuarantine"

    EXPIRED = "Expired"
    CORRUPT = "Corrupt"
    STALE_PARTIAL = "StalePartial"
    PRESSURE = "Pressure"
    OVER_BUDGET = "OverBudget"
    RETENTION_OVER = "RetentionOver"

    UNKNOWN_USAGE = "UnknownUsage"
    SPAWN_IN_PROGRESS = "SpawnInProgress"
    IMAGE_UNKNOWN = "ImageUnknown"
    LIMIT_REACHED = "LimitReached"
    CONFLICT = "Conflict"
    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    OUTSIDE_WINDOW = "OutsideWindow"
    SHARED_STORAGE = "SharedStorage"
    CLOCK_JUMPED = "ClockJumped"
    USERS_VANISHED = "UsersVanished"
    INSTANCES_VANISHED = "InstancesVanished"
    OTHER_DIRECTORY = "OtherDirectory"

    FOREIGN_NAME = "ForeignName"
    NOT_A_FILE = "NotAFile"


MEANING: dict[Reason, str] = {
    Reason.IN_USE_BY_OVERLAY: "a disk's chain of backing files reaches it, or names it",
    Reason.IN_USE_BY_DOMAIN: "a libvirt domain names it",
    Reason.LOCKED_BY_QEMU: "a running qemu holds its image lock on it",
    Reason.LOCKED_BY_NOVA: "somebody holds nova's lock for its name",
    Reason.OPEN_IN_PROCESS: "a process has it open",
    Reason.PINNED: "the policy pins its image, or an operator restored it and it is pinned for a while",
    Reason.IMAGE_OF_DOMAIN: "a domain was made from its image",
    Reason.TOO_YOUNG: "it has not been unused for its minimum age yet",
    Reason.USER_APPEARED: "something began to use it while it was being removed; it was put back",
    Reason.IN_QUARANTINE: "it was removed and waits in the quarantine until its retention is over",
    Reason.EXPIRED: "nothing has used it for its minimum age",
    Reason.CORRUPT: "verification found that its content changed: it goes when nothing uses it, and is never put back "
    "by itself",
    Reason.STALE_PARTIAL: "it is a leftover of an interrupted download or conversion, or of retired code",
    Reason.PRESSURE: "nothing uses it, and the file system is fuller than `pressure` allows",
    Reason.OVER_BUDGET: "nothing uses it, and the cache is larger than `maxCacheBytes`",
    Reason.RETENTION_OVER: "it was removed, and its time in the quarantine is over",
    Reason.UNKNOWN_USAGE: "a source that could name it could not be read",
    Reason.SPAWN_IN_PROGRESS: "an instance may be starting on it right now",
    Reason.IMAGE_UNKNOWN: "a raw disk may have been made from it, and nothing says from which image",
    Reason.LIMIT_REACHED: "this pass has removed as much as the policy's limits allow; it goes in a later one",
    Reason.CONFLICT: "it is needed from the quarantine, but another file has its name",
    Reason.SUSPENDED: "the policy is suspended",
    Reason.DRAINING: "the policy empties the quarantine (quarantine.drain), and nothing is removed meanwhile",
    Reason.OUTSIDE_WINDOW: "no maintenance window of the policy is open",
    Reason.SHARED_STORAGE: "other hosts use this storage, and their instances cannot be seen from here",
    Reason.CLOCK_JUMPED: "the clock jumped, so ages mean nothing now",
    Reason.USERS_VANISHED: "most bases in use lost all their users at once, which is not how machines end",
    Reason.INSTANCES_VANISHED: "libvirt has domains with local disks, but their directories are gone",
    Reason.OTHER_DIRECTORY: "these are not the directories of the last pass",
    Reason.FOREIGN_NAME: "nova never wrote such a name",
    Reason.NOT_A_FILE: "only regular files are ever removed",
}

USE_REASONS = frozenset(
    {
        Reason.IN_USE_BY_OVERLAY,
        Reason.IN_USE_BY_DOMAIN,
        Reason.LOCKED_BY_QEMU,
        Reason.LOCKED_BY_NOVA,
        Reason.OPEN_IN_PROCESS,
        Reason.IMAGE_OF_DOMAIN,
        Reason.USER_APPEARED,
    }
)
"""Reasons to keep that are evidence of use: the ledger remembers when each base was last seen so."""

EVICTION_REASONS = frozenset({Reason.PRESSURE, Reason.OVER_BUDGET})
"""Reasons to remove what is not old enough by its own age."""

HOLD_REASONS = frozenset(
    {
        Reason.UNKNOWN_USAGE,
        Reason.SPAWN_IN_PROGRESS,
        Reason.IMAGE_UNKNOWN,
        Reason.LIMIT_REACHED,
        Reason.CONFLICT,
        Reason.CORRUPT,
        Reason.SUSPENDED,
        Reason.DRAINING,
        Reason.OUTSIDE_WINDOW,
        Reason.SHARED_STORAGE,
        Reason.CLOCK_JUMPED,
        Reason.USERS_VANISHED,
        Reason.INSTANCES_VANISHED,
        Reason.OTHER_DIRECTORY,
    }
)
"""Reasons to hold what would go."""

ANOMALIES = frozenset({Reason.OTHER_DIRECTORY, Reason.INSTANCES_VANISHED, Reason.USERS_VANISHED, Reason.CLOCK_JUMPED})
"""Of these, the signs that the evidence itself cannot be trusted: they open the breaker."""

REASONS: dict[Verdict, frozenset[Reason]] = {
    # `quarantine.drain: Restore` puts back what nothing needs, and that is why it is there.
    Verdict.KEEP: USE_REASONS | {Reason.PINNED, Reason.TOO_YOUNG, Reason.DRAINING},
    Verdict.REMOVE: frozenset({Reason.EXPIRED, Reason.CORRUPT, Reason.STALE_PARTIAL}) | EVICTION_REASONS,
    Verdict.HOLD: HOLD_REASONS,
    Verdict.FOREIGN: frozenset({Reason.FOREIGN_NAME, Reason.NOT_A_FILE}),
}
"""The reasons that each verdict on a file of the cache can have."""

RESTORE_REASONS = frozenset(
    {
        Reason.IN_USE_BY_OVERLAY,
        Reason.IN_USE_BY_DOMAIN,
        Reason.LOCKED_BY_QEMU,
        Reason.PINNED,
        Reason.IMAGE_OF_DOMAIN,
        Reason.DRAINING,
    }
)
"""Why a pass puts a removed file back: something needs it after all, or the policy empties the quarantine."""

AGAINST = USE_REASONS | HOLD_REASONS | {Reason.PINNED, Reason.IN_QUARANTINE}
"""What a late look can find against an act: the reasons of `Skipped`."""

WHAT_NEXT: dict[Reason, str] = {
    Reason.IN_USE_BY_OVERLAY: "it may go one minimum age after the last of these disks is deleted or flattened",
    Reason.IN_USE_BY_DOMAIN: "it may go one minimum age after no domain names it any more",
    Reason.LOCKED_BY_QEMU: "it may go one minimum age after that qemu has closed it",
    Reason.LOCKED_BY_NOVA: "nova is at work on it; the next pass looks again",
    Reason.OPEN_IN_PROCESS: "it may go one minimum age after that process has closed it",
    Reason.PINNED: "it stays until the pin ends, or its image leaves spec.pinnedImages",
    Reason.IMAGE_OF_DOMAIN: "it may go one minimum age after that domain is gone, or with cachedOnly: Remove",
    Reason.TOO_YOUNG: "nothing to do: it goes at the time above, unless something uses it before",
    Reason.USER_APPEARED: "the next pass looks again",
    Reason.IN_QUARANTINE: "`basekeeper quarantine restore` puts it back; it is purged at its due time",
    Reason.EXPIRED: "it goes in the next pass with mode: Enforce; spec.pinnedImages would keep it",
    Reason.CORRUPT: "it goes in the next pass with mode: Enforce; where it is needed after that, have nova fetch the "
    "image again, or put the file back with `basekeeper quarantine restore` if it is the last copy",
    Reason.STALE_PARTIAL: "it goes in the next pass with mode: Enforce",
    Reason.PRESSURE: "it goes in the next pass with mode: Enforce; spec.pinnedImages or room on the disk would keep it",
    Reason.OVER_BUDGET: "it goes in the next pass with mode: Enforce; spec.pinnedImages or a larger maxCacheBytes "
    "would keep it",
    Reason.RETENTION_OVER: "it is purged in the next pass with mode: Enforce; `basekeeper quarantine restore` keeps it",
    Reason.UNKNOWN_USAGE: "make it readable, or say with `basekeeper hold acknowledge PATH` that it is harmless",
    Reason.SPAWN_IN_PROGRESS: "wait until the instance has started; --spawn-grace says how long that may take",
    Reason.IMAGE_UNKNOWN: "set cachedOnly: Remove, or let nova's manager touch what it knows",
    Reason.LIMIT_REACHED: "it goes in a later pass; spec.limits says how much one pass may remove",
    Reason.CONFLICT: "compare the two files; then purge the quarantined one, or move the other away and restore it",
    Reason.SUSPENDED: "set suspend: false",
    Reason.DRAINING: "remove quarantine.drain from the policy when the quarantine is empty",
    Reason.OUTSIDE_WINDOW: "it goes when the next window opens; spec.maintenanceWindows says when that is",
    Reason.SHARED_STORAGE: "nothing is removed on storage that other hosts use",
    Reason.CLOCK_JUMPED: "every age starts anew from now",
    Reason.USERS_VANISHED: "find out where the instances went; spec.resetTrips says that all is as it should be",
    Reason.INSTANCES_VANISHED: "mount the instances file system, or undefine the domains that are gone; "
    "spec.resetTrips says that they may be gone",
    Reason.OTHER_DIRECTORY: "mount the right directories; spec.resetTrips, or `basekeeper adopt`, says that these are",
    Reason.FOREIGN_NAME: "basekeeper never touches it",
    Reason.NOT_A_FILE: "basekeeper never touches it",
}
"""What would change a verdict, for whoever asks why a file is still there."""
