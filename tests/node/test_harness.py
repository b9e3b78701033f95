"""The laboratory keeps its promises; what is built on it may rely on them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from lab.compute_node import CommandTimeoutError, ComputeNode, has_ended
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import HOUR, NovaTree
from lab.qcow2 import write_overlay

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
INSTANCE = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c11"
MakeNode = Callable[[str], ComputeNode]


@pytest.fixture
def disk(tree: NovaTree) -> Disk:
    return Disk(tree.add_overlay(INSTANCE, tree.add_base(IMAGE)))


def wait_until_ended(*processes: int) -> None:
    deadline = time.monotonic() + 10
    while running := [process for process in processes if not has_ended(process)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.02)


def test_a_running_domain_is_seen_through_the_read_only_socket(node: ComputeNode, disk: Disk) -> None:
    node.create(domain_xml("instance-00000001", uuid=INSTANCE, disks=[disk], metadata=NovaMetadata(IMAGE)))

    connection = libvirt.openReadOnly(node.read_only_uri)
    try:
        (domain,) = connection.listAllDomains()
        assert domain.name() == "instance-00000001"
        assert domain.UUIDString() == INSTANCE
        assert IMAGE in domain.XMLDesc()
        with pytest.raises(libvirt.libvirtError, match="read only"):
            domain.destroy()
    finally:
        connection.close()


def test_a_node_is_none_of_the_hosts(node: ComputeNode) -> None:
    assert node.virsh("hostname") == "node-a"
    assert os.uname().nodename != "node-a"
    assert node.host_uuid in node.virsh("capabilities")
    assert str(node.root) not in Path("/proc/self/mountinfo").read_text()


def test_a_domain_goes_through_its_states(node: ComputeNode, disk: Disk) -> None:
    node.define(domain_xml("instance-00000001", disks=[disk]))
    assert node.state("instance-00000001") == "shut off"
    node.start("instance-00000001")
    assert node.state("instance-00000001") == "running"
    node.suspend("instance-00000001")
    assert node.state("instance-00000001") == "paused"
    node.resume("instance-00000001")
    node.destroy("instance-00000001")
    assert node.domains() == ["instance-00000001"]
    node.undefine("instance-00000001")
    assert node.domains() == []


def test_a_running_domain_migrates_to_another_node(make_node: MakeNode, disk: Disk) -> None:
    source, target = make_node("node-a"), make_node("node-b")
    source.define(domain_xml("instance-00000001", disks=[disk]))
    source.start("instance-00000001")

    source.migrate_to(target, "instance-00000001")

    assert source.domains() == []
    assert target.state("instance-00000001") == "running"


def test_a_disk_grows_a_snapshot_and_loses_it_again(node: ComputeNode, disk: Disk) -> None:
    node.create(domain_xml("instance-00000001", disks=[disk]))
    delta = disk.path.with_name("disk.delta")

    node.snapshot("instance-00000001", "vda", delta)
    assert str(delta) in node.xml("instance-00000001")
    node.blockcommit("instance-00000001", "vda", "--base", str(disk.path))
    assert str(delta) not in node.xml("instance-00000001")


def test_a_pulled_disk_needs_its_base_no_more(node: ComputeNode, disk: Disk, tree: NovaTree) -> None:
    node.create(domain_xml("instance-00000001", disks=[disk]))
    assert str(tree.base_dir) in node.xml("instance-00000001")

    node.blockpull("instance-00000001", "vda")

    assert str(tree.base_dir) not in node.xml("instance-00000001")


def test_a_paused_libvirtd_makes_clients_hang_until_it_goes_on(node: ComputeNode) -> None:
    node.pause_libvirtd()
    with pytest.raises(CommandTimeoutError):
        node.virsh("list", timeout=1)

    node.resume_libvirtd()

    assert node.domains() == []


def test_domains_outlive_their_libvirtd(node: ComputeNode, disk: Disk) -> None:
    node.create(domain_xml("instance-00000001", disks=[disk]))
    qemu = node.qemu_pid("instance-00000001")

    node.stop_libvirtd()
    assert not has_ended(qemu)
    node.start_libvirtd()

    assert node.state("instance-00000001") == "running"
    assert node.qemu_pid("instance-00000001") == qemu


def test_a_closed_node_leaves_no_process_and_no_file(laboratory: None, disk: Disk) -> None:
    with ComputeNode("node-a") as node:
        node.create(domain_xml("instance-00000001", disks=[disk]))
        node.pause_libvirtd()  # not even a hung daemon stays
        processes = [node.qemu_pid("instance-00000001"), node.libvirtd_pid or 0]
        assert not any(has_ended(process) for process in processes)

    wait_until_ended(*processes)
    assert not node.root.exists()


OWNER_WHO_NEVER_CLOSES = """
import sys, time
from lab.compute_node import ComputeNode
from lab.domain_xml import domain_xml
with ComputeNode("node-a") as node:
    node.create(domain_xml("instance-00000001"))
    print(node.qemu_pid("instance-00000001"), node.libvirtd_pid, node.root, flush=True)
    time.sleep(600)
"""


def test_a_node_whose_owner_was_killed_ends_by_itself(laboratory: None) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_WHO_NEVER_CLOSES],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        qemu, libvirtd, root = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)

    wait_until_ended(int(qemu), int(libvirtd))
    deadline = time.monotonic() + 10
    while Path(root).exists():
        assert time.monotonic() < deadline, f"{root} is still there"
        time.sleep(0.02)


def test_overlays_over_one_base_are_real_disks_of_their_own(tree: NovaTree) -> None:
    base = tree.add_base(IMAGE, age=2 * HOUR)
    disks = [tree.add_overlay(f"instance-{number}", base) for number in range(3)]

    for disk in disks:
        checked = subprocess.run(["qemu-img", "info", disk], capture_output=True, text=True, check=True)
        assert f"backing file: {base}" in checked.stdout
    assert len({disk.stat().st_ino for disk in disks}) == 3
    assert time.time() - base.stat().st_mtime == pytest.approx(2 * HOUR, abs=60)


@pytest.mark.parametrize("size", [1, 1024**2, 40 * 1024**3], ids=["a byte", "a MiB", "40 GiB"])
def test_qemu_finds_no_fault_with_an_overlay_of_our_own(tree: NovaTree, tmp_path: Path, size: int) -> None:
    base = tree.add_base(IMAGE)
    overlay = tmp_path / "overlay"

    write_overlay(overlay, backing_file=str(base), backing_format="raw", size=size)

    checked = subprocess.run(["qemu-img", "check", overlay], capture_output=True, text=True, check=True)
    assert "No errors were found" in checked.stdout
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", overlay], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(told)["backing-filename"] == str(base)
    assert json.loads(told)["backing-filename-format"] == "raw"
