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
    entry: QuarantineEntry | None = None
    """The quarantine entry that it made."""
