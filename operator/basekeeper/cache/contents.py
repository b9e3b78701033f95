"""What is known of the content of the files that lie in the cache: for judgement, and for reports."""

import os
from collections.abc import Collection, Sequence

from . import handles, quarantine
from .evidence import CachedFile, FileType, Inode, Inventory, Note
from .files import DIRECTORY, open_quietly
from .names import FINAL_KINDS, Kind, display, parse
from .settings import Host, Integrity, Policy
from .wholeness import Candidate, Flaw, Known, Wholeness, summed


def candidates(host: Host, files: Sequence[CachedFile]) -> tuple[Candidate, ...]:
    """The bases among these files, with their identities. Raises OSError if the cache cannot be opened."""
    bases = [file for file in files if file.type is FileType.REGULAR and file.name.kind in FINAL_KINDS]
    if not bases:
        return ()
    found = []
    directory = open_quietly(bytes(host.base), DIRECTORY)
    try:
        for file in bases:
            try:
                found.append(Candidate(file.name.raw, handles.of_entry(directory, file.name.raw), file.allocated))
            except OSError:
                continue  # it has just gone
    finally:
        os.close(directory)
    return tuple(found)


def identities(host: Host, inventory: Inventory) -> frozenset[str]:
    """The identities of all bases in the cache and of all that was removed. Raises OSError."""
    found = {item.identity for item in candidates(host, inventory.files)}
    for entry in inventory.entries:
        directory = open_quietly(bytes(quarantine.file_of(host.base, entry).parent), DIRECTORY)
        try:
            found.add(handles.of_entry(directory, entry.name.raw))
        finally:
            os.close(directory)
    return frozenset(found)


def damaged(host: Host, known: Known) -> dict[Inode, str]:
    """What is wrong with the files of the cache that were found corrupt, by inode; one that was replaced is another."""
    corrupt = [finding for finding in known.findings.values() if finding.flaw is Flaw.CORRUPT]
    if not corrupt or not host.base.is_dir():
        return {}
    found: dict[Inode, str] = {}
    directory = open_quietly(bytes(host.base), DIRECTORY)
    try:
        for finding in corrupt:
            try:
                status = os.stat(finding.name, dir_fd=directory, follow_symlinks=False)
                if handles.of_entry(directory, finding.name) == finding.identity:
                    found[status.st_dev, status.st_ino] = finding.message
            except OSError:
                continue
    finally:
        os.close(directory)
    return found


def sum_of(
    host: Host, policy: Policy, inventory: Inventory, used: Collection[bytes], known: Known, now: float
) -> Wholeness | None:
    """What is known of the content of the files that lie in the cache now; None: nobody wants to know.

    `used` are the names with evidence of use. Raises OSError if the cache cannot be opened.
    """
    if policy.integrity is None and not known.baselines and not known.findings:
        return None
    interval = (policy.integrity or Integrity()).interval
    rows = (
        (item.name, item.identity, parse(item.name).kind is Kind.ORIGINAL) for item in candidates(host, inventory.files)
    )
    return summed(rows, known, used, interval, now)


def notes(wholeness: Wholeness | None) -> tuple[Note, ...]:
    """What an operator should know of files that stay although they are damaged, or of which nobody knows that."""
    if wholeness is None:
        return ()
    told = []
    for finding in wholeness.findings:
        name = display(finding.name)
        if finding.flaw is Flaw.UNREADABLE:
            told.append(Note("BaseUnreadable", f"{name}: {finding.message}"))
        elif finding.identity in wholeness.in_use:
            told.append(Note("BaseCorrupt", f"{name} is in use, and {finding.message}"))
    return tuple(told)
