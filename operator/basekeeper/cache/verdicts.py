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
    STALE_PARTIAL = "StalePartial"
    RETENTION_OVER = "RetentionOver"

    UNKNOWN_USAGE = "UnknownUsage"
    SPAWN_IN_PROGRESS = "SpawnInProgress"
    IMAGE_UNKNOWN = "ImageUnknown"
    LIMIT_REACHED = "LimitReached"
    CONFLICT = "Conflict"
    SUSPENDED = "Suspended"
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
    Reason.STALE_PARTIAL: "it is a leftover of an interrupted download or conversion, or of retired code",
    Reason.RETENTION_OVER: "it was removed, and its time in the quarantine is over",
    Reason.UNKNOWN_USAGE: "a source that could name it could not be read",
    Reason.SPAWN_IN_PROGRESS: "an instance may be starting on it right now",
    Reason.IMAGE_UNKNOWN: "a raw disk may have been made from it, and nothing says from which image",
    Reason.LIMIT_REACHED: "this pass has removed as much as the policy's limits allow; it goes in a later one",
    Reason.CONFLICT: "it is needed from the quarantine, but another file has its name",
    Reason.SUSPENDED: "the policy is suspended",
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
