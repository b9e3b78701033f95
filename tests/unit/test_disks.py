"""From a tree of instances to the bases that it needs: real directories, real header bytes."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.cache import domains, inventory, usage
from basekeeper.cache.domain_xml import Domain, DomainDisk, Nova
from basekeeper.cache.domains import Answer
from basekeeper.cache.evidence import Inventory, Source, Usage, User
from basekeeper.cache.files import Unobservable
from basekeeper.cache.names import original_of
from basekeeper.cache.settings import Host
from tests.unit.qcow2_bytes import qcow2

A, B, C = (original_of(image) for image in "abc")
UUID = "11111111-2222-3333-4444-555555555555"
NOW = 4_000_000_000.0
"""Far in the future: every file of these trees is old."""


class Node:
    """A compute node's instances path."""

    def __init__(self, root: Path) -> None:
        self.instances = root / "instances"
        self.base = self.instances / "_base"
        self.base.mkdir(parents=True)
        self.host = Host("node1", self.instances, self.base, self.instances / "snapshots", root / "state", libvirt=None)
        for name in (A, B, C):
            self.cached(name)

    def cached(self, name: bytes, content: bytes = b"raw content") -> Path:
        path = self.base / os.fsdecode(name)
        path.write_bytes(content)
        return path

    def put(self, path: str, content: bytes) -> Path:
        there = self.instances / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        return there

    def overlay(self, path: str, backing: bytes | Path, form: bytes | None = b"raw") -> Path:
        return self.put(path, qcow2(bytes(backing), form))

    def in_base(self, name: bytes) -> bytes:
        return bytes(self.base) + b"/" + name

    def info(self, directory: str, **formats: str) -> None:
        content = {f"/old/place/{name.replace('_', '.')}": form for name, form in formats.items()}
        self.put(f"{directory}/disk.info", json.dumps(content).encode())

    def gather(self, now: float = NOW, **changes: object) -> Usage:
        return usage.gather(replace(self.host, **changes), now, Inventory())[0]  # type: ignore[arg-type]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def overlays(*paths: str) -> tuple[User, ...]:
    return tuple(User(Source.OVERLAY, path) for path in paths)


@pytest.mark.parametrize(
    "directory", [UUID, f"{UUID}_resize", f"{UUID}_del", "instance-0000001a", "backup of something", "a/b/c"]
)
def test_every_directory_counts(node: Node, directory: str) -> None:
    node.overlay(f"{directory}/disk", node.in_base(A))
    found = node.gather()
    assert found.by_name == {A: overlays(f"{directory}/disk")}
    inode = (node.base / A.decode()).stat()
    assert found.by_inode == {(inode.st_dev, inode.st_ino): overlays(f"{directory}/disk")}
    assert not found.unknown


@pytest.mark.parametrize("name", ["disk", "disk.local", "disk.swap", "disk.eph0", "disk.rescue", "disk.config", "vda"])
def test_every_disk_counts(node: Node, name: str) -> None:
    node.overlay(f"{UUID}/{name}", node.in_base(A))
    assert A in node.gather().by_name


@pytest.mark.parametrize("path", ["_base/x/disk", "locks/disk", "lost+found/disk", f"{UUID}/console.log"])
def test_what_is_no_instance_does_not_count(node: Node, path: str) -> None:
    node.overlay(path, node.in_base(A))
    assert node.gather().by_name == {}


@pytest.mark.parametrize("path", ["disk", "vm.qcow2"])
def test_a_disk_in_the_instances_path_itself_counts(node: Node, path: str) -> None:
    node.overlay(path, node.in_base(A))
    assert node.gather().by_name == {A: overlays(path)}


def test_a_link_to_a_directory_inside_an_instances_is_followed(node: Node, tmp_path: Path) -> None:
    (tmp_path / "other-disk").mkdir()
    (tmp_path / "other-disk" / "disk").write_bytes(qcow2(node.in_base(A), b"raw"))
    (node.instances / UUID).mkdir()
    (node.instances / UUID / "sub").symlink_to(tmp_path / "other-disk")
    assert node.gather().by_name == {A: overlays(f"{UUID}/sub/disk")}


