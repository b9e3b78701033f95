"""Which visible process has a file open: the last question before a file may go.

A process that reads a base takes no lock that others could see (rsync, qemu-img, a backup). From inside a
container only that container's own processes are visible, unless it shares the host's process ids, so an
empty answer is no evidence of disuse; it costs a `stat` for every open file, so it is asked for candidates only.
"""

import os
from collections.abc import Collection

from .evidence import Inode


def open_files(wanted: Collection[Inode], *, to_write: bool = False) -> dict[Inode, str]:
    """Of the files `wanted`, those that another process has open (`to_write`: only so), and which: `process 47 (cp)`.

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
            if inode not in wanted or inode in found:
                continue
            if not to_write or _writes(process, descriptor):
                found[inode] = f"process {process} ({_name_of(process)})"
    return found


def _writes(process: str, descriptor: str) -> bool:
    try:
        with open(f"/proc/{process}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as told:
            flags = next(line for line in told if line.startswith("flags:"))
    except (OSError, StopIteration):
        return False
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _name_of(process: str) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "gone"
