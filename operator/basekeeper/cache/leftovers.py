"""Instance directories without a domain: how much is in them, and when something in them last changed.

nova leaves them behind when a deletion or an evacuation fails half way, when a resize is neither confirmed nor
reverted, when a build breaks off. It also makes the directory of a new instance before its domain; what is that young
is for others to leave out. Nothing is said where it is not known which domains there are.

Every look finds them, which costs nothing beside the walk; only who reports measures them, which lists them once more.
"""

import os
from collections.abc import Iterator

from .entries import Directory
from .evidence import Inode, Leftover, Ownerless, Usage
from .files import DIRECTORY, open_quietly
from .machines import Machines, is_instance
from .names import display
from .settings import Host
from .tree import Tree


def find(host: Host, tree: Tree, machines: Machines) -> tuple[Ownerless, ...] | None:
    """Every one of them; None where there is no libvirt to ask."""
    if host.libvirt is None:
        return None
    owned = {one.path: [one] for one in tree.directories if is_instance(one) and machines.domain_of(one) is None}
    if owned:
        depth = bytes(host.instances).count(b"/") + 2
        for one in tree.directories:
            top = b"/".join(one.path.split(b"/", depth)[:depth])
            if top != one.path and top in owned:
                owned[top].append(one)
    return tuple(_ownerless(host, directories) for directories in owned.values())


def _ownerless(host: Host, directories: list[Directory]) -> Ownerless:
    """One of them: its own directory comes first, those in it after that."""
    top = directories[0]
    paths = tuple(directory.path for directory in directories)
    return Ownerless(display(host.shown(top.path)), paths, top.changed_at)


def measured(usage: Usage) -> tuple[Leftover, ...] | None:
    """What is in them now; None where they are not known. Raises nothing."""
    return None if usage.ownerless is None else tuple(map(_measured, usage.ownerless))


def _measured(one: Ownerless) -> Leftover:
    changed_at, allocated = one.changed_at, 0
    counted: set[Inode] = set()
    for directory in one.directories:
        for status in _statuses(directory):
            changed_at = max(changed_at, status.st_ctime)
            inode = status.st_dev, status.st_ino
            if inode not in counted:
                counted.add(inode)
                allocated += status.st_blocks * 512
    return Leftover(one.path, changed_at, allocated)


def _statuses(path: bytes) -> Iterator[os.stat_result]:
    """Of a directory and of what lies in it, as far as they can be read; links are not followed."""
    try:
        descriptor = open_quietly(path, DIRECTORY)
    except OSError:
        return
    try:
        yield os.fstat(descriptor)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False)
    except OSError:
        return  # it was renamed or deleted meanwhile, or cannot be listed: the walk has told that
    finally:
        os.close(descriptor)