def test_somebodys_own_image_in_the_cache_keeps_what_it_is_built_on(node: Node) -> None:
    node.overlay("_base/golden.qcow2", node.in_base(A))
    assert usage.gather(node.host, NOW, inventory.scan(node.host))[0].by_name == {A: overlays("_base/golden.qcow2")}


def test_a_base_directory_of_another_name_is_not_walked(node: Node) -> None:
    node.overlay("_base_10.0.0.1/disk", node.in_base(A))
    assert node.gather(base=node.instances / "_base_10.0.0.1").by_name == {}


def test_deltas_of_live_snapshots_count_wherever_they_are(node: Node, tmp_path: Path) -> None:
    node.overlay("snapshots/tmp1/0123.delta", node.in_base(A))
    elsewhere = tmp_path / "snapshots"
    (elsewhere / "tmp2").mkdir(parents=True)
    (elsewhere / "tmp2" / "0123.delta").write_bytes(qcow2(node.in_base(B), b"raw"))
    assert node.gather().by_name.keys() == {A}
    assert node.gather(snapshots=elsewhere).by_name.keys() == {A, B}


def test_a_symlinked_instance_resolves_relative_names_where_it_really_lies(node: Node, tmp_path: Path) -> None:
    other = tmp_path / "volume2" / "deep" / UUID
    other.mkdir(parents=True)
    (tmp_path / "volume2" / "deep" / "_base").symlink_to(node.base)
    (other / "disk").write_bytes(qcow2(b"../_base/" + A, b"raw"))
    (node.instances / UUID).symlink_to(other)
    found = node.gather()
    assert found.by_name == {A: overlays(f"{UUID}/disk")}
    assert not found.unknown


SPECS: dict[str, Callable[[Node], bytes]] = {
    "absolute": lambda node: node.in_base(A),
    "relative": lambda _: b"../_base/" + A,
    "file:": lambda node: b"file:" + node.in_base(A),
    "json": lambda node: b'json:{"driver":"raw","file":{"driver":"file","filename":"' + node.in_base(A) + b'"}}',
    "through a symlink": lambda node: bytes(node.instances.parent / "link" / A.decode()),
}


@pytest.mark.parametrize("case", SPECS)
def test_specifications(node: Node, case: str) -> None:
    (node.instances.parent / "link").symlink_to(node.base)
    node.overlay(f"{UUID}/disk", SPECS[case](node))
    found = node.gather()
    assert found.by_name.keys() == {A}
    assert len(found.by_inode) == 1
    assert not found.unknown


def test_a_chain_is_followed_to_its_end_however_long(node: Node) -> None:
    below = node.in_base(A)
    for number in range(300):
        below = bytes(node.overlay(f"{UUID}/disk.{number}", below, b"qcow2" if number else b"raw"))
    found = node.gather()
    assert len(found.by_name[A]) == 300
    assert not found.unknown


def test_a_missing_base_ends_the_chain_and_holds_nothing(node: Node) -> None:
    node.overlay(f"{UUID}_del/disk", node.in_base(b"f" * 40))
    found = node.gather()
    assert found.by_name.keys() == {b"f" * 40}
    assert not found.unknown


@pytest.mark.parametrize("missing", ["_base/upload.tmp", f"{UUID}/disk.mid", "/nowhere/" + "f" * 40])
def test_any_other_missing_element_is_unknown(node: Node, missing: str) -> None:
    disk = node.overlay(f"{UUID}/disk", bytes(node.instances / missing), b"qcow2")
    (unknown,) = node.gather().unknown
    assert unknown.path == f"{UUID}/disk"
    assert "is missing" in unknown.message
    assert unknown.identity is not None
    assert unknown.identity.inode == disk.stat().st_ino


def test_a_loop_is_a_note(node: Node) -> None:
    node.overlay(f"{UUID}/disk", bytes(node.instances / UUID / "disk.b"), b"qcow2")
    node.overlay(f"{UUID}/disk.b", bytes(node.instances / UUID / "disk"), b"qcow2")
    found = node.gather()
    assert [note.about for note in found.notes] == ["ChainLoop", "ChainLoop"]
    assert not found.unknown


