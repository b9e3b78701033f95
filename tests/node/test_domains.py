"""What libvirt's domains and running guests say about bases, asked by real passes of real domains."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import NOVA_1_0, NOVA_1_1, Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import ENFORCE, Basekeeper, Spec
from tests.node.passes import AT_ONCE, Passes

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
INSTANCE = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c11"
NAME = "instance-00000001"
AGE = 30 * DAY


@pytest.fixture(scope="module")
def lasting_node(laboratory: None) -> Iterator[ComputeNode]:
    """One node for all of these tests: starting it takes longer than most of them."""
    with ComputeNode("node-a") as node:
        yield node


@pytest.fixture
def node(lasting_node: ComputeNode) -> Iterator[ComputeNode]:
    """The node, without domains before and after."""
    yield lasting_node
    end(lasting_node)
    assert lasting_node.domains() == []


@pytest.fixture
def keeper(node: ComputeNode, tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state", libvirt=node.read_only_uri)


@pytest.fixture
def base(tree: NovaTree) -> Path:
    return tree.add_base(IMAGE, age=AGE)


@pytest.fixture
def elsewhere(tmp_path: Path) -> NovaTree:
    """A place for disks outside of the instances path, where only domains lead."""
    return NovaTree(tmp_path / "elsewhere")


def transient(node: ComputeNode, xml: str) -> None:
    node.create(xml)


def running(node: ComputeNode, xml: str) -> None:
    node.define(xml)
    node.start(NAME)


def paused(node: ComputeNode, xml: str) -> None:
    running(node, xml)
    node.suspend(NAME)


def shut_off(node: ComputeNode, xml: str) -> None:
    node.define(xml)


def end(node: ComputeNode) -> None:
    """Leave nothing of the domain."""
    if NAME in node.domains(all_of_them=False):
        os.kill(node.qemu_pid(NAME), signal.SIGKILL)  # `destroy` first waits a second for qemu to end by itself
        while NAME in node.domains(all_of_them=False):
            time.sleep(0.01)
    if NAME in node.domains():
        node.undefine(NAME)


def assert_goes(keeper: Basekeeper, base: Path) -> None:
    """A hold that nobody needs would be a defect too."""
    answer = keeper.run(AT_ONCE)
    assert answer.verdict(base) == "Remove(Expired) Quarantined", answer.document
    assert not base.exists()


# --- domains on overlays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [transient, running, paused, shut_off])
def test_a_domain_on_overlays_keeps_their_bases_in_every_state(
    state: Callable[[ComputeNode, str], None],
    node: ComputeNode,
    tree: NovaTree,
    elsewhere: NovaTree,
    base: Path,
    keeper: Basekeeper,
) -> None:
    other = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    inside, outside = tree.add_overlay(INSTANCE, base), elsewhere.add_overlay(INSTANCE, other)
    state(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(inside), Disk(outside)]))

    answer = keeper.run(AT_ONCE)

    assert answer.verdict(base) == answer.verdict(other) == "Keep(InUseByOverlay)"
    assert f"{INSTANCE}/disk" in answer.file(base)["users"]
    assert str(outside) in answer.file(other)["users"]
    assert answer.status == 0
    assert base.exists()
    assert other.exists()

    end(node)
    shutil.rmtree(inside.parent)
    answer = keeper.run(AT_ONCE)
    assert answer.verdict(base) == answer.verdict(other) == "Remove(Expired) Quarantined"


def test_a_running_domain_whose_disk_was_unlinked_keeps_its_base(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    disk = tree.add_overlay(INSTANCE, base)
    node.create(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)]))
    disk.unlink()

    answer = keeper.run(AT_ONCE)
    assert answer.verdict(base) == "Keep(InUseByDomain)"
    assert answer.file(base)["users"] == [f"domain {INSTANCE}"]

    end(node)
    assert_goes(keeper, base)


def test_a_guest_that_no_libvirt_tells_of_keeps_its_base_by_its_locks(
    node: ComputeNode, elsewhere: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    node.create(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(elsewhere.add_overlay(INSTANCE, base))]))
    keeper.libvirt = "none"

    assert keeper.run(AT_ONCE).verdict(base) == "Keep(LockedByQemu)"
    assert base.exists()

    end(node)
    assert_goes(keeper, base)


def test_a_domain_without_novas_metadata_counts_by_its_disks_only(
    node: ComputeNode, tree: NovaTree, elsewhere: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    unused = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    node.define(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(elsewhere.add_overlay(INSTANCE, base))]))

    answer = keeper.run()

    assert answer.verdict(base) == "Keep(InUseByOverlay)"
    assert answer.verdict(unused) == "Remove(Expired) Quarantined"


# --- block jobs ------------------------------------------------------------------------------------------------


def test_a_domain_that_runs_on_the_base_itself_keeps_it(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    disk = tree.add_overlay(INSTANCE, base)
    node.create(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)]))

    with Passes(keeper) as passes:
        node.blockcommit(NAME, "vda")
        assert f"<source file='{base}'" in node.xml(NAME)
        disk.unlink()  # the committed top is worth nothing: only the domain leads to the base

    assert passes.verdicts(base) <= {"Keep(InUseByOverlay)", "Keep(InUseByDomain)"}
    answer = keeper.run(AT_ONCE)
    assert answer.verdict(base) == "Keep(InUseByDomain)"
    assert answer.file(base)["users"] == [f"domain {INSTANCE}"]
    assert node.state(NAME) == "running"

    end(node)
    assert_goes(keeper, base)


def test_a_base_is_kept_through_a_snapshot_and_by_the_whole_chain_after_it(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    lower = tree.add_overlay(INSTANCE, base)
    running(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(lower)]))
    top = lower.with_name("disk.snapshot")

    with Passes(keeper) as passes:
        node.snapshot(NAME, "vda", top)
    assert passes.verdicts(base) == {"Keep(InUseByOverlay)"}

    node.destroy(NAME)  # inactive XML names the top only
    assert keeper.run(AT_ONCE).verdict(base) == "Keep(InUseByOverlay)"
    node.undefine(NAME)
    assert keeper.run(AT_ONCE).verdict(base) == "Keep(InUseByOverlay)"

    away = lower.rename(tree.instances_path.parent / "disk")  # and with it the only header that names the base
    broken = keeper.run(AT_ONCE)
    assert broken.verdict(base) == "Hold(UnknownUsage)"
    assert broken.holds == [("UnknownUsage", f"{INSTANCE}/disk.snapshot")]
    assert broken.status == 3

    away.rename(lower)
    assert keeper.run(AT_ONCE).verdict(base) == "Keep(InUseByOverlay)"
    shutil.rmtree(lower.parent)
    assert_goes(keeper, base)


def test_a_base_is_kept_while_a_snapshot_is_committed(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    lower = tree.add_overlay(INSTANCE, base)
    running(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(lower)]))
    top = lower.with_name("disk.snapshot")

    with Passes(keeper) as passes:
        for _ in range(3):
            node.snapshot(NAME, "vda", top)
            node.blockcommit(NAME, "vda", "--base", str(lower))
            top.unlink()

    assert passes.verdicts(base) == {"Keep(InUseByOverlay)"}
    assert node.state(NAME) == "running"


def test_a_pulled_disk_frees_its_base_but_not_before_it_is_pulled(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    running(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(tree.add_overlay(INSTANCE, base))]))
    with Passes(keeper, ENFORCE) as passes:
        node.blockpull(NAME, "vda")

    assert passes.verdicts(base) == {"Keep(InUseByOverlay)", "Keep(TooYoung)"}
    assert passes.answers[-1].verdict(base) == "Keep(TooYoung)"  # it was in use a moment ago
    assert_goes(keeper, base)
    assert node.state(NAME) == "running"
    node.destroy(NAME)
    node.start(NAME)
    assert node.state(NAME) == "running"


def test_a_base_that_is_not_pulled_completely_is_kept(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    lower = tree.add_overlay(INSTANCE, base)
    running(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(lower)]))
    node.snapshot(NAME, "vda", lower.with_name("disk.snapshot"))

    with Passes(keeper) as passes:
        node.blockpull(NAME, "vda", "--base", str(base))
        lower.unlink()

    assert passes.verdicts(base) == {"Keep(InUseByOverlay)"}


# --- bases that are away ---------------------------------------------------------------------------------------


def test_a_base_unlinked_under_its_guest_holds_nothing_and_its_name_stays_protected(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    unused = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    disk = tree.add_overlay(INSTANCE, base)
    node.create(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)]))
    base.unlink()

    answer = keeper.run()
    assert answer.verdict(unused) == "Remove(Expired) Quarantined"
    assert answer.status == 0

    disk.unlink()  # now the live XML alone goes on naming the base
    tree.add_base(IMAGE, age=AGE)
    assert keeper.run(AT_ONCE).verdict(base) == "Keep(InUseByDomain)"


def test_a_quarantined_base_that_a_guest_runs_on_goes_back_and_is_never_purged(
    node: ComputeNode, elsewhere: NovaTree, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    keeper.libvirt = "none"
    link = elsewhere.base_dir / "another-name-of-the-file"
    link.hardlink_to(base)
    disk = elsewhere.add_overlay(INSTANCE, link)
    assert_goes(keeper, base)
    node.create(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)]))  # no name leads to it: only the lock tells

    answer = keeper.run({**AT_ONCE, "quarantine": {"retention": "0s"}})

    assert answer.verdict(base) == "Keep(LockedByQemu) Restored"
    assert base.samefile(link)
    assert keeper.run({**AT_ONCE, "quarantine": {"retention": "0s"}}).verdict(base) == "Keep(LockedByQemu)"
    assert [entry.name for entry in tree.base_dir.iterdir() if entry.is_file()] == [base.name]


# --- what cannot be read ---------------------------------------------------------------------------------------


def test_a_running_guests_unreadable_disk_holds_nothing_while_libvirt_knows_its_chain(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    unused = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    disk = tree.add_overlay(INSTANCE, base)
    running(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)]))
    with disk.open("r+b") as file:
        file.write(bytes(8))  # the guest goes on: qemu has read its header long ago

    answer = keeper.plan()
    assert answer.verdict(base) == "Keep(InUseByDomain)"
    assert answer.verdict(unused) == "Remove(Expired)"
    assert answer.status == 0

    node.destroy(NAME)  # now nobody knows what it is built on
    answer = keeper.run()
    assert answer.verdict(unused) == "Hold(UnknownUsage)"
    assert ("UnknownUsage", f"{INSTANCE}/disk") in answer.holds


SERIAL = "3f0b9d1c-6c50-4ff1-9a3a-1f8e0a5b6c77"


@pytest.mark.parametrize(
    ("serial", "there", "verdict"),
    [
        pytest.param(SERIAL, False, "Remove(Expired)", id="a missing volume"),
        pytest.param(SERIAL, True, "Remove(Expired)", id="a volume with a chain that ends nowhere"),
        pytest.param(None, False, "Keep(ImageOfDomain)", id="a missing local disk"),
        pytest.param(None, True, "Hold(UnknownUsage)", id="a local disk with a chain that ends nowhere"),
    ],
)
def test_only_local_disks_of_a_domain_that_is_shut_off_can_hold_anything(
    serial: str | None,
    there: bool,
    verdict: str,
    node: ComputeNode,
    tree: NovaTree,
    elsewhere: NovaTree,
    keeper: Basekeeper,
) -> None:
    unused = tree.add_base(OTHER_IMAGE, age=AGE)
    disk = elsewhere.add_overlay(INSTANCE, str(elsewhere.base_dir / "nowhere"))
    if not there:
        disk.unlink()
    # A volume is booted without an image; a local disk that is there needs no metadata to speak for it.
    metadata = NovaMetadata(OTHER_IMAGE, booted_from_volume=serial is not None) if not there else None
    node.define(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk, serial=serial)], metadata=metadata))

    answer = keeper.plan()

    assert answer.verdict(unused) == verdict
    assert answer.status == (3 if verdict.startswith("Hold") else 0)


# --- what nova's metadata say ----------------------------------------------------------------------------------

KEEP: Spec = {**ENFORCE, "cachedOnly": "Keep"}
REMOVE: Spec = {**ENFORCE, "cachedOnly": "Remove"}


@pytest.mark.parametrize("namespace", [NOVA_1_0, NOVA_1_1])
@pytest.mark.parametrize("state", [running, shut_off])
def test_the_image_that_a_domain_was_made_from_is_kept_unless_the_policy_says_remove(
    namespace: str,
    state: Callable[[ComputeNode, str], None],
    node: ComputeNode,
    tree: NovaTree,
    base: Path,
    keeper: Basekeeper,
) -> None:
    flat = tree.add_flat(INSTANCE, base)
    metadata = NovaMetadata(IMAGE, namespace=namespace)
    state(node, domain_xml(NAME, uuid=INSTANCE, disks=[Disk(flat, format="raw")], metadata=metadata))

    assert keeper.plan(ENFORCE).verdict(base) == "Keep(ImageOfDomain)"
    assert keeper.plan(KEEP).verdict(base) == "Keep(ImageOfDomain)"
    assert keeper.plan(REMOVE).verdict(base) == "Remove(Expired)"


@pytest.mark.parametrize(
    ("package", "verdict"),
    [
        pytest.param("31.2.0", "Remove(Expired)", id="names the image that was booted"),
        pytest.param("34.0.0", "Hold(ImageUnknown)", id="names the original image, which may be another"),
    ],
)
def test_a_raw_disk_holds_other_originals_only_if_its_image_is_in_doubt(
    package: str, verdict: str, node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    other = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    flat = tree.add_flat(INSTANCE, base)
    metadata = NovaMetadata(IMAGE, package=package)
    node.define(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(flat, format="raw")], metadata=metadata))

    answer = keeper.plan()
    assert answer.verdict(base) == "Keep(ImageOfDomain)"
    assert answer.verdict(other) == verdict
    assert keeper.plan(REMOVE).verdict(other) == "Remove(Expired)"


@pytest.mark.parametrize(
    ("spec", "namespace"),
    [(KEEP, NOVA_1_0), (REMOVE, NOVA_1_1)],
    ids=["cachedOnly: Keep", "cachedOnly: Remove"],
)
def test_a_domains_missing_disk_protects_its_image_with_its_resized_copies(
    spec: Spec, namespace: str, node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    resized = tree.add_base(IMAGE, suffix="_20", age=AGE, seed=2)
    unused = tree.add_base(OTHER_IMAGE, age=AGE, seed=3)
    disk = tree.add_overlay(INSTANCE, resized)
    metadata = NovaMetadata(IMAGE, namespace=namespace)
    node.define(domain_xml(NAME, uuid=INSTANCE, disks=[Disk(disk)], metadata=metadata))
    disk.unlink()

    answer = keeper.run(spec)

    assert answer.verdict(base) == "Keep(ImageOfDomain)"
    assert answer.verdict(resized) == "Keep(ImageOfDomain)"
    assert answer.verdict(unused) == "Remove(Expired) Quarantined"
    assert answer.status == 0

    node.undefine(NAME)
    answer = keeper.run(spec)
    assert answer.verdict(base) == "Keep(TooYoung)"
    assert_goes(keeper, base)
