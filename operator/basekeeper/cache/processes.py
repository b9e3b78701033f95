"""Which visible process has a file open: the last question before a file may go.

A process that reads a base takes no lock that others could see (rsync, qemu-img, a backup). From inside a
container only that container's own processes are visible, unless it shares the host's process ids, so an
empty answer is no evidence of disuse; it costs a `stat` for every open file, so it is asked for candidates only.
"""

import os
from collections.abc import Collection

from .evidence import Inode


def open_files(wanted: Collection[Inode]) -> dict[Inode, str]:
    """Of the files `wanted`, those that another process has open, and which: `process 4711 (rsync)`.

    Processes that vanish or may not be looked into are passed over. Raises nothing.
    """
    found: dict[Inode, str] = {}
    if not wanted:
        return found
    own = str(os.getpid())
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit() and name != own]
    except OSError:
        return found
    for process in processes:
        directory = f"/proc/{process}/fd"
        try:
            descriptors = os.listdir(directory)
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                status = os.stat(f"{directory}/{descriptor}")
            except OSError:
                continue
            inode = status.st_dev, status.st_ino
            if inode in wanted and inode not in found:
                found[inode] = f"process {process} ({_name_of(process)})"
    return found


def _name_of(process: str) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "gone"
