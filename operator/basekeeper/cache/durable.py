"""Small file operations that survive a crash, and the rename that never replaces. Knows nothing of caches."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _naming(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create `path` with this content, durably; FileExistsError if something has the name.

    On any other OSError, which names the path, no part of it stays.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with _naming(path):
            with os.fdopen(fd, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename atomically; FileExistsError if `target` exists, with both files untouched.

    renameat2(2) with RENAME_NOREPLACE; on a file system without it (some network ones), link and unlink,
    which a crash can leave with both names: no content is lost, and the next start sees two links.
    """
    done = _libc.renameat2(_AT_FDCWD, bytes(source), _AT_FDCWD, bytes(target), _RENAME_NOREPLACE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    os.link(source, target, follow_symlinks=False)
    os.unlink(source)


def own_like(path: Path, like: Path) -> None:
    """Give `path` the owner and group of `like` where we are root, so that what runs as nova can use it."""
    if os.geteuid() == 0:
        model, found = os.stat(like), os.lstat(path)
        if (found.st_uid, found.st_gid) != (model.st_uid, model.st_gid):
            os.chown(path, model.st_uid, model.st_gid, follow_symlinks=False)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of a call that was given a descriptor say which file it is about."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
