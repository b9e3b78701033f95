"""`touchInUse` on real files: nova finds no base old that something uses; nothing else gets another stamp."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from basekeeper.cache import inventory
from basekeeper.cache.acts import Touched
from basekeeper.cache.memory import Clock, Memory
from basekeeper.cache.plan import plan
from basekeeper.cache.settings import Host, MinimumAge, NovaSays, Policy
from basekeeper.cache.touching import touch_in_use
from lab.nova_tree import DAY, HOUR, MINUTE, NovaTree
from tests.unit.judging import overlay, used

POLICY = Policy(touch_in_use=True)


@pytest.fixture
def tree(tmp_path: Path) -> NovaTree:
    return NovaTree(tmp_path / "instances")


def host(tree: NovaTree, says: NovaSays | None = None) -> Host:
    root = tree.instances_path
    return Host("node", root, tree.base_dir, root / "snapshots", root.parent, nova_says=says)


def touched(tree: NovaTree, *in_use: Path, policy: Policy = POLICY, says: NovaSays | None = None) -> Touched:
    """Touch as a pass does that finds these bases in use."""
    here, now = host(tree, says), time.time()
    usage = used({os.fsencode(path.name): (overlay(),) for path in in_use})
    judged = plan(inventory.scan(here), usage, policy, Memory(), Clock(now, 1.0, "boot"))
    return touch_in_use(here, policy, judged, now)


def age_of(path: Path) -> float:
    return time.time() - path.stat().st_mtime


AGES: dict[str, tuple[str, float, bool]] = {
    "an original that nova would remove": ("", 2 * DAY, True),
    "an original older than a quarter of nova's age": ("", 6 * HOUR + MINUTE, True),
    "one that nova touches by itself": ("", 5 * HOUR, False),
    "a resized base older than a quarter of nova's age": ("_20", 16 * MINUTE, True),
    "a younger one": ("_20", 14 * MINUTE, False),
    "a leftover, which nova never removes": (".part", 9 * DAY, False),
}


@pytest.mark.parametrize(("suffix", "age", "expected"), AGES.values(), ids=AGES)
def test_a_base_in_use_is_touched_before_nova_finds_it_old(
    tree: NovaTree, suffix: str, age: float, *, expected: bool
) -> None:
    base = tree.add_base("image", suffix=suffix, age=age)
    os.utime(base, (1_000_000.0, base.stat().st_mtime))
    found = touched(tree, base)
    assert (age_of(base) < MINUTE, os.fsencode(base.name) in found.stamps) == (expected, expected)
    assert base.stat().st_atime == 1_000_000.0, "nobody has read it"
    if expected:
        assert found.stamps[os.fsencode(base.name)] == base.stat().st_mtime, "as an inventory will see it"


def test_what_nothing_uses_keeps_its_stamp_pinned_or_not(tree: NovaTree) -> None:
    uuid = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
    bases = [tree.add_base("unused", age=9 * DAY), tree.add_base(uuid, age=9 * DAY), tree.add_swap(64, age=9 * DAY)]
    found = touched(tree, policy=replace(POLICY, pinned_images=frozenset({uuid})))
    assert found == Touched()
    assert all(age_of(base) > 8 * DAY for base in bases)


def test_shorter_ages_of_nova_or_of_the_policy_are_kept_up_with(tree: NovaTree) -> None:
    base = tree.add_base("image", age=20 * MINUTE)
    assert not touched(tree, base).stamps
    assert not touched(tree, base, says=NovaSays(problem="unreadable", original_age=60.0)).stamps
    assert touched(tree, base, says=NovaSays(original_age=HOUR)).stamps
    tree.age(base, 20 * MINUTE)
    assert touched(tree, base, policy=replace(POLICY, minimum_age=MinimumAge(original=HOUR))).stamps


def test_a_name_that_leads_elsewhere_meanwhile_is_not_followed(tree: NovaTree, tmp_path: Path) -> None:
    base, elsewhere = tree.add_base("image", age=2 * DAY), tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody's")
    tree.age(elsewhere, 2 * DAY)
    here, now = host(tree), time.time()
    usage = used({os.fsencode(base.name): (overlay(),)})
    judged = plan(inventory.scan(here), usage, POLICY, Memory(), Clock(now, 1.0, "boot"))
    base.unlink()
    base.symlink_to(elsewhere)
    assert touch_in_use(here, POLICY, judged, now).stamps == {}
    assert age_of(elsewhere) > DAY
    base.unlink()
    os.link(elsewhere, base)
    assert touch_in_use(here, POLICY, judged, now) == Touched(), "another inode is another file"
    assert age_of(elsewhere) > DAY
    base.unlink()
    assert touch_in_use(here, POLICY, judged, now) == Touched()


def test_a_file_that_somebody_has_just_touched_is_left_so(tree: NovaTree) -> None:
    base = tree.add_base("image", age=2 * DAY)
    here, now = host(tree), time.time()
    usage = used({os.fsencode(base.name): (overlay(),)})
    judged = plan(inventory.scan(here), usage, POLICY, Memory(), Clock(now, 1.0, "boot"))
    tree.age(base, HOUR)
    assert touch_in_use(here, POLICY, judged, now) == Touched()
    assert age_of(base) > 50 * MINUTE
