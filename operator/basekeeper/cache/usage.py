"""The observe half of a pass put together: everything that may need a base, and all that could not be asked.

The order matters. The instances tree is walked first and domains are asked after it, because nova defines a
domain last; then the tree is listed once more for directories that came or were renamed meanwhile. What the
headers mean is settled only then, because a domain may be the one who says what format a file has.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from . import domains, holders, leftovers, processes, storage
from .declared import Declared
from .disks import Chains, Link, Trace, believed
from .domain_xml import Domain, DomainDisk
from .entries import Disk
from .evidence import FileType, ImageUser, Inode, Inventory, Note, Part, Source, Unknown, Usage, User
from .files import identity_of, inode_at
from .machines import Machines, is_deleted, is_instance, is_leftover_name, is_missing, renamed_for_resize
from .names import Kind, display, original_of, parse
from .settings import Host
from .tree import Tree, TreeMark

_ROOT_DISKS = frozenset({b"disk", b"disk.rescue"})


class Gathered(NamedTuple):
    """What was found out."""

    usage: Usage
    mark: TreeMark
    """Of the tree that said so."""
    seconds: Mapping[Part, float]
    """How long each part took."""


def gather(host: Host, now: float, inventory: Inventory) -> Gathered:
    """What needs the files of `inventory` at `now` (Unix seconds).

    Changes nothing on the host. Raises `Unobservable` when the instances path cannot be read; whatever else
    cannot be read is an `Unknown` in the answer.
    """
    laps = _Laps()
    tree = Tree(host)
    tree.walk()
    laps.end(Part.DISKS)
    answer = domains.ask(host.libvirt, host.libvirt_timeout)
    laps.end(Part.LIBVIRT)
    tree.settle()
    evidence = _Evidence(host, now, inventory, tree, answer.domains)
    evidence.read_tree()
    evidence.read_foreign()
    for domain in answer.domains:
        evidence.read_domain(domain)
    if answer.failure is not None:
        evidence.unknown[None] = Unknown(answer.failure)
    ownerless = leftovers.find(host, tree, evidence.machines) if answer.failure is None else None
    shared = storage.look(host, now)
    laps.end(Part.DISKS)
    held = holders.look(host, inventory)
    wanted = holders.candidates(inventory, iter(evidence.by_name), held.qemu.union(evidence.by_inode))
    opened = processes.open_files(wanted)
    laps.end(Part.LOCKS)
    local = evidence.machines.local()
    usage = Usage(
        by_name={name: tuple(users) for name, users in evidence.by_name.items()},
        by_inode={inode: tuple(users) for inode, users in evidence.by_inode.items()},
        images={name: tuple(users) for name, users in evidence.images.items()},
        qemu_locks=frozenset(held.qemu),
        nova_locks=frozenset(held.nova),
        open_files=opened,
        unknown=(*tree.unknown, *evidence.unknown.values(), *shared.unknown, *held.unknown),
        spawns=tuple(evidence.machines.spawns(tree.directories, now)),
        spawn_grace=host.spawn_grace,
        unidentified_raw=tuple(evidence.unidentified_raw),
        nova_pass_at=shared.own_entry_at,
        nova_bases=frozenset(evidence.nova_bases),
        ownerless=ownerless,
        shared=shared.shared,
        directories=sum(map(is_instance, tree.directories)),
        domains=len(answer.domains),
        claimed=evidence.claimed(),
        registry=shared.others,
        registry_problem=shared.problem,
        registry_absent=shared.absent,
        libvirt_failure=answer.failure,
        homeless_domains=tuple(who for who, gone in local if gone),
        local_domains=len(local),
        notes=(*tree.notes, *evidence.declared.notes, *evidence.notes, *shared.notes),
    )
    return Gathered(usage, tree.mark, laps.seconds)


class _Laps:
    """A stopwatch: what ends is what has gone on since something ended last."""

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = {}
        self._since = time.monotonic()

    def end(self, part: Part) -> None:
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


@dataclass
class _Evidence:
    """What has been gathered so far; users are kept as dictionaries for their order and uniqueness."""

    host: Host
    now: float
    inventory: Inventory
    tree: Tree
    all_domains: Iterable[Domain]
    by_name: dict[bytes, dict[User, None]] = field(default_factory=dict)
    by_inode: dict[Inode, dict[User, None]] = field(default_factory=dict)
    images: dict[bytes, list[ImageUser]] = field(default_factory=dict)
    unknown: dict[str | None, Unknown] = field(default_factory=dict)
    """By path as shown: a disk that the walk and a domain both lead to is reported once."""
    unidentified_raw: list[str] = field(default_factory=list)
    nova_bases: set[bytes] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machines = Machines(self.host, self.all_domains)
        self.declared = Declared(self.host, self.tree.directories, self.all_domains)
        heads = {disk.head.inode: disk.head for disk in self.tree.disks if disk.head is not None}
        self.chains = Chains(self.host, self.declared, heads, self.now)
        self._walked = {disk.path: disk.head.inode for disk in self.tree.disks if disk.head is not None}
        self._cached = {file.inode for file in self.inventory.files} | {entry.inode for entry in self.inventory.entries}
        self._broken: set[Inode | bytes] = set()
        covered = [disk.path for domain in self.all_domains for disk in domain.disks if disk.covered]
        self._covered: set[Inode | bytes] = {*covered, *filter(None, map(inode_at, covered))}

    def read_tree(self) -> None:
        """Every disk that the walk found."""
        for disk in self.tree.disks:
            head = disk.head
            if head is None:
                self._fail(disk.path, f"cannot be read ({disk.error})")
                continue
            formats = self.declared.of_disk(disk)
            header = believed(head, formats, self.now, self.host.spawn_grace)
            if header is None:
                if head.size > 0:
                    self._note_raw(disk)
            elif isinstance(header, str):
                self._fail(disk.path, header, head.inode)
            else:
                trace = self.chains.trace(head, header, disk.directory.path)
                self._add_trace(disk.path, trace, head.inode)
                if self._is_root_of_nova(disk):
                    self.nova_bases.update(name for name in trace.names if parse(name).kind is Kind.ORIGINAL)
            if head.inode in self._cached:
                # A disk that is itself a base, by a link.
                self._add(User(Source.OVERLAY, self._show(disk.path)), (), (head.inode,))

    def read_domain(self, domain: Domain) -> None:
        """What one domain names, and the disks of it that the walk has not met."""
        user = User(Source.DOMAIN, domain.who)
        paths = (*domain.base_paths, *domain.boot_files)
        self._add(user, (path.rpartition(b"/")[2] for path in domain.base_paths), filter(None, map(inode_at, paths)))
        if domain.pooled:
            # nova never makes one: a hand-made domain, which may be built on anything.
            message = (
                f"{domain.who} has a disk in a storage pool ({domain.pooled[0]}), which basekeeper does not read; "
                "give the disk as a file, or acknowledge it if it is not built on a base"
            )
            self.unknown[domain.who] = Unknown(message, domain.who)
        needed = False
        for disk in (*domain.disks, *domain.mirrors):
            if disk.serial:
                self._read_volume(disk)
            else:
                lost = not self._read_domain_disk(domain, disk)
                needed = needed or (lost and disk.local_file and disk.device == "disk")
        for image in sorted(domain.nova.images) if domain.nova is not None else ():
            self.images.setdefault(original_of(image), []).append(ImageUser(domain.who, needed))

    def _read_volume(self, disk: DomainDisk) -> None:
        """A disk with a serial is a cinder volume, whose absence says nothing; but what can be read is never waived."""
        if not disk.block and not is_missing(disk.path) and self._walked.get(disk.path) != inode_at(disk.path):
            trace = self.chains.trace_path(Link(disk.path, frozenset({disk.format} if disk.format else ())))
            self._add(User(Source.OVERLAY, self._show(disk.path)), trace.names, trace.inodes)

    def claimed(self) -> dict[str, bool]:
        """The instance directories that belong to a domain, and whether it names the image that was booted."""
        found = ((one, self.machines.domain_of(one)) for one in self.tree.directories if is_instance(one))
        return {
            self._show(directory.path): domain.nova is not None and domain.nova.names_booted_image
            for directory, domain in found
            if domain is not None
        }

    def read_foreign(self) -> None:
        """Files in the cache that are not nova's: somebody's own image there may be built on a base."""
        for file in self.inventory.files:
            if file.type is FileType.REGULAR and file.name.kind is Kind.FOREIGN:
                path = bytes(self.host.base) + b"/" + file.name.raw
                trace = self.chains.trace_path(Link(path, frozenset()))
                inodes = trace.inodes - {file.inode}
                self._add(User(Source.OVERLAY, self._show(path)), trace.names, inodes)

    def _read_domain_disk(self, domain: Domain, disk: DomainDisk) -> bool:
        """Read a disk that a domain names unless the walk did; False if it is missing or unreadable."""
        renamed = renamed_for_resize(disk.path)
        if is_missing(disk.path):
            if not is_missing(renamed):
                return renamed not in self._broken
            shown = self._show(disk.path)
            self.notes.append(Note("DomainDiskMissing", f"{shown}, a disk of {domain.who}, is missing", shown))
            return False
        inode = inode_at(disk.path)
        if self._walked.get(disk.path) != inode:
            formats = frozenset({disk.format} if disk.format else ())
            link = Link(disk.path, formats)
            # After `blockcommit --pivot` a domain can run on a base itself: then it is the user, not its disk.
            user = User(Source.DOMAIN, domain.who) if self.chains.is_base(link) else None
            self._add_trace(disk.path, self.chains.trace_path(link), inode, user)
        return disk.path not in self._broken and inode not in self._broken

    def _add_trace(self, path: bytes, trace: Trace, inode: Inode | None, user: User | None = None) -> None:
        shown = self._show(path)
        self._add(user or User(Source.OVERLAY, shown), trace.names, trace.inodes)
        if trace.problems:
            self._fail(path, f"has a chain that cannot be followed to its end: {'; '.join(trace.problems)}", inode)
        if trace.looped:
            self.notes.append(Note("ChainLoop", f"the chain of backing files of {shown} leads back into itself", shown))

    def _add(self, user: User, names: Iterable[bytes], inodes: Iterable[Inode]) -> None:
        for name in names:
            self.by_name.setdefault(name, {})[user] = None
        for inode in inodes:
            self.by_inode.setdefault(inode, {})[user] = None

    def _is_root_of_nova(self, disk: Disk) -> bool:
        """Whether it is what nova's database knows best: the root disk of an instance that has its domain here."""
        directory = disk.directory
        if disk.name != b"disk" or not directory.top or directory.snapshots or is_leftover_name(directory):
            return False
        domain = self.machines.domain_of(directory)
        return domain is not None and domain.nova is not None

    def _note_raw(self, disk: Disk) -> None:
        """A raw root disk was made from some image: note it unless its domain says from which."""
        directory = disk.directory
        if disk.name not in _ROOT_DISKS or directory.snapshots or is_deleted(directory):
            return
        domain = self.machines.domain_of(directory)
        if domain is None or domain.nova is None or not domain.nova.names_booted_image:
            self.unidentified_raw.append(self._show(disk.path))

    def _fail(self, path: bytes, what: str, inode: Inode | None = None) -> None:
        """A disk that may need bases nobody can name; unless its running domain names them all."""
        inode = inode or inode_at(path)
        self._broken.add(path)
        if inode is not None:
            self._broken.add(inode)
        if path in self._covered or inode in self._covered:
            return
        shown = self._show(path)
        message = (
            f"{shown} {what}, so not all bases that it needs are known; "
            "let it be read, repair or remove it, or acknowledge it"
        )
        self.unknown.setdefault(shown, Unknown(message, shown, identity_of(path)))

    def _show(self, path: bytes) -> str:
        return display(self.host.shown(path))
