"""Integrity from end to end: what a corrupt base becomes, whatever ends a verification, and a disk that cannot read."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from basekeeper.cache import ledger_file
from basekeeper.cache.integrity import BLOCK, root
from basekeeper.cache.settings import Algorithm
from lab.nova_tree import DAY, HOUR, NovaTree
from tests.node.cli import ENFORCE, Answer, Basekeeper, Spec

NOVA = 42424
VERIFIED: Spec = {**ENFORCE, "minimumAge": {"original": "720h"}, "integrity": {}}
"""Nothing is old enough to go, so that only what is corrupt does."""
SIZE = 2 * BLOCK + 12345
QUARANTINED = "Remove(Corrupt) Quarantined"


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


def add_base(tree: NovaTree, image: str, *, age: float = 2 * DAY) -> Path:
    """A base of three blocks, all of content."""
    path = tree.add_base(image, size=1)
    path.write_bytes(hashlib.shake_128(image.encode()).digest(SIZE))
    tree.age(path, age)
    return path


def damage(path: Path, offset: int = BLOCK + 7) -> None:
    """Change one byte, and no time stamp."""
    before = path.stat()
    descriptor = os.open(path, os.O_RDWR)
    byte = os.pread(descriptor, 1, offset)
    os.pwrite(descriptor, bytes([byte[0] ^ 1]), offset)
    os.fsync(descriptor)
    os.close(descriptor)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def corrupt_base(tree: NovaTree, keeper: Basekeeper, image: str) -> Path:
    """A base that changed after it was first read, and was found so."""
    base = add_base(tree, image)
    keeper.ask("verify")
    damage(base)
    keeper.ask("verify")
    return base


def outcomes(answer: Answer) -> dict[str, str]:
    return {item["name"]: item["outcome"] for item in answer.document["files"]}


def entries(keeper: Basekeeper) -> dict[str, str]:
    """Why each quarantined file was removed."""
    return {item["name"]: item["reason"] for item in keeper.ask("quarantine", "list").document["items"]}


# --- what becomes of a corrupt base --------------------------------------------------------------------------------


def test_a_corrupt_base_that_nothing_uses_goes_before_its_age_and_a_used_one_is_reported(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    unused, used, whole = (add_base(tree, image) for image in ("unused", "used", "whole"))
    tree.add_overlay("machine", used)
    assert outcomes(keeper.ask("verify")) == dict.fromkeys((unused.name, used.name, whole.name), "Baselined")
    damage(unused)
    damage(used)
    found = keeper.ask("verify")
    assert (found.status, outcomes(found)) == (3, {unused.name: "Corrupt", used.name: "Corrupt", whole.name: "Whole"})
    assert {tuple(item.get("offsets", ())) for item in found.document["files"]} == {(BLOCK,), ()}
    made = keeper.run(VERIFIED)
    assert made.verdict(unused) == QUARANTINED
    assert made.verdict(used) == "Keep(InUseByOverlay)"
    assert made.verdict(whole) == "Keep(TooYoung)"
    assert entries(keeper) == {unused.name: "Corrupt"}
    assert made.document["integrity"]["files"]["corrupt_in_use"] == 1
    assert [note["about"] for note in made.document["notes"]] == ["BaseCorrupt"]
    assert used.read_bytes() != b""


KEPT: dict[str, Spec] = {
    "Audit": {**VERIFIED, "mode": "Audit"},
    "a policy that does not verify": {key: value for key, value in VERIFIED.items() if key != "integrity"},
    "suspend": {**VERIFIED, "suspend": True},
    "outside of every window": {
        **VERIFIED,
        "maintenanceWindows": [{"schedule": "0 0 29 2 *", "duration": "1s"}],
    },
    "a pin": {**VERIFIED, "pinnedImages": ["0f3c0000-0000-4000-8000-000000000001"]},
}


@pytest.mark.parametrize("spec", KEPT.values(), ids=KEPT)
def test_nothing_corrupt_is_removed_where_nothing_may_be(tree: NovaTree, keeper: Basekeeper, spec: Spec) -> None:
    base = corrupt_base(tree, keeper, "0f3c0000-0000-4000-8000-000000000001")
    keeper.run(spec)
    assert base.exists()


def test_an_unknown_holds_a_corrupt_base_like_any_other(tree: NovaTree, keeper: Basekeeper) -> None:
    base = corrupt_base(tree, keeper, "image")
    (tree.instance("machine") / "disk").write_bytes(b"QFI\xfb" + bytes(60))
    made = keeper.run(VERIFIED)
    assert made.verdict(base) == "Hold(UnknownUsage)"
    assert base.exists()


def test_a_corrupt_base_waits_until_nothing_can_be_starting_on_it(tree: NovaTree, keeper: Basekeeper) -> None:
    base = corrupt_base(tree, keeper, "image")
    tree.age(base, 60)
    keeper.spawn_grace = "10m"
    assert keeper.run(VERIFIED).verdict(base) == "Keep(TooYoung)"
    tree.age(base, HOUR)
    assert keeper.run(VERIFIED).verdict(base) == QUARANTINED


def test_what_was_removed_as_corrupt_comes_back_by_hand_alone_with_its_baseline(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    base = corrupt_base(tree, keeper, "image")
    assert keeper.run(VERIFIED).verdict(base) == QUARANTINED
    tree.add_overlay("machine", str(base))
    made = keeper.run({**VERIFIED, "quarantine": {"retention": "0s"}})
    assert (made.status, made.verdict(base)) == (3, "Hold(Corrupt)")
    assert [reason for reason, _ in made.holds] == ["Corrupt"]
    assert not base.exists()
    assert entries(keeper) == {base.name: "Corrupt"}, "what is needed is not purged"

    back = keeper.ask("quarantine", "restore", base.name)
    assert (back.status, base.exists()) == (0, True)
    assert "it is corrupt" in back.document["items"][0]["message"]
    made = keeper.run(VERIFIED)
    assert made.verdict(base) == "Keep(InUseByOverlay)"
    damage(base)  # the same byte once more: as it was
    assert outcomes(keeper.ask("verify")) == {base.name: "Whole"}


def test_a_user_that_shows_during_the_pass_gets_a_corrupt_base_back(tree: NovaTree, keeper: Basekeeper) -> None:
    """Its overlay is made while the base is being renamed: a late look of the same pass must find it."""
    base = corrupt_base(tree, keeper, "image")
    disk = tree.add_overlay("machine", base)
    hidden = disk.rename(tree.instances_path.parent / "disk")
    command = keeper.command("run", spec=VERIFIED)
    trace = ("strace", "-f", "-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_exit=3000000")
    with subprocess.Popen([*trace, *command], stdout=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while base.exists():
            assert time.monotonic() < deadline, "the pass removed nothing"
            time.sleep(0.01)
        hidden.rename(disk)
        running.communicate(timeout=60)
    assert base.exists()
    assert entries(keeper) == {}


def test_a_pass_that_was_killed_while_it_removed_a_corrupt_base_gives_it_back_to_who_needs_it(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    base = corrupt_base(tree, keeper, "image")
    command = keeper.command("run", spec=VERIFIED)
    kill = ("strace", "-f", "-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_exit=5000000")
    with subprocess.Popen([*kill, *command], stdout=subprocess.DEVNULL, start_new_session=True) as running:
        deadline = time.monotonic() + 60
        while base.exists():
            assert time.monotonic() < deadline, "the pass removed nothing"
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    assert not base.exists()
    tree.add_overlay("machine", str(base))
    made = keeper.run(VERIFIED)
    assert base.exists(), made.document
    assert made.verdict(base).startswith("Keep(InUseByOverlay)")


def test_run_verifies_a_little_after_its_pass_and_the_next_one_acts_on_it(tree: NovaTree, keeper: Basekeeper) -> None:
    base = add_base(tree, "image")
    often = {**VERIFIED, "integrity": {"interval": "1s", "algorithm": "SHA256"}}
    assert keeper.run(often).document["integrity"]["files"]["pending"] == 1
    assert keeper.plan(often).document["integrity"]["files"]["whole"] == 1
    damage(base)
    time.sleep(1.1)
    assert keeper.run(often).verdict(base) == "Keep(TooYoung)"
    assert keeper.run(often).verdict(base) == QUARANTINED


def test_a_used_base_that_is_corrupt_is_explained_with_its_places(tree: NovaTree, keeper: Basekeeper) -> None:
    base = add_base(tree, "image")
    tree.add_overlay("machine", base)
    keeper.ask("verify")
    damage(base, 3)
    damage(base, BLOCK + 3)
    keeper.ask("verify")
    (told,) = keeper.ask("explain", base.name).document["items"]
    evidence = "\n".join(told["evidence"])
    assert told["reason"] == "InUseByOverlay"
    assert re.search(r"baseline taken \S+Z, last found whole \S+Z \(XXH3 [0-9a-f]{32}\)", evidence)
    assert f"Corrupt since {told['evidence'][-1].split()[2]}" in evidence or "Corrupt since" in evidence
    assert f"(bytes 0, {BLOCK})" in evidence


# --- verify as a command -------------------------------------------------------------------------------------------


def test_verify_takes_names_and_images_and_says_which_it_does_not_know(tree: NovaTree, keeper: Basekeeper) -> None:
    image = "0f3c0000-0000-4000-8000-000000000001"
    base, other = add_base(tree, image), add_base(tree, "other")
    assert outcomes(keeper.ask("verify", image)) == {base.name: "Baselined"}
    assert outcomes(keeper.ask("verify", other.name)) == {other.name: "Baselined"}
    wrong = keeper.ask("verify", "nothing")
    assert (wrong.status, wrong.document) == (2, {})
    assert "no base of the name or image 'nothing' is cached" in wrong.stderr
    for size in ("fast", "0"):
        assert keeper.ask("verify", "--max-bytes-per-second", size).status == 2


def test_verify_changes_nothing_in_the_cache(tree: NovaTree, keeper: Basekeeper) -> None:
    base = add_base(tree, "image")
    for directory in (path for path in tree.instances_path.rglob("*") if path.is_dir()):
        os.utime(directory, (time.time() + HOUR, time.time()))  # or this test's own listing would be an access
    before = {path: path.lstat() for path in tree.instances_path.rglob("*")}
    keeper.ask("verify")
    keeper.ask("verify")
    assert {path: path.lstat() for path in tree.instances_path.rglob("*")} == before
    assert base.exists()


def test_a_base_that_is_young_is_pending_and_the_status_says_so(tree: NovaTree, keeper: Basekeeper) -> None:
    keeper.spawn_grace = "10m"
    base = add_base(tree, "image")
    answer = keeper.ask("verify")
    assert (answer.status, outcomes(answer)) == (3, {base.name: "Pending"})


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can get to, unlike pytest's."""
    place = Path(tempfile.mkdtemp(prefix="basekeeper-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_what_nova_s_user_may_not_read_is_unreadable_and_not_corrupt(open_place: Path) -> None:
    assert os.geteuid() == 0, "changing users needs root"
    tree = NovaTree(open_place / "instances")
    keeper = Basekeeper(tree, open_place / "state")
    readable, secret = add_base(tree, "readable"), add_base(tree, "secret")
    keeper.state.mkdir()
    for path in (open_place, *open_place.rglob("*")):
        os.chown(path, NOVA, NOVA)
    os.chown(readable, 0, 0)
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    nova = ("setpriv", f"--reuid={NOVA}", f"--regid={NOVA}", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    answer = keeper.ask("verify", under=nova)
    assert (answer.status, outcomes(answer)) == (3, {readable.name: "Baselined", secret.name: "Unreadable"})
    (told,) = [item for item in answer.document["files"] if item["name"] == secret.name]
    assert "Permission denied" in told["message"]


# --- interruptions -------------------------------------------------------------------------------------------------


def baselines(keeper: Basekeeper) -> int:
    """How many there are; each must be of a whole file."""
    with ledger_file.reading(keeper.state) as book:
        found = book.contents.known().baselines
        for item in found.values():
            digests = book.contents.digests(item.identity)
            assert len(digests) == 16 * 3
            assert item.root == root(Algorithm.XXH3, item.size, digests)
    return len(found)


def test_a_signal_ends_a_verification_between_two_blocks_and_the_next_one_goes_on_there(
    tree: NovaTree, keeper: Basekeeper
) -> None:
    base = add_base(tree, "image")
    process = keeper.start("verify", "--max-bytes-per-second", "1Mi")
    time.sleep(2.5)  # the first block is read at once, then it waits for four seconds
    process.send_signal(signal.SIGTERM)
    ended = keeper.end(process)
    assert (ended.status, outcomes(ended)) == (1, {base.name: "Interrupted"})
    assert "interrupted between two blocks" in ended.stderr
    assert baselines(keeper) == 0
    rest = keeper.ask("verify")
    assert outcomes(rest) == {base.name: "Baselined"}
    assert rest.document["totals"]["readBytes"] == SIZE - BLOCK
    assert baselines(keeper) == 1


CALLS = ("preadv2", "pwrite64", "fdatasync", "unlink", "link")


def test_killed_at_any_read_and_any_write_of_the_ledger_it_leaves_no_partial_baseline(
    tree: NovaTree, tmp_path: Path
) -> None:
    """Each time from the beginning, without a ledger and with one that has a reading under way."""
    base = add_base(tree, "image")
    traced = Basekeeper(tree, tmp_path / "traced")
    trace = tmp_path / "trace"
    under = ("strace", "-f", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    assert outcomes(traced.ask("verify", under=under)) == {base.name: "Baselined"}
    counts = {call: len(re.findall(rf"\b{call}\(", trace.read_text())) for call in CALLS}
    assert counts["preadv2"] >= 3
    assert counts["fdatasync"] >= 3
    for call, count in counts.items():
        for when in range(1, count + 1):
            keeper = Basekeeper(tree, tmp_path / f"{call}-{when}")
            killed = keeper.ask("verify", under=("strace", "-f", "-o", "/dev/null", *kill(call, when)))
            assert killed.status != 0, (call, when)
            whole = keeper.ask("verify")
            assert whole.document["files"][0]["outcome"] in ("Baselined", "Whole"), (call, when)
            assert baselines(keeper) == 1
            assert outcomes(keeper.ask("verify")) == {base.name: "Whole"}


def kill(call: str, when: int) -> tuple[str, ...]:
    return ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")


# --- a disk that cannot read ---------------------------------------------------------------------------------------


class BadDisk:
    """A file system on a disk of which the end is lost while it is mounted. Takes root."""

    def __init__(self, place: Path) -> None:
        self.path = place / "instances"
        self._image = place / "disk.img"

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(256 << 20)
        run("mkfs.ext4", "-q", "-O", "^has_journal", self._image)
        run("mount", "-o", "loop", self._image, self.path)
        return self

    def lose(self, file: Path, offset: int) -> None:
        """Let everything on the disk be lost from where this byte of a file lies."""
        run("sync", "-f", self.path)
        told = run("filefrag", "-v", "-b4096", file)
        for line in told.splitlines():
            match = re.match(r"\s*\d+:\s+(\d+)\.\.\s*(\d+):\s+(\d+)\.\.", line)
            if match and int(match[1]) <= offset // 4096 <= int(match[2]):
                place = (int(match[3]) + offset // 4096 - int(match[1])) * 4096
                os.truncate(self._image, place)
        descriptor = os.open(file, os.O_RDONLY)  # only what is in memory of it: directories must stay readable
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        if self.path.is_mount():
            run("umount", "--lazy", self.path)


def run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_bad_sector_is_unreadable_with_its_offset_and_not_corrupt(tmp_path: Path) -> None:
    with BadDisk(tmp_path) as disk:
        keeper = Basekeeper(NovaTree(disk.path), tmp_path / "state")
        base = add_base(keeper.tree, "image")
        assert outcomes(keeper.ask("verify")) == {base.name: "Baselined"}
        disk.lose(base, BLOCK + 8192)
        answer = keeper.ask("verify")
        assert (answer.status, outcomes(answer)) == (3, {base.name: "Unreadable"}), answer
        (told,) = answer.document["files"]
        # The kernel may refuse more than the sector: all that it reads in one go.
        assert BLOCK <= told["offsets"][0] <= BLOCK + 8192, json.dumps(told)
        made = keeper.run({**VERIFIED, "mode": "Audit"})
        assert made.verdict(base) == "Keep(TooYoung)"
        assert made.document["integrity"]["files"]["unreadable"] == 1
