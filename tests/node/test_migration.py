"""Live migration between two nodes, with acting passes on both of them the whole time."""

import shutil
from collections.abc import Callable
from pathlib import Path

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Basekeeper
from tests.node.passes import AT_ONCE, Passes
from tests.node.window import wait_until

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
INSTANCE = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c11"
NAME = "instance-00000001"
AGE = 30 * DAY
MakeNode = Callable[[str], ComputeNode]


def keeper_of(node: ComputeNode, tree: NovaTree, place: Path) -> Basekeeper:
    return Basekeeper(tree, place / node.name, libvirt=node.read_only_uri, spawn_grace="10m")


def test_a_base_on_storage_that_both_nodes_see_is_kept_by_both_through_migrations(
    make_node: MakeNode, tree: NovaTree, tmp_path: Path
) -> None:
    base = tree.add_base(IMAGE, age=AGE)
    here, there = make_node("node-a"), make_node("node-b")
    disk = Disk(tree.add_overlay(INSTANCE, base))
    here.define(domain_xml(NAME, uuid=INSTANCE, disks=[disk], metadata=NovaMetadata(OTHER_IMAGE)))
    here.start(NAME)

    with (
        Passes(keeper_of(here, tree, tmp_path)) as passes_here,
        Passes(keeper_of(there, tree, tmp_path)) as passes_there,
    ):
        for source, target in ((here, there), (there, here), (here, there)):
            source.migrate_to(target, NAME)
            assert source.domains() == []
            assert target.state(NAME) == "running"

    for passes in (passes_here, passes_there):
        assert passes.verdicts(base) == {"Keep(InUseByOverlay)"}
    there.suspend(NAME)
    there.resume(NAME)
    assert there.state(NAME) == "running"


def test_a_migration_that_copies_the_disk_finds_its_base_on_the_other_node_and_frees_the_first(
    make_node: MakeNode, tmp_path: Path
) -> None:
    source, target = make_node("node-a"), make_node("node-b")
    old, new = NovaTree(tmp_path / "old"), NovaTree(tmp_path / "new")
    old_base, new_base = old.add_base(IMAGE, age=AGE), new.add_base(IMAGE, age=AGE)
    unused = new.add_base(OTHER_IMAGE, suffix="_20", age=AGE, seed=2)
    metadata = NovaMetadata(OTHER_IMAGE)  # a snapshot was booted: the metadata protects another base
    old_disk = old.add_overlay(INSTANCE, old_base)
    source.define(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(old_disk)], metadata=metadata))
    source.start(NAME)
    qemu = source.qemu_pid(NAME)

    # What nova does first on the other node; nothing else there speaks for the base yet.
    new.instance(INSTANCE)
    with (
        Passes(keeper_of(source, old, tmp_path)) as passes_old,
        Passes(keeper_of(target, new, tmp_path)) as passes_new,
    ):
        new_disk = new.add_overlay(INSTANCE, new_base)
        passes_new.wait_for_more(1)
        moved = tmp_path / "moved.xml"
        xml = source.virsh("dumpxml", "--migratable", NAME)
        moved.write_text(xml.replace(str(old_disk), str(new_disk)).replace(str(old_base), str(new_base)))
        source.migrate_to(target, NAME, "--copy-storage-inc", "--xml", str(moved))

    assert target.state(NAME) == "running"
    wait_until(lambda: not Path(f"/proc/{qemu}").exists())
    assert str(new_disk) in target.xml(NAME)
    assert passes_old.verdicts(old_base) == {"Keep(InUseByOverlay)"}
    assert passes_new.verdicts(new_base) <= {"Hold(SpawnInProgress)", "Keep(InUseByOverlay)"}
    assert "Keep(InUseByOverlay)" in passes_new.verdicts(new_base)
    assert not unused.exists()  # no instance starts on a resized base

    shutil.rmtree(old_disk.parent)  # as nova does when it is over
    assert keeper_of(source, old, tmp_path).run(AT_ONCE).verdict(old_base) == "Remove(Expired) Quarantined"
    assert keeper_of(target, new, tmp_path).run(AT_ONCE).verdict(new_base) == "Keep(InUseByOverlay)"
