"""What comes between a pass's looks and its act: nova, a guest and an operator in windows of milliseconds."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Basekeeper, Spec
from tests.node.passes import AT_ONCE, Passes
from tests.node.window import Window

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
INSTANCE = "0d0e9a3c-53a8-4a5c-8f3f-2a2f0f1d7c11"
AGE = 30 * DAY
NO_RETENTION: Spec = {**AT_ONCE, "quarantine": {"retention": "0s"}}
"""What is removed is deleted for good in the same pass."""


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


@pytest.fixture
def base(tree: NovaTree) -> Path:
    return tree.add_base(IMAGE, age=AGE)


@pytest.fixture(params=[AT_ONCE, NO_RETENTION], ids=["with retention", "without retention"])
def window(request: pytest.FixtureRequest, keeper: Basekeeper) -> Window:
    return Window(keeper, request.param)


def quarantined(tree: NovaTree) -> list[Path]:
    """The files in the quarantine, side-cars left out."""
    found = (tree.base_dir / ".basekeeper/quarantine").glob("*/*")
    return [path for path in found if path.name != "entry.json"]


def new_overlay(tree: NovaTree, base: Path) -> Path:
    """An instance's overlay, also while nothing has the base's name."""
    return tree.add_overlay(INSTANCE, str(base))


def test_nothing_in_the_window_means_that_the_base_goes(window: Window, base: Path) -> None:
    with window.before_the_rename():
        pass
    assert window.verdict(base).startswith("Remove(Expired) ")
    assert not base.exists()


@pytest.mark.parametrize("retention", [AT_ONCE, NO_RETENTION], ids=["with retention", "without retention"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_overlay_that_is_made_in_the_window_gets_its_base_back(
    when: str, retention: Spec, keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    content, inode = base.read_bytes(), base.stat().st_ino
    window = Window(keeper, retention)
    with window.before_the_rename() if when == "before" else window.after_the_rename(base):
        new_overlay(tree, base)

    assert window.verdict(base) == "Keep(UserAppeared) Skipped"
    assert base.read_bytes() == content
    assert base.stat().st_ino == inode
    assert quarantined(tree) == []
    assert keeper.run(retention).verdict(base) == "Keep(InUseByOverlay)"


def test_a_base_that_nova_touches_in_the_window_comes_back(window: Window, tree: NovaTree, base: Path) -> None:
    with window.before_the_rename():
        os.utime(base)  # as `imagebackend` does before it makes the overlay

    assert window.verdict(base) == "Keep(UserAppeared) Skipped"
    assert base.exists()
    assert quarantined(tree) == []


def test_a_base_that_a_guest_starts_on_in_the_window_comes_back(
    window: Window, node: ComputeNode, tree: NovaTree, base: Path, tmp_path: Path
) -> None:
    # Outside of the instances path and unknown to the libvirt that is asked: only qemu's lock can tell.
    disk = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, base)

    with window.before_the_rename():
        node.create(domain_xml("instance-00000001", disks=[Disk(disk)]))

    assert window.verdict(base) == "Keep(LockedByQemu) Skipped"
    assert base.exists()
    assert quarantined(tree) == []
    assert node.state("instance-00000001") == "running"


def test_a_base_that_is_fetched_anew_after_its_removal_and_the_old_one_both_stay(
    keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    old = base.read_bytes()
    window = Window(keeper, AT_ONCE)
    with window.after_the_rename(base):
        tree.add_base(IMAGE, seed=2)
        new = base.read_bytes()
        new_overlay(tree, base)

    assert window.verdict(base) == "Hold(Conflict) Skipped"
    assert base.read_bytes() == new != old
    (kept,) = quarantined(tree)
    assert kept.read_bytes() == old

    answer = keeper.run(NO_RETENTION)  # needed, and different: a person must say which is right
    assert answer.status == 3
    assert {hold for hold, _ in answer.holds} == {"Conflict"}
    assert base.read_bytes() == new
    assert kept.read_bytes() == old


def test_a_base_that_is_fetched_anew_without_a_user_replaces_nothing(
    keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    old = base.read_bytes()
    window = Window(keeper, AT_ONCE)
    with window.after_the_rename(base):
        tree.add_base(IMAGE, seed=2)
        new = base.read_bytes()

    assert base.read_bytes() == new
    (kept,) = quarantined(tree)
    assert kept.read_bytes() == old


def test_a_base_that_is_replaced_before_the_rename_is_not_taken_for_the_old_one(
    window: Window, tree: NovaTree, base: Path
) -> None:
    with window.before_the_rename():
        part = tree.add_base(IMAGE, suffix=".part", seed=2)
        new = part.read_bytes()
        part.rename(base)  # nova's precache takes no lock

    assert window.verdict(base) == "Keep(UserAppeared) Skipped"
    assert base.read_bytes() == new
    assert quarantined(tree) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_directory_that_is_renamed_in_the_window_neither_loses_its_base_nor_holds_another(
    when: str, keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    used = tree.add_base(OTHER_IMAGE, age=2 * AGE, seed=2)
    tree.add_overlay(INSTANCE, used)
    window = Window(keeper, AT_ONCE)
    with window.before_the_rename() if when == "before" else window.after_the_rename(base):
        tree.rename_instance(INSTANCE, f"{INSTANCE}_resize")

    assert window.verdict(used) == "Keep(InUseByOverlay)"
    assert window.verdict(base) == "Remove(Expired) Quarantined"


def test_a_disk_that_is_rebased_in_place_in_the_window_gets_its_base_back(
    window: Window, tree: NovaTree, base: Path
) -> None:
    disk = tree.add_overlay(INSTANCE, tree.add_base(OTHER_IMAGE, age=AGE, seed=2))
    with window.before_the_rename():  # no directory changes
        subprocess.run(["qemu-img", "rebase", "-u", "-F", "raw", "-b", base, disk], check=True)

    assert window.verdict(base) == "Keep(InUseByOverlay) Restored"
    assert base.exists()
    assert quarantined(tree) == []


def test_a_domain_that_is_defined_elsewhere_in_the_window_gets_its_base_back(
    window: Window, node: ComputeNode, keeper: Basekeeper, tree: NovaTree, tmp_path: Path, base: Path
) -> None:
    keeper.libvirt = node.read_only_uri
    disk = NovaTree(tmp_path / "elsewhere").add_overlay(INSTANCE, base)
    with window.before_the_rename():
        node.define(domain_xml("instance-00000001", disks=[Disk(disk)]))

    assert window.verdict(base) == "Keep(InUseByOverlay) Restored"
    assert base.exists()
    assert quarantined(tree) == []


@pytest.mark.parametrize("how", ["needed", "unknown"])
def test_what_comes_up_while_others_are_removed_stops_a_purge_that_was_due(
    how: str, keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    disk = tree.add_overlay(INSTANCE, tree.add_base(OTHER_IMAGE, age=AGE, seed=2))
    due = tree.add_base("due", age=AGE, seed=3)
    base.rename(aside := tree.instances_path.parent / base.name)
    keeper.run({**AT_ONCE, "quarantine": {"retention": "1s"}})
    assert not due.exists()
    aside.rename(base)
    time.sleep(1)
    window = Window(keeper, {**AT_ONCE, "quarantine": {"retention": "1h"}})
    with window.before_the_rename(base):
        missing = due if how == "needed" else tree.instances_path / "disk-that-is-nowhere"
        subprocess.run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", missing, disk], check=True)

    if how == "needed":
        assert window.verdict(due) == "Keep(InUseByOverlay) Restored"
        assert due.exists()
    else:
        assert window.verdict(due) == "Hold(UnknownUsage) Skipped"
        assert due in {tree.base_dir / path.name for path in quarantined(tree)}
        assert window.answer.status == 3


# --- an instance's directory is renamed while it is looked for -------------------------------------------------


# Each list takes two calls, each look two lists.
@pytest.mark.parametrize(
    ("spec", "which"),
    [({**AT_ONCE, "mode": "Audit"}, "when=1"), (AT_ONCE, "when=5")],
    ids=["in the only look of Audit", "in the second look of Enforce"],
)
@pytest.mark.parametrize(("before", "after"), [("", "_resize"), ("_resize", "")])
def test_a_directory_that_is_renamed_between_list_and_look_keeps_its_base(
    before: str, after: str, spec: Spec, which: str, keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    tree.add_overlay(INSTANCE + before, base)
    tree.add_base(OTHER_IMAGE, age=AGE, seed=2)  # so that there is something to act on, and a second look
    window = Window(keeper, spec)
    instances = tree.instances_path
    with window.held_open(f"getdents64:delay_exit:{which}", lambda: window.lists(instances), path=instances):
        tree.rename_instance(INSTANCE + before, INSTANCE + after)

    assert window.verdict(base) == "Keep(InUseByOverlay)"
    assert base.exists()


RENAME_FOR_EVER = """
import os, sys
one, other = sys.argv[1:]
while True:
    os.rename(one, other)
    os.rename(other, one)
"""


def test_a_directory_that_is_never_at_rest_keeps_its_base(keeper: Basekeeper, tree: NovaTree, base: Path) -> None:
    tree.add_overlay(INSTANCE, base)
    place = tree.instance(INSTANCE)
    renaming = subprocess.Popen([sys.executable, "-c", RENAME_FOR_EVER, place, f"{place}_resize"])
    try:
        with Passes(keeper) as passes:
            passes.wait_for_more(5)
    finally:
        renaming.kill()
        renaming.wait()

    assert passes.verdicts(base) <= {"Keep(InUseByOverlay)", "Hold(UnknownUsage)"}
    assert base.exists()
