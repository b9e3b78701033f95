"""Which format a disk was declared as, by those who made it rather than by its first bytes.

A guest can write anything into a raw disk, a qcow2 header that names a base included; so a disk that is
declared raw is never believed to be anything else. Two sources speak: nova's `disk.info`, a JSON object
`{path: format}` beside the disks (`virt/libvirt/imagebackend.py`), and the driver types in domains' XML.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from .domain_xml import Domain
from .entries import Directory, Disk
from .evidence import Inode, Note
from .names import display
from .settings import Host

Formats: TypeAlias = frozenset[str]
"""Everything that was declared about one file; empty when nobody speaks."""

NOTHING: Formats = frozenset()
RAW: Formats = frozenset({"raw"})
_RESIZE = b"_resize"


class Declared:
    """What `disk.info` files and domains say about files, by path and by inode."""

    def __init__(self, host: Host, directories: Iterable[Directory], domains: Iterable[Domain]) -> None:
        self._host = host
        self._directories: Mapping[bytes, Directory] = {one.path: one for one in directories}
        self._infos: dict[bytes, Mapping[bytes, Formats]] = {}
        self._by_path: dict[bytes, Formats] = {}
        self._by_inode: dict[Inode, Formats] = {}
        self.notes: list[Note] = []
        for domain in domains:
            for disk in (*domain.disks, *domain.mirrors):
                if disk.format:
                    self._add(disk.path, disk.format)

    def _add(self, path: bytes, form: str) -> None:
        self._by_path[path] = self._by_path.get(path, NOTHING) | {form}
        try:
            status = os.stat(path)
        except OSError:
            return
        inode = status.st_dev, status.st_ino
        self._by_inode[inode] = self._by_inode.get(inode, NOTHING) | {form}

    def of_disk(self, disk: Disk) -> Formats:
        """What is declared about a walked disk."""
        formats = NOTHING
        if self._by_path:
            formats = self._from_domains(disk.directory.path, disk.name, disk.head.inode if disk.head else None)
        info = disk.directory.info
        if info is None:
            return formats
        # Parsing is spared when it cannot matter: a qcow header is believed unless all who speak say raw.
        somebody_says_raw = b"raw" in info or formats == RAW
        if somebody_says_raw or disk.head is None or disk.head.header is None:
            formats |= self._info(disk.directory).get(disk.name, NOTHING)
        return formats

    def of_path(self, path: bytes, inode: Inode) -> Formats:
        """What is declared about any file that a chain reaches."""
        parent, _, name = path.rpartition(b"/")
        directory = self._directories.get(parent)
        formats = self._info(directory).get(name, NOTHING) if directory is not None else NOTHING
        return formats | self._from_domains(parent, name, inode)

    def _from_domains(self, parent: bytes, name: bytes, inode: Inode | None) -> Formats:
        formats = self._by_path.get(parent + b"/" + name, NOTHING)
        if inode is not None:
            formats |= self._by_inode.get(inode, NOTHING)
        # A domain goes on naming the path that its directory had before nova renamed it for a resize.
        former = parent.removesuffix(_RESIZE)
        if former != parent and former not in self._directories:
            formats |= self._by_path.get(former + b"/" + name, NOTHING)
        return formats

    def _info(self, directory: Directory) -> Mapping[bytes, Formats]:
        if directory.info is None:
            return {}
        known = self._infos.get(directory.path)
        if known is None:
            known = self._infos[directory.path] = self._parse(directory, directory.info)
        return known

    def _parse(self, directory: Directory, info: bytes) -> Mapping[bytes, Formats]:
        # By file name: in a `_resize` directory the paths are still those from before the renaming.
        try:
            said = json.loads(info)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            path = display(self._host.shown(directory.path + b"/disk.info"))
            self.notes.append(
                Note("DiskInfoUnreadable", f"{path} is no JSON object, so it declares no format of any disk", path)
            )
            return {}
        formats: dict[bytes, Formats] = {}
        for path, form in said.items():
            if isinstance(form, str):
                name = path.encode("utf-8", "surrogatepass").rpartition(b"/")[2]
                formats[name] = formats.get(name, NOTHING) | {form}
        return formats
