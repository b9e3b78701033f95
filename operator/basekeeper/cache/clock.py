"""Reads the clocks: the one place of the engine that does."""

import time
from pathlib import Path

from .memory import Clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read() -> Clock:
    """The time now. Without a boot id (no /proc) every reading counts as of another boot."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return Clock(wall=time.time(), uptime=time.clock_gettime(time.CLOCK_BOOTTIME), boot=boot)
