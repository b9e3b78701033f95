"""A few blocks kept back: on a file system without a free block even a removal has no room for its side-car.

A file in our own directory holds them. It is given up when an act finds no room, the act is tried once more, and the
file is made again when there is room. It may be missing or cut short at any time, as a killed process leaves it:
then less is kept back, and nothing else depends on it.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from . import quarantine
from .acts import Done, Failure
from .durable import own_like

SIZE = 1 << 20
"""Bytes: room for some hundred entries, and for a file system's own tables of new files."""
_ROOMY = 4 * SIZE
"""Bytes that must be free for it to be made: it takes nobody's last ones."""


def keep(base: Path, *, wanted: bool) -> None:
    """Have a reserve where there is room for one, or have none. Raises nothing: there may be better times."""
    path = _path(base)
    with contextlib.suppress(OSError):
        _draft(path).unlink(missing_ok=True)  # what a killed process left
        if not wanted:
            path.unlink(missing_ok=True)
        elif not _is_whole(path) and _is_roomy(base):
            _make(path, base)


def used_by(base: Path, act: Callable[[], Done]) -> Done:
    """Do something; once more, with what is kept back, where it failed for want of room."""
    done = act()
    return act() if done.failure is Failure.NO_SPACE and _give_up(_path(base)) else done


def _path(base: Path) -> Path:
    return base / quarantine.OWN_DIRECTORY / "reserve"


def _draft(path: Path) -> Path:
    return path.with_suffix(".new")


def _is_whole(path: Path) -> bool:
    try:
        return os.lstat(path).st_blocks * 512 >= SIZE
    except FileNotFoundError:
        return False


def _is_roomy(base: Path) -> bool:
    found = os.statvfs(base)
    return found.f_bavail * found.f_frsize >= _ROOMY


def _make(path: Path, base: Path) -> None:
    draft = _draft(path)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        finally:
            os.close(descriptor)
        own_like(draft, base)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _give_up(path: Path) -> bool:
    """Free the reserve; answers whether there was one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        there = os.fstat(descriptor).st_blocks > 0
        os.ftruncate(descriptor, 0)  # what is only unlinked some file systems free after a while
        os.fsync(descriptor)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return there
