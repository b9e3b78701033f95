"""Want of room on real file systems: what goes, in which order, never what is used, and what a full disk does."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.file_system import MIB, FileSystem
from lab.nova_tree import HOUR, NovaTree, image_file_name
from tests.node.cli import ENFORCE, TIMEOUT, Answer, Basekeeper, Spec
from tests.node.passes import Passes
from tests.node.window import wait_until

MACHINE = "0f3c0000-0000-4000-8000-00000000000{}".format
LEAST_OF_A_DISK = {"tmpfs": 5 * MIB, "ext4": 5 * MIB, "xfs": 20 * MIB}
"""Bytes of a base: so that ten of them fill most of the file system."""


def marks(high: int, low: int, **more: Any) -> Spec:
    """A policy that wants room."""
    return {**ENFORCE, "pressure": {"highPercent": high, "lowPercent": low, **more}}


@dataclass
class Cache:
    """A cache on a disk of its own, with bases that really take up what they say."""

    disk: FileSystem
    tree: NovaTree
    keeper: Basekeeper
    size: int
    bases: list[Path] = field(default_factory=list)

    def add(self, count: int, *, oldest: float = 20 * HOUR) -> list[Path]:
        """Bases that were unused for ever fewer hours."""
        added = []
        for number in range(len(self.bases), len(self.bases) + count):
            base = self.tree.base_dir / image_file_name(f"image {number}")
            base.write_bytes(os.urandom(self.size))
            self.tree.age(base, oldest - number * HOUR)
            added.append(base)
        self.bases += added
        return added

    def there(self) -> list[Path]:
        """The bases that are left, the oldest first."""
        return [base for base in self.bases if base.exists()]

    def quarantined(self) -> list[str]:
        """What lies in the quarantine."""
        return sorted(path.name.partition(".")[0] for path in self.tree.base_dir.glob(".basekeeper/quarantine/*"))


@pytest.fixture
def cache(disk: FileSystem, tmp_path: Path) -> Cache:
    """An empty one."""
    tree = NovaTree(disk.path / "instances")
    return Cache(disk, tree, Basekeeper(tree, tmp_path / "state"), LEAST_OF_A_DISK[disk.kind])


def pressure(answer: Answer) -> dict[str, Any]:
    """What a pass says about room."""
    assert answer.status in (0, 3), answer
    return dict(answer.document["pressure"])


def removed(answer: Answer) -> set[str]:
    """The names of what a pass took out of the cache."""
    rows = [row for row in answer.document["files"] if "quarantineEntry" not in row]
    return {row["name"] for row in rows if row.get("action") in ("Quarantined", "Purged")}


def test_unused_files_go_the_least_recently_used_first_until_there_is_room_and_come_free_in_the_pass_after(
    cache: Cache,
) -> None:
    bases = cache.add(10)
    cache.tree.add_overlay(MACHINE(1), bases[0])
    content = bases[0].read_bytes()
    full = cache.disk.used_percent
    spec = marks(int(full) - 1, int(full) - 25)
    planned = cache.keeper.plan(spec)
    first = cache.keeper.run(spec)
    assert pressure(first)["state"] == "Pressure"
    gone = [base for base in bases if not base.exists()]
    assert gone == bases[1 : len(gone) + 1], "the oldest is used, and the others go from the oldest on"
    assert {row["name"] for row in planned.document["files"] if row["reason"] == "Pressure"} == removed(first)
    assert cache.disk.used_percent > full - 1, "a rename frees nothing"
    second = cache.keeper.run(spec)
    assert removed(second) == set(), "what waits in the quarantine counts as freed"
    assert second.document["totals"]["reclaimedBytes"] >= len(gone) * cache.size
    assert cache.disk.used_percent <= full - 24
    assert cache.disk.used_percent > full - 25 - 100 * 1.5 * cache.size / 48 / MIB, "no more than one file too much"
    third = cache.keeper.run(spec)
    assert (pressure(third)["state"], removed(third)) == ("Below", set())
    assert bases[0].read_bytes() == content


def test_what_has_begun_goes_on_below_the_high_mark_in_processes_of_their_own(cache: Cache) -> None:
    bases = cache.add(8)
    full = int(cache.disk.used_percent)
    spec = {**marks(full - 1, full - 25), "limits": {"maxFiles": 1, "maxPercent": 100}}
    answers = [cache.keeper.run(spec) for _ in range(14)]
    assert pressure(answers[-1])["state"] == "Below"
    gone = [base for base in bases if not base.exists()]
    assert gone == bases[: len(gone)]
    assert len(gone) > 1
    under = [pressure(answer)["usedPercent"] for answer in answers if pressure(answer)["state"] == "Pressure"]
    assert min(under) < full - 1, "it went on between the marks"
    assert cache.disk.used_percent <= full - 25
    cache.add(1)
    assert cache.disk.used_percent > full - 25
    assert removed(cache.keeper.run(spec)) == set(), "between the marks nothing begins"


def test_the_quarantine_is_purged_before_its_time_and_spares_the_cache(cache: Cache) -> None:
    bases = cache.add(8)
    calm = {**ENFORCE, "minimumAge": {"original": "17h30m"}, "quarantine": {"retention": "6h"}}
    assert len(removed(cache.keeper.run(calm))) == 3
    full = int(cache.disk.used_percent)
    answer = cache.keeper.run({**calm, "pressure": {"highPercent": full - 1, "lowPercent": full - 3}})
    purged = [row for row in answer.document["files"] if row.get("action") == "Purged"]
    assert [row["reason"] for row in purged] == ["Pressure"]
    assert cache.there() == bases[3:]
    assert len(cache.quarantined()) == 2


def test_what_was_removed_within_the_spawn_grace_is_not_purged_however_full_the_disk_is(cache: Cache) -> None:
    cache.add(8)
    cache.keeper.spawn_grace = "10m"
    full = int(cache.disk.used_percent)
    spec = marks(full - 1, 1)
    for _ in range(3):
        answer = cache.keeper.run(spec)
        assert answer.document["totals"]["reclaimedBytes"] == 0
    assert len(cache.quarantined()) == 8


@pytest.mark.parametrize("what", ["a file that is not readable", "a policy in Audit", "a suspended policy"])
def test_where_nothing_may_be_purged_nothing_is_evicted(cache: Cache, what: str) -> None:
    bases = cache.add(8)
    full = int(cache.disk.used_percent)
    spec: dict[str, Any] = {**marks(full - 1, 1)}
    if what == "a policy in Audit":
        spec["mode"] = "Audit"
    elif what == "a suspended policy":
        spec["suspend"] = True
    else:  # a chain that leads to something that cannot be asked
        cache.tree.add_overlay(MACHINE(1), "/nowhere/base.qcow2")
    answers = [cache.keeper.run(spec) for _ in range(2)]
    assert cache.there() == bases
    told = [row for row in answers[-1].document["files"] if row["verdict"] in ("Hold", "Remove")]
    assert len(told) == len(bases), "but it says what would go"


def test_a_full_disk_of_what_is_used_is_not_ours_and_the_sentence_says_what_the_cache_holds(cache: Cache) -> None:
    bases = cache.add(5)
    for number, base in enumerate(bases):
        cache.tree.add_overlay(MACHINE(number), base)
    digests = [hashlib.sha256(base.read_bytes()).digest() for base in bases]
    spec = marks(int(cache.disk.used_percent) - 1, 1)
    answers = [cache.keeper.run(spec) for _ in range(2)]
    for answer in answers:
        assert pressure(answer)["state"] == "PressureNotOurs"
        (note,) = [note["message"] for note in answer.document["notes"] if note["about"] == "PressureNotOurs"]
        assert "in use" in note
        assert removed(answer) == set()
    assert [hashlib.sha256(base.read_bytes()).digest() for base in bases] == digests


def test_explain_gives_the_place_in_the_order(cache: Cache) -> None:
    bases = cache.add(3)
    cache.tree.add_overlay(MACHINE(1), bases[0])
    calm = marks(100, 99)
    answer = cache.keeper.ask("explain", *(base.name for base in bases), spec=calm)
    lines = [" ".join(item["evidence"]) for item in answer.document["items"]]
    assert "for want of room" not in lines[0]
    assert "it would go at once before its own age: it is number 1 of 2" in lines[1]
    assert "it is number 2 of 2" in lines[2]


def test_a_budget_is_kept_on_a_disk_with_room(cache: Cache) -> None:
    bases = cache.add(6)
    spec = {**ENFORCE, "maxCacheBytes": int(3.5 * cache.size)}
    answers = [cache.keeper.run(spec) for _ in range(3)]
    assert cache.there() == bases[3:]
    assert [pressure(answer)["state"] for answer in answers] == ["OverBudget", "OverBudget", "Below"]
    assert pressure(answers[-1])["cacheBytes"] <= 3.5 * cache.size


# --- not a block left --------------------------------------------------------------------------------------------


def test_a_disk_without_a_free_block_gets_its_room_by_what_was_kept_back(cache: Cache) -> None:
    """A side-car, its directory and nova's lock file take blocks; a full disk has none."""
    bases = cache.add(5)
    cache.keeper.run(marks(99, 98))
    reserve = cache.tree.base_dir / ".basekeeper/reserve"
    assert reserve.stat().st_blocks * 512 >= MIB
    cache.disk.fill()
    spec = marks(60, 50)
    first = cache.keeper.run(spec)
    assert len(removed(first)) == len(bases), first
    assert not reserve.exists()
    cache.disk.fill()
    second = cache.keeper.run(spec)
    assert second.document["totals"]["reclaimedBytes"] >= 5 * cache.size
    assert reserve.stat().st_blocks * 512 >= MIB, "it is made again when there is room"
    cache.keeper.run(ENFORCE)
    assert not reserve.exists(), "who wants no room keeps none back"


