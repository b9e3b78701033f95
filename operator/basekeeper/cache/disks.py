"""From a disk's header down its chain of backing files, to the bases that it needs.

A chain is followed to its end, because nova's own manager looks one step deep and has removed bases of
longer chains. It ends at a base: a file directly in `_base` under a name of nova's. What is no base and
is missing, or cannot be read, makes the rest of the chain unknown. This module walks and remembers; what
bytes mean is `qcow2`'s and `backing`'s to say, what may go is `plan`'s.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from . import backing, qcow2
from .declared import RAW, Declared, Formats
from .evidence import Inode
from .files import Head, inode_at, read_head_of, why
from .names import display, is_final
from .settings import Host

# Formats that cannot have a backing file; `qemu-img create -b` refuses them.
_WITHOUT_BACKING = frozenset(
    {"raw", "luks", "vdi", "vpc", "vhdx", "parallels", "ploop", "bochs", "cloop", "dmg", "iso"}
)
_QCOW = frozenset({"qcow2", "qcow"})
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Link(NamedTuple):
    """A file that a header names, and as what."""

    path: bytes
    formats: Formats


@dataclass(slots=True)
class Step:
    """What one file contributes to every chain that passes it."""

    base: bytes | None = None
    """Its name, if that is a base's, wherever it lies."""
    inode: Inode | None = None
    missing: bool = False
    next: tuple[Link, ...] = ()
    names: tuple[bytes, ...] = ()
    """Bases named by it that are no local files."""
    problem: str | None = None
    """Why it may lead further than `next`: a clause about it."""


@dataclass(slots=True)
class Trace:
    """What one disk's chain reaches."""

    names: set[bytes] = field(default_factory=set)
    inodes: set[Inode] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    looped: bool = False


def believed(head: Head, formats: Formats, now: float, grace: float) -> qcow2.Header | str | None:
    """The header of a file that is declared as `formats`: to be believed, None (names nothing), or a problem.

    `grace` is how long, in seconds, an empty file may be one that is just being made.
    """
    if formats == RAW or head.header is not None:
        return None if formats == RAW else head.header
    if head.size == 0:
        age = now - head.changed_at
        # With a grace of 0 nothing is being made here, whatever the clocks say.
        return f"is empty and only {max(0.0, age):.0f} s old" if grace > 0 and age < grace else None
    if head.cut_magic:
        return "is cut off within the first four bytes of a qcow2 header"
    if formats & _QCOW:
        return "is declared qcow2 but does not begin like it"
    strange = sorted(display(one.encode()) for one in formats - _WITHOUT_BACKING)
    return f"is declared {', '.join(strange)}, which basekeeper does not read" if strange else None


