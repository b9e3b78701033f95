"""The words for what was done with a file: what a pass tells of its acts."""

from dataclasses import dataclass
from enum import StrEnum

from .evidence import QuarantineEntry
from .verdicts import Reason


class Action(StrEnum):
    """What a pass did with a file."""

    QUARANTINED = "Quarantined"
    PURGED = "Purged"
    RESTORED = "Restored"
    SKIPPED = "Skipped"
    """The last looks found something against it; the file is where it was."""
    FAILED = "Failed"


class Failure(StrEnum):
    """Of what class the error of an act is."""

    NO_SPACE = "NoSpace"
    READ_ONLY = "ReadOnly"
    NOT_PERMITTED = "NotPermitted"
    INPUT_OUTPUT = "InputOutput"
    STALE = "Stale"
    OTHER = "Other"


FAILURE_MEANING: dict[Failure, str] = {
    Failure.NO_SPACE: "the file system, or a quota on it, is full",
    Failure.READ_ONLY: "the file system is read-only",
    Failure.NOT_PERMITTED: "the agent may not do it: owners, modes, attributes of the file",
    Failure.INPUT_OUTPUT: "the disk, or the file system on it, does not work",
    Failure.STALE: "a network file system has lost the file, or its server",
    Failure.OTHER: "none of these; the log has the sentence",
}
"""What each class means; `docs/metrics.md` shows it."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What a look found against a removal."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of one act."""

    action: Action
    doubt: Doubt | None = None
    """For SKIPPED: why."""
    error: str | None = None
    """For FAILED: what went wrong."""
    failure: Failure | None = None
    """For FAILED: of what class that is."""
    entry: QuarantineEntry | None = None
    """The quarantine entry that it made."""
