"""What is known of the content of the files that lie in the cache: for judgement, and for reports."""

import os
from collections.abc import Sequence

from . import handles
from .evidence import CachedFile, FileType, Inode
from .files import DIRECTORY, open_quietly
from .memory import Damage
from .names import FINAL_KINDS, Kind, parse
from .settings import Host
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


def damaged(host: Host, known: Known) -> dict[Inode, Damage]:
    """The files of the cache that were found corrupt, by inode. One that was replaced since is another file."""
    corrupt = [finding for finding in known.findings.values() if finding.flaw is Flaw.CORRUPT]
    if not corrupt or not host.base.is_dir():
        return {}
    found: dict[Inode, Damage] = {}
    directory = open_quietly(bytes(host.base), DIRECTORY)
    try:
        for finding in corrupt:
            try:
                status = os.stat(finding.name, dir_fd=directory, follow_symlinks=False)
                if handles.of_entry(directory, finding.name) == finding.identity:
                    found[status.st_dev, status.st_ino] = Damage(finding.message, host.spawn_grace)
            except OSError:
                continue
    finally:
        os.close(directory)
    return found


def sum_of(
    host: Host, files: Sequence[CachedFile], known: Known, used: frozenset[bytes], interval: float, now: float
) -> Wholeness:
    """What is known of these files' content. Raises OSError if the cache cannot be opened."""
    bases = candidates(host, files)
    rows = ((item.name, item.identity, parse(item.name).kind is Kind.ORIGINAL) for item in bases)
    return summed(rows, known, used, interval, now)