def test_a_needed_file_goes_back_on_a_disk_without_a_free_block(cache: Cache) -> None:
    (base,) = cache.add(1)
    cache.keeper.run(marks(99, 98))
    cache.keeper.run({**marks(99, 98), "minimumAge": {"original": "1h"}})
    assert not base.exists()
    cache.tree.add_overlay(MACHINE(1), base, size=MIB)
    (cache.tree.locks_dir / f"nova-{base.name}").unlink()  # taking it takes a block, too
    cache.disk.fill()
    assert cache.keeper.run(marks(60, 50)).verdict(base) == "Keep(InUseByOverlay) Restored"
    assert base.exists()


def test_a_full_disk_with_nothing_kept_back_is_told_of_in_a_sentence_and_loses_nothing(cache: Cache) -> None:
    bases = cache.add(3)
    cache.keeper.run(ENFORCE)
    cache.disk.fill()
    answer = cache.keeper.run(marks(60, 50))
    assert answer.status == 1
    assert "No space left on device" in answer.stderr
    assert cache.there() == bases
    assert cache.quarantined() == []


# --- files that share their blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_a_base_whose_blocks_a_flat_disk_shares_frees_nothing_and_is_passed_over(cache: Cache) -> None:
    """`cp` makes such copies by itself; nova copies flat disks with it, and nothing else names the base then."""
    bases = cache.add(6)
    flat = cache.tree.instance(MACHINE(1)) / "disk.copy"
    subprocess.run(["cp", "--reflink=always", bases[0], flat], check=True)
    full = int(cache.disk.used_percent)
    spec = {**marks(full - 1, full - 3), "cachedOnly": "Remove"}
    cache.keeper.run(spec)
    assert [base for base in bases if not base.exists()] == [bases[1]]
    flat.unlink()
    os.sync()
    assert pressure(cache.keeper.run({**spec, "pressure": {"highPercent": 2, "lowPercent": 1}}))["state"] == "Pressure"
    assert not bases[0].exists()


