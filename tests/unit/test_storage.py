"""Who else uses this storage: the registry, the file system's type, and this host's own name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.cache import identity as ids
from basekeeper.cache import storage
from basekeeper.cache.evidence import Shared, Usage
from basekeeper.cache.settings import HOUR, Host, Policy
from basekeeper.cache.storage import file_system_type, is_own, look

NOW = 1_800_000_000.0


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("node1", tmp_path, tmp_path / "_base", tmp_path / "snapshots", tmp_path)


@pytest.fixture
def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system_type", lambda _mounts, _path: "nfs4")


def write(host: Host, registry: object) -> None:
    text = registry if isinstance(registry, bytes) else json.dumps(registry).encode()
    (host.instances / "compute_nodes").write_bytes(text)


OWN = {
    "the same": ("node1", "node1", None, True),
    "nova has the domain": ("node1", "node1.example.com", None, True),
    "the node has the domain": ("node1.example.com", "node1", None, True),
    "case is no difference in host names": ("node1", "Node1", None, True),
    "another domain": ("node1.a.example", "node1.b.example", None, False),
    "a longer name": ("node1", "node10", None, False),
    "given": ("node1", "compute-a", "compute-a", True),
    "given, so the node's name is another's": ("node1", "node1", "compute-a", False),
    "given without the domain that nova has": ("pod-x", "node1.example.com", "node1", True),
    "given with a domain that nova has not": ("pod-x", "node1", "node1.example.com", True),
    "given with another domain": ("node1", "node1.b.example", "node1.a.example", False),
}


@pytest.mark.parametrize("case", OWN)
def test_own_host(host: Host, case: str) -> None:
    node, name, given, expected = OWN[case]
    assert is_own(replace(host, node=node, nova_host=given), name) is expected


def test_no_registry(host: Host) -> None:
    assert look(host, NOW) == storage.Storage(problem="does not exist", absent=True)


def test_only_this_host(host: Host) -> None:
    write(host, {"node1.example.com": NOW - 60, "node1": NOW - 7200})
    found = look(host, NOW)
    assert (found.shared, found.own_entry_at, found.notes) == (None, NOW - 60, ())


def test_a_short_name_with_two_domains_is_two_hosts(host: Host) -> None:
    write(host, {"node1.a.example": NOW - 60, "node1.b.example": NOW - 60})
    shared = look(host, NOW).shared
    assert shared is not None
    assert "node1.a.example, node1.b.example" in shared.message
    write(host, {"node1.a.example": NOW - 60, "node1.b.example": NOW - 26 * HOUR})
    assert look(host, NOW).shared is None


def test_an_own_entry_from_the_future_says_nothing(host: Host) -> None:
    write(host, {"node1": NOW + 60})
    assert look(host, NOW).own_entry_at is None


@pytest.mark.parametrize("age", [0, 24.9 * HOUR, -HOUR])
def test_another_fresh_host_shares(host: Host, age: float) -> None:
    write(host, {"node1": NOW, "node2": NOW - age})
    shared = look(host, NOW).shared
    assert shared is not None
    assert "node2" in shared.message


def test_a_stale_host_is_a_note_on_a_local_file_system(host: Host) -> None:
    write(host, {"node1": NOW, "old-name": NOW - 25 * HOUR})
    found = look(host, NOW)
    assert found.shared is None
    assert [note.about for note in found.notes] == ["RegistryStale"]


MALFORMED = {
    "truncated": b'{"node1": 18',
    "empty": b"",
    "no object": b"[]",
    "no times": b'{"node2": "yesterday"}',
    "not a number": b'{"node2": NaN}',
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_is_a_note_on_a_local_file_system(host: Host, case: str) -> None:
    write(host, MALFORMED[case])
    found = look(host, NOW)
    assert (found.shared, found.unknown) == (None, ())
    assert [note.about for note in found.notes] == ["RegistryUnreadable"]


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.usefixtures("on_nfs")
def test_malformed_is_unknown_on_a_shared_one(host: Host, case: str) -> None:
    write(host, MALFORMED[case])
    found = look(host, NOW)
    assert [unknown.path for unknown in found.unknown] == ["compute_nodes"]
    assert found.shared is not None


@pytest.mark.usefixtures("on_nfs")
def test_a_shared_type_shares_without_any_registry(host: Host) -> None:
    shared = look(host, NOW).shared
    assert shared is not None
    assert "nfs4" in shared.message


MOUNTS = rb"""22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /var/lib/nova rw,relatime shared:2 master:1 - xfs /dev/sdb rw
31 30 0:41 / /var/lib/nova/instances rw - ext4 /dev/sdc rw
32 30 0:42 / /var/lib/nova/instances rw - nfs4 server:/export rw
33 22 0:43 / /with\040space\134 rw - fuse.glusterfs gluster rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/var/lib/nova/instances", "nfs4"),
        (b"/var/lib/nova/instances/_base", "nfs4"),
        (b"/var/lib/nova/instances2", "xfs"),
        (b"/var/lib", "ext4"),
        (b"/with space\\/x", "fuse.glusterfs"),
    ],
)
def test_the_last_and_longest_mount_counts(path: bytes, kind: str) -> None:
    assert file_system_type(MOUNTS, path) == kind


