"""The act on one file: look, rename, look again. Never chooses a file.

The rename into the quarantine is the fence: after it nothing can open the base by name any more, while whatever
has it open keeps working, so a look after it cannot be overtaken. What that look finds is undone at once.
"""

import os
from collections.abc import Callable
from pathlib import Path

from . import inventory, locks, quarantine
from .acts import Action, Done, Doubt, failure_of
from .evidence import CachedFile, QuarantineEntry
from .files import DIRECTORY, open_quietly
from .judged import Judged
from .settings import Host
from .verdicts import Reason

ThirdLook = Callable[[CachedFile, QuarantineEntry], Doubt | None]
"""Looks for anything that speaks for a file that has just been moved into this entry."""

MayAct = Callable[[], Doubt | None]
"""Says why this program may not act at this moment, where hosts share a cache."""

LastLook = Callable[[QuarantineEntry], Doubt | None]
"""Looks for anything that speaks for a quarantined file that is about to be deleted."""


def always() -> None:
    """The answer of whoever shares its cache with nobody."""


def remove(
    host: Host,
    judged: Judged,
    *,
    now: float,
    retention: float,
    third_look: ThirdLook,
    last_users: tuple[str, ...] = (),
    may_act: MayAct = always,
    round_number: int | None = None,
) -> Done:
    """Move one file into the quarantine under nova's lock, unless something began to need it. Never raises OSError.

    `may_act` is asked last before the move; `round_number` is told by the side-car.
    """
    file = judged.file
    try:
        with locks.nova_lock(host.locks, file.name.lock_name):
            if doubt := _second_look(host, file) or may_act():
                return Done(Action.SKIPPED, doubt)
            entry = quarantine.put(
                host.base,
                file,
                now=now,
                due_at=now + retention,
                reason=judged.reason.value,
                users=last_users,
                round_number=round_number,
            )
            return _settle_or_undo(host, file, entry, third_look)
    except locks.HeldByAnother as held:
        return Done(Action.SKIPPED, Doubt(Reason.LOCKED_BY_NOVA, str(held)))
    except locks.LockError as error:
        return _failed(str(error), error)
    except OSError as error:
        return _failed(f"{file.name} could not be removed: {error.strerror or error}", error)


def restore(host: Host, entry: QuarantineEntry) -> Done:
    """Put a removed file back under nova's lock, with a fresh time stamp; never over another file."""
    try:
        with locks.nova_lock(host.locks, entry.name.lock_name):
            quarantine.give_back(host.base, entry)
            _refresh(host.base / os.fsdecode(entry.name.raw))
    except quarantine.Occupied as occupied:
        return Done(Action.SKIPPED, Doubt(Reason.CONFLICT, str(occupied)))
    except locks.HeldByAnother as held:
        return Done(Action.SKIPPED, Doubt(Reason.LOCKED_BY_NOVA, str(held)))
    except locks.LockError as error:
        return _failed(str(error), error)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not quarantine.file_of(host.base, entry).exists():
            # Another host of a shared cache needed it too, and was faster.
            return Done(Action.SKIPPED, Doubt(Reason.USER_APPEARED, f"{entry.name} left the quarantine meanwhile"))
        return _failed(f"{entry.name} could not be restored: {error.strerror or error}", error)
    return Done(Action.RESTORED)


def purge(host: Host, entry: QuarantineEntry, last_look: LastLook, *, as_copy: bool = False) -> Done:
    """Delete a removed file for good, unless a last look finds something for it. Never raises OSError.

    `as_copy`: it may go only because the newer file of its name has the same content, and that is asked once more:
    what was compared in an earlier pass may have been replaced by a file that got the same inode number.
    """
    try:
        removed = quarantine.file_of(host.base, entry)
        if as_copy and not same_content(removed, host.base / os.fsdecode(entry.name.raw)):
            return Done(Action.SKIPPED, Doubt(Reason.CONFLICT, f"{entry.name} is needed, and is no copy any more"))
        if doubt := _in_use(removed) or last_look(entry):
            return Done(Action.SKIPPED, doubt)
        quarantine.purge(host.base, entry)
    except OSError as error:
        return _failed(f"{entry.name} could not be purged: {error.strerror or error}", error)
    return Done(Action.PURGED)


def same_content(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes. Reads both, and leaves the page cache as it can. Raises OSError."""
    size = 4 << 20
    with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        at = 0
        while True:
            ours, theirs = os.pread(left.fileno(), size, at), os.pread(right.fileno(), size, at)
            if ours != theirs:
                return False
            for stream in (left, right):
                os.posix_fadvise(stream.fileno(), at, size, os.POSIX_FADV_DONTNEED)
            if not ours:
                return True
            at += len(ours)


def _failed(what: str, error: Exception) -> Done:
    return Done(Action.FAILED, error=what, failure=failure_of(error))


def _second_look(host: Host, file: CachedFile) -> Doubt | None:
    """Whether the file is still the one that was judged. Raises OSError."""
    fd = open_quietly(bytes(host.base), DIRECTORY)
    try:
        current = inventory.look_at(fd, file.name.raw)
    finally:
        os.close(fd)
    if current is None:
        return Doubt(Reason.USER_APPEARED, f"{file.name} is gone; something else removed it")
    if current != file:
        return Doubt(Reason.USER_APPEARED, f"{file.name} changed while it was being judged")
    return _in_use(host.base / os.fsdecode(file.name.raw))


def _settle_or_undo(host: Host, file: CachedFile, entry: QuarantineEntry, third_look: ThirdLook) -> Done:
    """Make the move durable, or take it back if the third look, or an error in it, speaks against it."""
    moved = quarantine.file_of(host.base, entry)
    try:
        touched = os.lstat(moved).st_mtime != file.mtime
        doubt = Doubt(Reason.USER_APPEARED, "something touched it while it was being removed") if touched else None
        doubt = doubt or _in_use(moved) or third_look(file, entry)
    except BaseException as error:  # whatever ended the look, an interruption too, the file must go back
        conflict = _undo(host, entry, f"a last look at it failed: {error}")
        if not isinstance(error, Exception):
            raise
        return conflict or _failed(f"{file.name} was put back, a last look at it failed: {error}", error)
    if doubt is None:
        quarantine.settle(host.base, entry)
        return Done(Action.QUARANTINED, entry=entry)
    return _undo(host, entry, doubt.message) or Done(Action.SKIPPED, doubt)


def _undo(host: Host, entry: QuarantineEntry, why: str) -> Done | None:
    """Put the file back; where its name was taken meanwhile it stays whole in the quarantine, and that is told."""
    try:
        quarantine.give_back(host.base, entry)
    except quarantine.Occupied as occupied:
        return Done(Action.SKIPPED, Doubt(Reason.CONFLICT, f"{why}; {occupied}"), entry=entry)
    return None


def _in_use(path: Path) -> Doubt | None:
    """Whether a running qemu holds its image lock on the file. Raises OSError if it cannot be asked."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if locks.qemu_holds(fd):
            return Doubt(Reason.LOCKED_BY_QEMU, "a running qemu holds its image lock on it")
    finally:
        os.close(fd)
    return None


def _refresh(path: Path) -> None:
    """Say "used now", so that neither nova nor we find it old; what belongs to another user may refuse that."""
    try:
        os.utime(path)
    except PermissionError:
        return