# --- beside a writer ---------------------------------------------------------------------------------------------

WRITER = r"""
import os, sys, time
base, size, high, rounds, log = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
def used():
    found = os.statvfs(base)
    used = found.f_blocks - found.f_bfree
    return 100 * used / (used + found.f_bavail)
with open(log, "a", buffering=1) as log:
    for number in range(rounds):
        name = f"{number:040x}"
        with open(f"{base}/{name}.part", "wb") as file:
            file.write(os.urandom(size))
        os.rename(f"{base}/{name}.part", f"{base}/{name}")
        above = used() > high
        log.write(f"{name} {above:d}\n")
        deadline = time.monotonic() + 60
        while used() > high:
            if time.monotonic() > deadline:
                sys.exit("the disk stays above its mark")
            time.sleep(0.05)
"""


@pytest.mark.parametrize("disk", ["tmpfs", "ext4"], indirect=True)
def test_beside_a_writer_the_disk_comes_back_under_its_mark_as_long_as_something_is_unused(
    cache: Cache, tmp_path: Path
) -> None:
    """New bases come as nova makes them, some get users; five times the disk's size in all."""
    size, high, low, rounds = 3 * MIB, 60, 35, 100
    log = tmp_path / "writer.log"
    log.touch()
    cache.keeper.spawn_grace = "1s"
    spec = {**marks(high, low, minimumAge="1s"), "minimumAge": {"original": "1h"}}
    used: dict[Path, bytes] = {}
    command: list[str | Path] = [
        sys.executable,
        "-c",
        WRITER,
        cache.tree.base_dir,
        str(size),
        str(high),
        str(rounds),
        log,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as writer:
        try:
            with Passes(cache.keeper, spec) as passes:
                for number in (3, 20, 50, 80):  # a machine for one of the newest now and then
                    wait_until(partial(_has_lines, log, number + 1))
                    newest = cache.tree.base_dir / log.read_text().splitlines()[-1].split()[0]
                    cache.tree.add_overlay(MACHINE(number % 10), newest, disk=f"disk{number}")
                    used[newest] = newest.read_bytes()
                assert writer.communicate(timeout=TIMEOUT * 4)[1] == ""
        finally:
            writer.kill()
    assert writer.returncode == 0
    written = [line.split() for line in log.read_text().splitlines()]
    crossings = sum(above == "1" for _, above in written)
    evictions = [name for answer in passes.answers for name in _in_order(answer) if name in removed(answer)]
    assert crossings > 1
    assert evictions == sorted(evictions), "the least recently used go first"
    assert len(evictions) == len(set(evictions))
    assert set(evictions).isdisjoint(base.name for base in used)
    assert {base: base.read_bytes() for base in used} == used
    to_the_low_mark = (high - low) / 100 * 64 * MIB / size + 2  # the file that crossed the high one, and one too much
    assert len(evictions) <= crossings * to_the_low_mark, "no more goes for each crossing than leads to the low mark"


def _has_lines(log: Path, count: int) -> bool:
    return len(log.read_text().splitlines()) >= count


def _in_order(answer: Answer) -> list[str]:
    """The names of a pass's files, by when they were last used."""
    rows = [row for row in answer.document["files"] if row["ageSeconds"] is not None]
    return [row["name"] for row in sorted(rows, key=lambda row: (-row["ageSeconds"], row["name"]))]