class Chains:
    """Follows chains, remembering every file that it has looked at: thousands of disks share a few bases."""

    def __init__(self, host: Host, declared: Declared, heads: Mapping[Inode, Head], now: float) -> None:
        """`heads` are the files that the walk has read already."""
        self._host = host
        self._declared = declared
        self._heads = heads
        self._now = now
        self._steps: dict[Link, Step] = {}
        self._specs: dict[bytes, backing.Backing] = {}
        self._traces: dict[tuple[bytes, str | None, str | None], Trace] = {}
        self._in_base: dict[bytes, bool] = {bytes(host.base): True, os.path.realpath(bytes(host.base)): True}
        self._base_inode = inode_at(bytes(host.base))

    def trace(self, head: Head, header: qcow2.Header, directory: bytes) -> Trace:
        """The chain of a disk that was opened in `directory`."""
        if header.backing is not None and header.backing.startswith(b"/") and header.data_file is None:
            # Nothing in it depends on where the disk lies, so disks over one base share it, unless it leads back.
            key = header.backing, header.backing_format, header.problem
            shared = self._traces.get(key)
            if shared is None:
                shared = self._traces[key] = self._follow(self._step_of(header, directory))
            if head.inode not in shared.inodes:
                return shared
        first = self._step_of(header, directory)
        first.inode = head.inode
        return self._follow(first)

    def trace_path(self, link: Link) -> Trace:
        """The chain that begins with a file named by a domain."""
        return self._follow(Step(next=(link,)))

    def _follow(self, first: Step) -> Trace:
        trace = Trace()
        seen = {first.inode}
        # Each entry knows the one that led to it: seeing a file again is a loop only on the way down from it.
        way: list[tuple[Step, int]] = [(first, -1)]
        for at, (step, _) in enumerate(way):
            trace.names.update(step.names)
            if step.problem is not None:
                trace.problems.append(step.problem)
            for link in step.next:
                found = self._steps.get(link) or self._look(link)
                if found.base is not None:
                    trace.names.add(found.base)
                if found.inode is not None:
                    trace.inodes.add(found.inode)
                    if found.inode in seen:
                        trace.looped = trace.looped or _leads_back(way, at, found.inode)
                        continue
                    seen.add(found.inode)
                way.append((found, at))
        return trace

    def _look(self, link: Link) -> Step:
        step = self._steps[link] = self._look_anew(link)
        return step

    def _look_anew(self, link: Link) -> Step:
        path, formats = link
        parent, _, name = path.rpartition(b"/")
        step = Step(base=name if is_final(name) else None)
        is_base = step.base is not None and self._is_base_directory(parent)
        try:
            status = os.stat(path)
        except OSError as error:
            step.missing = error.errno in _MISSING
            if not (is_base and step.missing):
                reason = "is missing" if step.missing else f"cannot be looked at ({why(error, path)})"
                step.problem = f"{self._show(path)} {reason}"
            return step
        step.inode = status.st_dev, status.st_ino
        if is_base:
            # What is declared to be anything but qcow2 has no names to give: a base's header is a user's content.
            may_name = not formats or bool(formats & _QCOW)
        else:
            formats |= self._declared.of_path(path, step.inode)
            may_name = formats != RAW
        if may_name:
            self._read_on(step, path, formats, is_base=is_base, status=status)
        return step

    def _read_on(self, step: Step, path: bytes, formats: Formats, *, is_base: bool, status: os.stat_result) -> None:
        """Add what the header of an existing file names."""
        parent = path.rpartition(b"/")[0]
        head = self._heads.get((status.st_dev, status.st_ino))
        try:
            # What the walk read is good only while the file is the same: inode numbers are used again at once.
            if head is None or not head.is_of(status):
                head = read_head_of(path)
        except OSError as error:
            step.problem = f"{self._show(path)} cannot be read ({why(error, path)})"
            return
        header = believed(head, formats, self._now, self._host.spawn_grace)
        if isinstance(header, str):
            step.problem = f"{self._show(path)} {header}"
        elif header is not None:
            further = self._step_of(header, parent)
            step.next, step.names, problem = further.next, further.names, further.problem
            if is_base:
                # A base's content comes from a user: it may need its neighbours, nothing else is its business.
                step.next, step.names, problem = tuple(filter(self.is_base, step.next)), (), header.problem
            if problem is not None:
                step.problem = f"{self._show(path)} {problem}"

    def _step_of(self, header: qcow2.Header, directory: bytes) -> Step:
        """What a header names, seen from the directory that its file was opened in."""
        step = Step(problem=header.problem)
        if header.backing is not None:
            said = self._parse(header.backing)
            declared = frozenset(one for one in (header.backing_format, said.format) if one)
            step.next = tuple([Link(_join(directory, path), declared) for path in said.paths])
            step.names = tuple(name for name in said.remote_names if is_final(name))
            step.problem = step.problem or said.problem
        if header.data_file is not None:
            self._add_data_file(step, header.data_file, directory)
        return step

    def _add_data_file(self, step: Step, spec: bytes, directory: bytes) -> None:
        """An external data file is raw: it is needed, but names nothing, and without it the disk is lost anyway."""
        said = self._parse(spec)
        links = [Link(_join(directory, path), RAW) for path in said.paths]
        step.next += tuple(link for link in links if not self._look(link).missing)
        step.names += tuple(name for link in links if is_final(name := link.path.rpartition(b"/")[2]))
        step.names += tuple(name for name in said.remote_names if is_final(name))
        step.problem = step.problem or said.problem

    def _parse(self, spec: bytes) -> backing.Backing:
        said = self._specs.get(spec)
        if said is None:
            said = self._specs[spec] = backing.parse(spec)
        return said

    def is_base(self, link: Link) -> bool:
        """Whether the link leads directly into `_base`, to a name that disks are built on."""
        parent, _, name = link.path.rpartition(b"/")
        return is_final(name) and self._is_base_directory(parent)

    def _is_base_directory(self, path: bytes) -> bool:
        known = self._in_base.get(path)
        if known is None:
            known = self._in_base[path] = self._base_inode is not None and inode_at(path) == self._base_inode
        return known

    def _show(self, path: bytes) -> str:
        return display(self._host.shown(path))


def _leads_back(way: list[tuple[Step, int]], at: int, inode: Inode) -> bool:
    """Whether the file `inode` is the entry `at` or one that led to it."""
    while at >= 0:
        step, at = way[at]
        if step.inode == inode:
            return True
    return False


def _join(directory: bytes, path: bytes) -> bytes:
    # As qemu does, without normalising: `..` after a symbolic link is the kernel's to resolve.
    return path if path[:1] == b"/" else directory + b"/" + path
