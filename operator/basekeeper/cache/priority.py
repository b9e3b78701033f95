"""Reads of one thread behind everybody else's: the disk's idle class, for as long as a block of code runs."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_CALLS = {"x86_64": (251, 252), "aarch64": (30, 31), "riscv64": (30, 31), "ppc64le": (273, 274), "s390x": (282, 283)}
"""Numbers of ioprio_set and ioprio_get, which the C library does not offer."""
_THIS_THREAD = (1, 0)
"""IOPRIO_WHO_PROCESS, and the one that calls."""
_IDLE = 3 << 13
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def idle() -> Iterator[None]:
    """Read and write in the idle class in this thread, and as before after it; where that cannot be had, as before."""
    calls = _CALLS.get(platform.machine())
    before = -1 if calls is None else _libc.syscall(calls[1], *_THIS_THREAD)
    if calls is None or before < 0 or _libc.syscall(calls[0], *_THIS_THREAD, _IDLE) < 0:
        yield
        return
    try:
        yield
    finally:
        _libc.syscall(calls[0], *_THIS_THREAD, before)
