"""Who holds a cached file right now: qemu's image locks, nova's locks, open descriptors.

These answers are about a moment. A held lock is evidence of use; a free one is evidence of nothing, which is
why they stand beside the headers and the domains and never instead of them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from .evidence import FileType, Inode, Inventory, Unknown
from .files import DIRECTORY, FILE, identity_of, open_quietly
from .locks import nova_holds, qemu_holds
from .names import Kind, Name, display
from .settings import Host


@dataclass(slots=True)
class Holders:
    """Locks seen on the files of an inventory."""

    qemu: set[Inode] = field(default_factory=set)
    nova: set[bytes] = field(default_factory=set)
    """Lock names."""
    unknown: list[Unknown] = field(default_factory=list)


def look(host: Host, inventory: Inventory) -> Holders:
    """Ask for qemu's and nova's locks on every file that may ever be removed, and on what was."""
    holders = Holders()
    files = [file for file in inventory.files if file.type is FileType.REGULAR and file.name.kind is not Kind.FOREIGN]
    for file in files:
        _ask_qemu(host, holders, bytes(host.base), file.name)
    for entry in inventory.entries:
        directory = bytes(host.base) + b"/.basekeeper/quarantine/" + os.fsencode(entry.id)
        _ask_qemu(host, holders, directory, entry.name)
    names = [file.name for file in files] + [entry.name for entry in inventory.entries]
    for lock_name in sorted({name.lock_name for name in names}):
        _ask_nova(host, holders, lock_name, frozenset(name.raw for name in names if name.lock_name == lock_name))
    return holders


def _ask_qemu(host: Host, holders: Holders, directory: bytes, name: Name) -> None:
    try:
        parent = open_quietly(directory, DIRECTORY)
        try:
            descriptor = open_quietly(name.raw, FILE | os.O_NOFOLLOW, parent)
        finally:
            os.close(parent)
        try:
            if qemu_holds(descriptor):
                status = os.fstat(descriptor)
                holders.qemu.add((status.st_dev, status.st_ino))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return
    except OSError as error:
        path = directory + b"/" + name.raw
        shown = display(host.shown(path))
        message = f"{shown} cannot be asked for qemu's locks ({error.strerror}), so a guest may be running on it"
        holders.unknown.append(Unknown(message, shown, identity_of(path), frozenset({name.raw})))


def _ask_nova(host: Host, holders: Holders, lock_name: bytes, files: frozenset[bytes]) -> None:
    try:
        if nova_holds(host.locks, lock_name):
            holders.nova.add(lock_name)
    except OSError as error:
        path = bytes(host.locks) + b"/nova-" + lock_name
        shown = display(host.shown(path))
        message = f"nova's lock {shown} cannot be asked ({error.strerror}), so nova may be at work there"
        holders.unknown.append(Unknown(message, shown, identity_of(path), files | {lock_name}))


def candidates(inventory: Inventory, used_names: Iterator[bytes], used: set[Inode]) -> set[Inode]:
    """The files that nothing is known to need: those whose open descriptors are worth asking for.

    `used` are inodes with users or locks.
    """
    names = set(used_names)
    found = {
        file.inode
        for file in inventory.files
        if file.type is FileType.REGULAR and file.name.kind is not Kind.FOREIGN and file.name.raw not in names
    }
    return (found - used) | {entry.inode for entry in inventory.entries}