def test_this_machine_knows_the_type_of_its_root() -> None:
    assert file_system_type(Path("/proc/self/mountinfo").read_bytes(), b"/") != ""


def test_the_room_of_the_cache_s_own_file_system_is_told(host: Host) -> None:
    host.base.mkdir()
    found = storage.capacity(host)
    assert found is not None
    assert found.type
    assert found.size > 0
    assert 0 <= found.available <= found.size


def test_a_cache_behind_a_symlink_is_asked_where_it_lies(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def kind(_mounts: bytes, path: bytes) -> str:
        asked.append(path)
        return "xfs"

    monkeypatch.setattr(storage, "file_system_type", kind)
    elsewhere = host.instances / "elsewhere"
    elsewhere.mkdir()
    host.base.symlink_to(elsewhere)
    found = storage.capacity(host)
    assert (found is not None and found.type, asked) == ("xfs", [bytes(elsewhere.resolve())])


def test_room_that_cannot_be_asked_is_not_known(host: Host) -> None:
    assert storage.capacity(host) is None


def host_at(root: Path) -> Host:
    """A host whose instances and cache are there."""
    (root / "_base/.basekeeper").mkdir(parents=True)
    return Host("node1", root, root / "_base", root / "snapshots", root)


def mounted(host: Host, kind: str, source: str) -> bytes:
    """What /proc/self/mountinfo says where the instances path is a mount of its own."""
    return f"22 1 0:40 / {host.instances} rw - {kind} {source} rw\n".encode()


def parts(identity: str | None) -> set[str]:
    return set((identity or "").split(".")) - {""}


def test_id_files_are_the_same_identity_wherever_the_directory_is_seen(tmp_path: Path) -> None:
    here, there = host_at(tmp_path / "here"), host_at(tmp_path / "there")
    ids.write(here, ids.fresh())
    ids.write(there, ids.Ids("another", ids.read(here).base))
    ours, theirs = (parts(storage.identity(one, mounted(one, "ext4", "/dev/sda"))) for one in (here, there))
    assert len(ours) == len(theirs) == 2
    assert len(ours & theirs) == 1, "the cache is the same, the instances path is not"
    assert not any(text in "".join(ours) for text in (ids.read(here).base or "", ids.read(here).instances or ""))


@pytest.mark.parametrize(
    ("kind", "source", "told"), [("ext4", "/dev/sda1", 0), ("virtiofs", "instances", 0), ("nfs4", "server:/export", 2)]
)
def test_without_id_files_only_what_a_server_gives_to_all_alike_is_an_identity(
    tmp_path: Path, kind: str, source: str, told: int
) -> None:
    host = host_at(tmp_path / "here")
    found = parts(storage.identity(host, mounted(host, kind, source)))
    assert len(found) == told
    assert found == parts(storage.identity(host, mounted(host, kind, source)))
    assert not found & parts(storage.identity(host, mounted(host, kind, f"{source}2")))


def test_the_capacity_of_a_cache_says_which_one_it_is(tmp_path: Path) -> None:
    host = host_at(tmp_path / "here")
    ids.write(host, ids.fresh())
    found = storage.capacity(host)
    assert found is not None
    assert len(parts(found.identity)) == 2


def test_other_nodes_that_see_the_directories_make_them_shared() -> None:
    told = Policy(shared_with=("node-b", "node-c"))
    found = storage.as_told(Usage(), told).shared
    assert found is not None
    assert "node-b, node-c" in found.message
    assert "basekeeper adopt" in found.message
    assert storage.as_told(Usage(), Policy()).shared is None
    seen_here = Usage(shared=Shared("compute_nodes says so"))
    assert storage.as_told(seen_here, told) == seen_here
