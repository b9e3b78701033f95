"""The words for what was done with a file: what a pass tells of its acts."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
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

_BY_NUMBER = {
    errno.ENOSPC: Failure.NO_SPACE,
    errno.EDQUOT: Failure.NO_SPACE,
    errno.EROFS: Failure.READ_ONLY,
    errno.EACCES: Failure.NOT_PERMITTED,
    errno.EPERM: Failure.NOT_PERMITTED,
    errno.EIO: Failure.INPUT_OUTPUT,
    errno.EREMOTEIO: Failure.INPUT_OUTPUT,
    errno.ENXIO: Failure.INPUT_OUTPUT,
    errno.ENODEV: Failure.INPUT_OUTPUT,
    errno.EUCLEAN: Failure.INPUT_OUTPUT,
    errno.EBADMSG: Failure.INPUT_OUTPUT,  # what file systems say of a checksum that is wrong
    errno.ESTALE: Failure.STALE,
    errno.ETIMEDOUT: Failure.STALE,
    errno.ENOTCONN: Failure.STALE,
    errno.EHOSTDOWN: Failure.STALE,
    errno.EHOSTUNREACH: Failure.STALE,
}


def failure_of(error: BaseException) -> Failure:
    """Of what class an error is: what the system said, also where that was told on in other words."""
    said: BaseException | None = error
    while said is not None and not isinstance(said, OSError):
        said = said.__cause__
    number = said.errno if said is not None else None
    return Failure.OTHER if number is None else _BY_NUMBER.get(number, Failure.OTHER)


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


@dataclass(frozen=True, slots=True)
class NotTouched:
    """A base in use that could not be touched."""

    message: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Touched:
    """What was done."""

    stamps: Mapping[bytes, float] = field(default_factory=dict)
    """The time stamp that each touched base has got, Unix seconds as the file system keeps it."""
    failures: tuple[NotTouched, ...] = ()

    @property
    def trouble(self) -> str | None:
        """A sentence about those that could not be touched."""
        if not self.failures:
            return None
        more = f" and {len(self.failures) - 1} more" if len(self.failures) > 1 else ""
        return (
            f"a base in use could not be touched ({self.failures[0].message}){more}, so a nova manager that removes "
            "may remove it; set remove_unused_base_images = false, or give the agent CAP_FOWNER (docs/hand-over.md)"
        )
