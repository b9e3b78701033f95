"""A libvirt that is away, hangs or is busy: what it could have said holds, nothing else does, and nobody waits long."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Basekeeper
from tests.node.passes import AT_ONCE, Passes
from tests.node.window import wait_until

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
INSTANCE = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c11"
AGE = 30 * DAY
Fault = Callable[[ComputeNode], AbstractContextManager[None]]
BOUND = 20.0
"""Seconds that a pass may take when a libvirt call may take one: three looks, an interpreter, a slow machine."""


@pytest.fixture
def keeper(node: ComputeNode, tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state", libvirt=node.read_only_uri, libvirt_timeout="1s")


@pytest.fixture
def base(tree: NovaTree) -> Path:
    return tree.add_base(IMAGE, age=AGE)


@contextmanager
def stopped(node: ComputeNode) -> Iterator[None]:
    node.stop_libvirtd()
    yield
    node.start_libvirtd()


@contextmanager
def hung(node: ComputeNode) -> Iterator[None]:
    node.pause_libvirtd()
    try:
        yield
    finally:
        node.resume_libvirtd()


@contextmanager
def in_a_loop(step: Callable[[], None]) -> Iterator[None]:
    """Repeat something in another thread until the block is over; its failure is the block's."""
    over = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        try:
            while not over.is_set():
                step()
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not failures, failures


def descriptors(node: ComputeNode) -> int:
    """How many files, clients' sockets among them, the node's libvirtd has open."""
    return sum(1 for _ in Path(f"/proc/{node.libvirtd_pid}/fd").iterdir())


@pytest.mark.parametrize("fault", [stopped, hung])
def test_a_libvirt_that_does_not_answer_holds_bases_but_not_leftovers_until_it_is_back(
    fault: Fault,
    node: ComputeNode,
    tree: NovaTree,
    base: Path,
    keeper: Basekeeper,
) -> None:
    part = tree.add_base(IMAGE, suffix=".part", age=AGE, seed=2)
    with fault(node):
        for answer in (keeper.plan(AT_ONCE), keeper.run(AT_ONCE)):
            assert answer.seconds < BOUND
            assert answer.status == 3
            assert answer.verdict(base) == "Hold(UnknownUsage)"
            assert answer.holds == [("UnknownUsage", None)]
            assert answer.verdict(part).startswith("Remove(StalePartial)")
            assert node.read_only_uri in answer.file(base)["message"]
        assert base.exists()
        assert not part.exists()

    answer = keeper.run(AT_ONCE)
    assert answer.verdict(base) == "Remove(Expired) Quarantined"
    assert answer.status == 0


@pytest.mark.parametrize("fault", [stopped, hung])
def test_what_disks_and_guests_say_counts_also_without_libvirt(
    fault: Fault,
    node: ComputeNode,
    tree: NovaTree,
    base: Path,
    tmp_path: Path,
    keeper: Basekeeper,
) -> None:
    other = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    outside = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, other)
    tree.add_overlay(INSTANCE, base)
    node.create(domain_xml("instance-00000001", disks=[Disk(outside)]))

    with fault(node):
        answer = keeper.run(AT_ONCE)

    assert answer.verdict(base) == "Keep(InUseByOverlay)"
    assert answer.verdict(other) == "Keep(LockedByQemu)"
    assert answer.status == 0  # nothing would have gone, so nothing was held


@pytest.mark.parametrize("fault", [stopped, hung])
def test_a_removed_base_is_not_purged_while_libvirt_does_not_answer(
    fault: Fault, node: ComputeNode, base: Path, keeper: Basekeeper
) -> None:
    assert keeper.run({**AT_ONCE, "quarantine": {"retention": "1s"}}).verdict(base) == "Remove(Expired) Quarantined"
    time.sleep(1)
    with fault(node):
        answer = keeper.run(AT_ONCE)
        assert answer.verdict(base) == "Hold(UnknownUsage)"
        assert answer.document["totals"]["reclaimedBytes"] == 0
        ordered = keeper.ask("quarantine", "purge", "--all")
        assert ordered.status == 3
        assert keeper.ask("quarantine", "restore", base.name).status == 0

    assert base.exists()