class TestBasesThatAreQcow2:
    """With force_raw_images=False a base is an overlay itself, and its content is a user's."""

    def test_needs_its_neighbour(self, node: Node) -> None:
        node.cached(A, qcow2(node.in_base(B), b"qcow2"))
        node.overlay(f"{UUID}/disk", node.in_base(A), b"qcow2")
        assert node.gather().by_name.keys() == {A, B}

    def test_is_not_read_when_it_is_declared_raw(self, node: Node) -> None:
        node.cached(A, qcow2(node.in_base(B)))
        node.overlay(f"{UUID}/disk", node.in_base(A), b"raw")
        assert node.gather().by_name.keys() == {A}

    @pytest.mark.parametrize("spec", [b"/etc/passwd", b"fat:x", b"nbd://h/" + C, b"/elsewhere/" + C])
    def test_nothing_outside_is_its_business(self, node: Node, spec: bytes) -> None:
        node.cached(A, qcow2(spec))
        node.overlay(f"{UUID}/disk", node.in_base(A), b"qcow2")
        found = node.gather()
        assert found.by_name.keys() == {A}
        assert not found.unknown

    def test_one_that_cannot_be_read_is_unknown(self, node: Node) -> None:
        node.cached(A, qcow2()[:50])
        node.overlay(f"{UUID}/disk", node.in_base(A), b"qcow2")
        (unknown,) = node.gather().unknown
        assert unknown.path == f"{UUID}/disk"


class TestDeclaredFormats:
    def test_a_disk_declared_raw_is_not_believed_to_be_qcow2(self, node: Node) -> None:
        node.overlay(f"{UUID}/disk", node.in_base(A))
        node.info(UUID, disk="raw")
        found = node.gather()
        assert found.by_name == {}
        assert found.unidentified_raw == (f"{UUID}/disk",)

    def test_nobody_declares_it_so_it_counts(self, node: Node) -> None:
        node.overlay(f"{UUID}/disk", node.in_base(A))
        node.info(UUID, disk_local="raw")
        assert A in node.gather().by_name

    @pytest.mark.parametrize("info", [b"{", b"[]", b'{"/x/disk": 7, "raw": 1}', b"x" * (1 << 20) + b"raw"])
    def test_a_malformed_disk_info_does_not_speak(self, node: Node, info: bytes) -> None:
        node.overlay(f"{UUID}/disk", node.in_base(A))
        node.put(f"{UUID}/disk.info", info)
        assert A in node.gather().by_name

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"no header", "does not begin like it"), (b"QF", "four bytes"), (b"QFI\xfb\0\0", "cut off")],
    )
    def test_declared_qcow2_but_is_none(self, node: Node, content: bytes, said: str) -> None:
        node.put(f"{UUID}/disk", content)
        node.info(UUID, disk="qcow2")
        (unknown,) = node.gather().unknown
        assert said in unknown.message

    def test_a_format_that_is_not_read(self, node: Node) -> None:
        node.put(f"{UUID}/disk", b"KDMV")
        node.info(UUID, disk="vmdk")
        (unknown,) = node.gather().unknown
        assert "vmdk, which basekeeper does not read" in unknown.message

    def test_undeclared_without_magic_is_raw(self, node: Node) -> None:
        node.put(f"{UUID}/disk", b"KDMV")
        found = node.gather()
        assert not found.unknown
        assert found.unidentified_raw == (f"{UUID}/disk",)

    def test_an_empty_disk_is_unknown_only_while_it_may_be_being_made(self, node: Node) -> None:
        disk = node.put(f"{UUID}/disk", b"")
        node.info(UUID, disk="qcow2")
        now = disk.stat().st_mtime + 5
        (unknown,) = node.gather(now).unknown
        assert "empty and only 5 s old" in unknown.message
        assert not node.gather(now + 600).unknown
        assert not node.gather(now, spawn_grace=0).unknown
        assert not node.gather().unidentified_raw


class TestThingsNamedLikeDisks:
    def test_are_notes(self, node: Node) -> None:
        directory = node.instances / UUID
        directory.mkdir()
        os.mkfifo(directory / "disk.fifo")
        (directory / "disk.directory").mkdir()
        (directory / "disk.dangling").symlink_to("nowhere")
        (directory / "disk.loop").symlink_to("disk.loop")
        (node.instances / "dangling").symlink_to("nowhere")
        found = node.gather()
        assert sorted(note.about for note in found.notes) == ["DanglingLink"] * 3 + ["NotAFile"] * 2
        assert not found.unknown

    def test_a_symlinked_disk_is_followed(self, node: Node, tmp_path: Path) -> None:
        (tmp_path / "volume").write_bytes(qcow2(node.in_base(A), b"raw"))
        (node.instances / UUID).mkdir()
        (node.instances / UUID / "disk").symlink_to(tmp_path / "volume")
        assert A in node.gather().by_name


