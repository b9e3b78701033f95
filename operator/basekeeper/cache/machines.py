"""Which instance directory belongs to which domain, and what follows from having none.

A directory without a domain is a leftover, or an instance that is being built right now: nova makes the
directory and the disks first and defines the domain last, so a fresh directory without one may be about to
need any base. Domains without a directory mean that a file system is missing, not that instances are gone.
"""

import os
from collections.abc import Iterable, Iterator

from .domain_xml import Domain
from .entries import Directory
from .evidence import Inode, Spawn
from .files import inode_at
from .names import display
from .settings import Host

_RESIZE = b"_resize"
_DELETED = b"_del"


class Machines:
    """Finds the domain of a directory by name and by where the domain's files lie."""

    def __init__(self, host: Host, domains: Iterable[Domain]) -> None:
        self._host = host
        self._domains = tuple(domains)
        self._by_name: dict[bytes, Domain] = {}
        self._by_path: dict[bytes, Domain] = {}
        self._by_inode: dict[Inode, Domain] = {}
        instances = bytes(host.instances)
        for domain in self._domains:
            self._by_name[os.fsencode(domain.uuid)] = self._by_name[os.fsencode(domain.name)] = domain
            for path in (*(disk.path for disk in domain.disks), *domain.boot_files):
                self._add_parents(os.path.dirname(path), instances, domain)

    def _add_parents(self, directory: bytes, instances: bytes, domain: Domain) -> None:
        inode = inode_at(directory)
        if inode is not None:
            self._by_inode[inode] = domain
        while len(directory) > 1 and directory != instances and directory not in self._by_path:
            self._by_path[directory] = domain
            directory = os.path.dirname(directory)

    def domain_of(self, directory: Directory) -> Domain | None:
        """The domain that a walked directory belongs to."""
        return (
            self._by_name.get(directory.name)
            or self._by_name.get(directory.name.removesuffix(_RESIZE))
            or self._by_path.get(directory.path)
            or self._by_inode.get(directory.inode)
        )

    def spawns(self, directories: Iterable[Directory], now: float) -> Iterator[Spawn]:
        """Instance directories without a domain in which something changed within the host's grace."""
        grace = self._host.spawn_grace
        for directory in directories:
            # A change in the future counts: clocks step back, and a spawn must not be overlooked for that.
            if grace <= 0 or now - directory.changed_at >= grace:
                continue
            may_be_built = is_instance(directory) and not is_deleted(directory)
            if may_be_built and not self.domain_of(directory):
                yield Spawn(display(self._host.shown(directory.path)), directory.changed_at)

    def local(self) -> tuple[tuple[str, bool], ...]:
        """Nova's domains, and others in the instances path, with local disks; whether all their places are gone."""
        under = bytes(self._host.instances) + b"/"
        found = []
        for domain in self._domains:
            directories = {
                os.path.dirname(disk.path)
                for disk in domain.disks
                if disk.local_file
                and disk.device == "disk"
                and (domain.nova is not None or disk.path.startswith(under))
            }
            if directories:
                gone = all(is_missing(one) and is_missing(one + _RESIZE) for one in directories)
                found.append((domain.who, gone))
        return tuple(found)


def is_instance(directory: Directory) -> bool:
    """Whether it is an entry of the instances path that is there for an instance."""
    return directory.top and not directory.snapshots


def is_deleted(directory: Directory) -> bool:
    """Whether nova renamed it to delete it; failed deletions stay for years."""
    return directory.name.endswith(_DELETED)


def is_leftover_name(directory: Directory) -> bool:
    """Whether nova renamed it, to delete it or for a resize: what is in it is not what its database has here."""
    return directory.name.endswith((_RESIZE, _DELETED))


def renamed_for_resize(path: bytes) -> bytes:
    """Where a file lies after nova renamed its instance's directory for a resize."""
    directory, slash, name = path.rpartition(b"/")
    return directory + _RESIZE + slash + name


def is_missing(path: bytes) -> bool:
    """Whether nothing is at `path`; what may not be looked at is not missing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