def test_passes_pile_up_nothing_before_a_hung_libvirt(node: ComputeNode, base: Path, keeper: Basekeeper) -> None:
    keeper.plan(AT_ONCE)
    before = descriptors(node)
    keeper.libvirt_timeout = "500ms"
    with hung(node):
        # More than it accepts clients: they wait in the socket's queue, some not even there.
        passes = [keeper.start("plan", spec=AT_ONCE) for _ in range(12)]
        answers = [keeper.end(process, timeout=BOUND) for process in passes]

    assert {answer.verdict(base) for answer in answers} == {"Hold(UnknownUsage)"}
    assert {answer.status for answer in answers} == {3}
    assert keeper.plan(AT_ONCE).verdict(base) == "Remove(Expired)"
    wait_until(lambda: descriptors(node) <= before)  # then it has no client of ours any more


def test_a_libvirt_that_hangs_now_and_then_never_costs_a_base(
    node: ComputeNode, tree: NovaTree, base: Path, tmp_path: Path, keeper: Basekeeper
) -> None:
    outside = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, base)
    node.define(domain_xml("instance-00000001", disks=[Disk(outside)]))  # only libvirt leads to it
    keeper.libvirt_timeout = "300ms"

    def hang_and_go_on() -> None:
        node.pause_libvirtd()
        time.sleep(0.4)
        node.resume_libvirtd()
        time.sleep(0.3)

    with in_a_loop(hang_and_go_on), Passes(keeper) as passes:
        passes.wait_for_more(3)

    assert passes.verdicts(base) <= {"Keep(InUseByOverlay)", "Hold(UnknownUsage)"}
    assert base.exists()


def test_a_libvirt_that_is_restarted_again_and_again_never_costs_a_base(
    node: ComputeNode, tree: NovaTree, base: Path, tmp_path: Path, keeper: Basekeeper
) -> None:
    outside = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, base)
    node.define(domain_xml("instance-00000001", disks=[Disk(outside)]))

    def restart() -> None:
        node.stop_libvirtd()
        node.start_libvirtd()
        time.sleep(0.2)

    with in_a_loop(restart), Passes(keeper) as passes:
        passes.wait_for_more(3)

    assert passes.verdicts(base) <= {"Keep(InUseByOverlay)", "Hold(UnknownUsage)"}
    assert base.exists()


def test_domains_that_come_and_go_while_they_are_listed_never_cost_a_base(
    node: ComputeNode, tree: NovaTree, base: Path, tmp_path: Path, keeper: Basekeeper
) -> None:
    outside = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, base)
    unused = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    node.define(domain_xml("one", disks=[Disk(outside)]))

    def hand_over() -> None:
        # At every moment some domain needs the base, but seldom the one that was listed.
        node.define(domain_xml("other", disks=[Disk(outside)]))
        node.undefine("one")
        node.define(domain_xml("one", disks=[Disk(outside)]))
        node.undefine("other")

    with in_a_loop(hand_over), Passes(keeper) as passes:
        passes.wait_for_more(3)

    assert passes.verdicts(base) <= {"Keep(InUseByOverlay)", "Hold(UnknownUsage)"}
    assert base.exists()
    assert not unused.exists()


def test_guests_that_start_and_end_during_passes_never_cost_a_base(
    node: ComputeNode, tree: NovaTree, base: Path, keeper: Basekeeper
) -> None:
    disk = tree.add_overlay(INSTANCE, base)

    def boot() -> None:
        node.create(domain_xml("instance-00000001", disks=[Disk(disk)]))
        os.kill(node.qemu_pid("instance-00000001"), signal.SIGKILL)  # `destroy` takes a second
        wait_until(lambda: not node.domains())

    with in_a_loop(boot), Passes(keeper) as passes:
        passes.wait_for_more(3)

    assert passes.verdicts(base) == {"Keep(InUseByOverlay)"}