def test_what_lies_too_deep_is_unknown(node: Node) -> None:
    node.overlay("1/2/3/4/5/6/7/8/disk", node.in_base(A))
    assert not node.gather().unknown
    node.overlay("1/2/3/4/5/6/7/8/9/disk", node.in_base(B))
    found = node.gather()
    assert [unknown.path for unknown in found.unknown] == ["1/2/3/4/5/6/7/8/9"]
    assert A in found.by_name


def test_without_an_instances_path_nothing_can_be_said(node: Node) -> None:
    with pytest.raises(Unobservable, match="cannot be read"):
        node.gather(instances=node.instances / "gone")


def test_looking_changes_no_time_stamp(node: Node) -> None:
    node.overlay(f"{UUID}/disk", node.in_base(A), b"qcow2")
    node.info(UUID, disk="raw")
    paths = [node.instances, *node.instances.rglob("*")]
    for path in paths:
        os.utime(path, (1, 1))
    before = {path: path.stat() for path in paths}
    node.gather()
    assert {path: path.stat() for path in paths} == before


def test_a_mark_tells_which_directories_changed(node: Node) -> None:
    node.overlay(f"{UUID}/disk", node.in_base(A))
    _, mark, _ = usage.gather(node.host, NOW, Inventory())
    assert mark.changed_since() == ()
    node.put(f"{UUID}/disk.swap", b"")
    assert mark.changed_since() == (bytes(node.instances / UUID),)
    _, mark, _ = usage.gather(node.host, NOW, Inventory())
    (node.instances / UUID).rename(node.instances / f"{UUID}_del")
    assert set(mark.changed_since()) == {bytes(node.instances), bytes(node.instances / UUID)}


class TestMovingDirectories:
    """nova renames `<uuid>` to `<uuid>_resize` and `<uuid>_del` at any time."""

    def test_what_appears_while_domains_are_asked_is_found(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        def ask(_uri: str | None, _timeout: float) -> Answer:
            node.overlay(f"{UUID}/disk", node.in_base(A))
            return Answer()

        monkeypatch.setattr(domains, "ask", ask)
        assert A in node.gather().by_name

    def test_what_was_renamed_while_domains_are_asked_is_read_again(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its inode alone does not tell a renamed directory from a new one that got a deleted one's number."""
        node.overlay(f"{UUID}/disk", b"../_base/" + A)
        node.put(f"{UUID}/nested/disk", b"raw")

        def ask(_uri: str | None, _timeout: float) -> Answer:
            (node.instances / UUID).rename(node.instances / f"{UUID}_resize")
            node.overlay(f"{UUID}_resize/disk.swap", node.in_base(B))
            return Answer()

        monkeypatch.setattr(domains, "ask", ask)
        found, mark, _ = usage.gather(node.host, NOW, Inventory())
        assert found.by_name == {A: overlays(f"{UUID}_resize/disk"), B: overlays(f"{UUID}_resize/disk.swap")}
        assert found.unidentified_raw == (f"{UUID}_resize/nested/disk",)
        assert (found.directories, found.unknown, mark.changed_since()) == (1, (), ())

    def test_a_directory_renamed_between_listing_and_opening_is_found(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node.overlay(f"{UUID}/disk", node.in_base(A))
        really_open = os.open

        def rename_first(path: object, flags: int, *rest: object, **named: object) -> int:
            if path == UUID and (node.instances / UUID).exists():
                (node.instances / UUID).rename(node.instances / f"{UUID}_resize")
            return really_open(path, flags, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", rename_first)
        found = node.gather()
        assert found.by_name == {A: overlays(f"{UUID}_resize/disk")}
        assert not found.unknown

    def test_a_disk_renamed_between_listing_and_opening_is_found(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = node.overlay(f"{UUID}/disk", node.in_base(A))
        really_open = os.open

        def rename_first(path: object, flags: int, *rest: object, **named: object) -> int:
            if path == "disk" and disk.exists():
                disk.rename(disk.with_name("disk.old"))
            return really_open(path, flags, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", rename_first)
        assert node.gather().by_name == {A: overlays(f"{UUID}/disk.old")}


class TestDomains:
    """What domains add to the headers; libvirt itself is not asked here."""

    @pytest.fixture
    def with_domain(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Usage]:
        def gather(domain: Domain, failure: str | None = None, **changes: object) -> Usage:
            monkeypatch.setattr(domains, "ask", lambda _uri, _timeout: Answer((domain,), failure))
            return node.gather(**changes)  # type: ignore[arg-type]

        return gather

    def domain(self, node: Node, *disks: str, form: str = "qcow2", covered: bool = False, **more: object) -> Domain:
        found = tuple(DomainDisk(bytes(node.instances / disk), form, covered=covered) for disk in disks)
        return Domain(UUID, "instance-1", disks=found, **more)  # type: ignore[arg-type]

    def test_a_path_anywhere_counts(self, node: Node, with_domain: Callable[..., Usage]) -> None:
        found = with_domain(Domain(UUID, "x", base_paths=frozenset({node.in_base(B)})))
        assert found.by_name == {B: (User(Source.DOMAIN, f"domain {UUID}"),)}
        assert len(found.by_inode) == 1
        assert found.domains == 1

    def test_a_disk_elsewhere_is_read(self, node: Node, with_domain: Callable[..., Usage], tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere.qcow2"
        elsewhere.write_bytes(qcow2(node.in_base(B), b"raw"))
        disk = DomainDisk(bytes(elsewhere), "qcow2")
        assert with_domain(Domain(UUID, "x", disks=(disk,))).by_name == {B: overlays(str(elsewhere))}
        assert with_domain(Domain(UUID, "x", disks=(replace(disk, format="raw"),))).by_name == {}

    def test_a_volume_counts_where_it_can_be_read_and_its_absence_says_nothing(
        self, node: Node, with_domain: Callable[..., Usage], tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "volume-1"
        elsewhere.write_bytes(qcow2(node.in_base(B), b"raw"))
        volume = DomainDisk(bytes(elsewhere), "qcow2", serial=True)
        assert with_domain(Domain(UUID, "x", disks=(volume,))).by_name == {B: overlays(str(elsewhere))}
        elsewhere.unlink()
        found = with_domain(Domain(UUID, "x", disks=(volume,)))
        assert (found.by_name, found.unknown, found.notes) == ({}, (), ())

    def test_a_domain_that_runs_on_a_base_is_its_user(self, node: Node, with_domain: Callable[..., Usage]) -> None:
        found = with_domain(self.domain(node, f"_base/{A.decode()}", form="raw"))
        assert found.by_name == {A: (User(Source.DOMAIN, f"domain {UUID}"),)}

    def test_a_mirror_is_read(self, node: Node, with_domain: Callable[..., Usage], tmp_path: Path) -> None:
        (tmp_path / "copy").write_bytes(qcow2(node.in_base(B), b"raw"))
        mirror = DomainDisk(bytes(tmp_path / "copy"), "qcow2")
        assert B in with_domain(Domain(UUID, "x", mirrors=(mirror,))).by_name

    def test_all_who_speak_must_say_raw(self, node: Node, with_domain: Callable[..., Usage]) -> None:
        node.overlay(f"{UUID}/disk", node.in_base(A))
        assert with_domain(self.domain(node, f"{UUID}/disk", form="raw")).by_name == {}
        node.info(UUID, disk="qcow2")
        assert A in with_domain(self.domain(node, f"{UUID}/disk", form="raw")).by_name

    def test_a_domain_speaks_for_its_directory_renamed_for_a_resize(
        self, node: Node, with_domain: Callable[..., Usage]
    ) -> None:
        node.overlay(f"{UUID}_resize/disk", node.in_base(A))
        found = with_domain(self.domain(node, f"{UUID}/disk", form="raw", nova=Nova()))
        assert found.by_name == {}
        assert not found.notes
        assert not found.homeless_domains

    def test_a_running_domain_covers_a_disk_that_cannot_be_read(
        self, node: Node, with_domain: Callable[..., Usage]
    ) -> None:
        node.put(f"{UUID}/disk", b"garbage")
        found = with_domain(self.domain(node, f"{UUID}/disk", covered=True, nova=Nova(frozenset({"a"}), "31")))
        assert not found.unknown
        assert [user.needed for user in found.images[A]] == [True]
        (unknown,) = with_domain(self.domain(node, f"{UUID}/disk")).unknown
        assert unknown.path == f"{UUID}/disk"

    def test_a_missing_disk_is_a_note_and_makes_the_image_needed(
        self, node: Node, with_domain: Callable[..., Usage]
    ) -> None:
        (node.instances / UUID).mkdir()
        found = with_domain(self.domain(node, f"{UUID}/disk", nova=Nova(frozenset({"a"}), "32.0.0")))
        assert [note.about for note in found.notes] == ["DomainDiskMissing"]
        assert [user.needed for user in found.images[A]] == [True]
        assert not found.unknown
        assert not found.homeless_domains

    def test_homeless_domains(self, node: Node, with_domain: Callable[..., Usage]) -> None:
        who = (f"domain {UUID}",)
        assert with_domain(self.domain(node, f"{UUID}/disk")).homeless_domains == who
        assert with_domain(self.domain(node, "../gone/disk", nova=Nova())).homeless_domains == who
        foreign = Domain(UUID, "x", disks=(DomainDisk(b"/gone/disk", "raw"),))
        assert with_domain(foreign).homeless_domains == ()

    def test_an_unidentified_raw_disk(self, node: Node, with_domain: Callable[..., Usage]) -> None:
        node.put(f"{UUID}/disk", b"raw content")
        node.put(f"{UUID}/disk.config", b"raw content")
        node.put("gone_del/disk", b"raw content")
        image = frozenset({"a"})
        for nova, listed in [
            (Nova(image, "31.0.1"), False),
            (Nova(image, "32.0.0"), True),
            (Nova(image, "unknown"), True),
            (Nova(frozenset(), "31.0.1"), True),
            (None, True),
        ]:
            found = with_domain(self.domain(node, f"{UUID}/disk", form="raw", nova=nova))
            assert found.unidentified_raw == ((f"{UUID}/disk",) if listed else ())

    def test_a_failure_is_unknown_without_a_path(self, with_domain: Callable[..., Usage]) -> None:
        (unknown,) = with_domain(Domain(UUID, "x"), "libvirt could not be asked").unknown
        assert (unknown.path, unknown.message) == (None, "libvirt could not be asked")


class TestSpawns:
    def spawns(self, node: Node, age: float, **changes: object) -> tuple[str, ...]:
        now = max(path.stat().st_ctime for path in node.instances.rglob("*")) + age
        return tuple(spawn.path for spawn in node.gather(now, **changes).spawns)

    def test_a_fresh_directory_without_a_domain(self, node: Node) -> None:
        node.put(f"{UUID}/disk.info", b"{}")
        assert self.spawns(node, 599) == (UUID,)
        assert self.spawns(node, 601) == ()
        assert self.spawns(node, -3600) == (UUID,)
        assert self.spawns(node, 1, spawn_grace=0) == ()

    def test_a_fresh_entry_in_an_old_directory(self, node: Node) -> None:
        log = node.put(f"{UUID}/console.log", b"")
        before = (node.instances / UUID).stat().st_ctime
        while log.stat().st_ctime - before < 0.05:
            log.write_bytes(b"x")
        now = before + 600.02
        assert [spawn.path for spawn in node.gather(now).spawns] == [UUID]

    @pytest.mark.parametrize("name", [f"{UUID}_del", "snapshots"])
    def test_no_instance_is_built_there(self, node: Node, name: str) -> None:
        (node.instances / name).mkdir()
        assert self.spawns(node, 1) == ()

    @pytest.mark.parametrize("name", [UUID, f"{UUID}_resize", "instance-1", "by-its-disk", "by-its-kernel"])
    def test_a_domain_owns_it(self, node: Node, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (node.instances / name).mkdir()
        domain = Domain(
            UUID,
            "instance-1",
            disks=(DomainDisk(bytes(node.instances / "by-its-disk" / "disk"), "raw"),),
            boot_files=(bytes(node.instances / "by-its-kernel" / "kernel"),),
        )
        monkeypatch.setattr(domains, "ask", lambda _uri, _timeout: Answer((domain,)))
        assert self.spawns(node, 1) == ()
