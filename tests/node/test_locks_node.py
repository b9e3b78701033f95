"""nova's lock between processes: nova's side by fasteners, as oslo.concurrency takes it, ours by the command."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.nova_tree import DAY, NovaTree
from tests.node.cli import Basekeeper
from tests.node.passes import AT_ONCE
from tests.node.window import Window, wait_until

IMAGE = "6d1c5c05-9c4b-4b5a-9d5c-3a4f7f6b8a01"
OTHER_IMAGE = "a4b0cd0c-40cf-4f0c-8d3f-6a5c1a1c9e02"
AGE = 30 * DAY
NOVA = 42424
"""nova's uid and gid in the images that openstack-helm deploys; kolla's have 42436."""
WAITS_AT_MOST = 15.0
"""Seconds: far above the two that a pass waits for a lock, far below for ever."""

NOVAS_SIDE = """
import sys, fasteners
path, patience = sys.argv[1:]
lock = fasteners.InterProcessLock(path)
print("held" if lock.acquire(timeout=float(patience)) else "not held", flush=True)
sys.stdin.readline()
if lock.acquired:
    lock.release()
print("done", flush=True)
"""


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    return Basekeeper(tree, tmp_path / "state")


@pytest.fixture
def base(tree: NovaTree) -> Path:
    return tree.add_base(IMAGE, age=AGE)


@pytest.fixture
def lock_file(tree: NovaTree, base: Path) -> Path:
    """The lock file of the base; it is there already, as on any host that runs nova."""
    path = tree.locks_dir / f"nova-{base.name}"
    path.touch()
    return path


class Nova:
    """A process that takes, or tries to take, nova's lock."""

    def __init__(self, path: Path, *, patience: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NOVAS_SIDE, str(path), str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.has_it = self._heard() == "held"

    def release(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._heard() == "done"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def nova(path: Path, *, patience: float = 5.0) -> Iterator[Nova]:
    process = Nova(path, patience=patience)
    try:
        yield process
    finally:
        process.end()


def nova_can_take(path: Path) -> bool:
    with nova(path, patience=0.0) as process:
        return process.has_it


def test_locks_that_nova_holds_keep_their_files(keeper: Basekeeper, tree: NovaTree) -> None:
    names = ["", ".part", ".converted", "_20"]
    files = [tree.add_base(IMAGE, suffix=suffix, age=AGE, seed=seed) for seed, suffix in enumerate(names, 1)]
    free = tree.add_base(OTHER_IMAGE, age=AGE, seed=5)
    # A download and a conversion run under the lock of the base that they become.
    original, resized = files[0].name, files[3].name
    with nova(tree.locks_dir / f"nova-{original}") as one, nova(tree.locks_dir / f"nova-{resized}") as other:
        assert one.has_it
        assert other.has_it
        for answer in (keeper.plan(AT_ONCE), keeper.run(AT_ONCE)):
            assert {answer.verdict(file) for file in files} == {"Keep(LockedByNova)"}
            assert answer.verdict(free).startswith("Remove(Expired)")
            assert answer.status == 0
            assert answer.seconds < WAITS_AT_MOST
        assert all(file.exists() for file in files)

        one.release()
        answer = keeper.run(AT_ONCE)
        assert {answer.file(file)["action"] for file in files[:3]} == {"Quarantined"}
        assert answer.verdict(files[3]) == "Keep(LockedByNova)"


def test_a_lock_that_nova_takes_after_the_looks_is_waited_for_a_short_time_only(
    keeper: Basekeeper, tree: NovaTree, base: Path, lock_file: Path
) -> None:
    other = tree.add_base(OTHER_IMAGE, age=AGE, seed=2)
    window = Window(keeper, AT_ONCE)
    # The third time: two looks have asked for it.
    with window.held_open("openat:delay_enter:when=3", lambda: window.opens(lock_file, os.O_RDWR), path=lock_file):
        held = Nova(lock_file, patience=0.0)
        assert held.has_it
        let_go = time.monotonic()
    held.end()

    assert time.monotonic() - let_go < WAITS_AT_MOST
    assert window.verdict(base) == "Keep(LockedByNova) Skipped"
    assert base.exists()
    assert window.verdict(other) == "Remove(Expired) Quarantined"  # one lock does not stop the pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_nova_cannot_take_the_lock_while_a_base_is_being_removed(
    when: str, keeper: Basekeeper, base: Path, lock_file: Path
) -> None:
    window = Window(keeper, AT_ONCE)
    with window.before_the_rename() if when == "before" else window.after_the_rename(base):
        assert not nova_can_take(lock_file)

    assert window.verdict(base) == "Remove(Expired) Quarantined"
    assert lock_file.exists()  # nobody's lock file is ever ours to remove
    assert nova_can_take(lock_file)


@pytest.mark.parametrize(
    ("newcomer_lets_go", "verdict"),
    [(False, "Keep(LockedByNova) Skipped"), (True, "Remove(Expired) Quarantined")],
    ids=["and held for long", "and let go"],
)
def test_a_lock_file_that_was_replaced_while_it_was_waited_for_excludes_nobody(
    newcomer_lets_go: bool, verdict: str, keeper: Basekeeper, base: Path, lock_file: Path
) -> None:
    window = Window(keeper, AT_ONCE)
    with window.held_open("openat:delay_enter:when=3", lambda: window.opens(lock_file, os.O_RDWR), path=lock_file):
        first = Nova(lock_file, patience=0.0)
        assert first.has_it
        lock_file.rename(old := lock_file.with_name("old"))
        newcomer = Nova(lock_file, patience=0.0)  # makes the file anew
        assert newcomer.has_it
        lock_file.rename(new := lock_file.with_name("new"))
        old.rename(lock_file)
        window.let_go()
        wait_until(lambda: window.has_open(lock_file))
        new.replace(lock_file)  # as nova does after a removal, and the next of nova's threads
        first.release()
        if newcomer_lets_go:
            newcomer.release()
    for process in (first, newcomer):
        process.end()

    assert window.verdict(base) == verdict
    assert base.exists() == (verdict.startswith("Keep"))


@pytest.mark.parametrize("missing", ["the lock file", "the locks directory too"])
def test_a_lock_file_belongs_to_whom_its_directory_belongs(
    missing: str, keeper: Basekeeper, tree: NovaTree, base: Path
) -> None:
    # Only root can try what root must do; anybody else makes files that are its own, and nova's uid is the agent's.
    owner = NOVA if os.geteuid() == 0 else os.geteuid()
    if missing == "the lock file":
        os.chown(tree.locks_dir, owner, owner)
    else:
        os.chown(tree.instances_path, owner, owner)
        tree.locks_dir.rmdir()

    assert keeper.run(AT_ONCE).verdict(base) == "Remove(Expired) Quarantined"

    made = tree.locks_dir / f"nova-{base.name}"
    for path in (tree.locks_dir, made):
        assert (path.stat().st_uid, path.stat().st_gid) == (owner, owner), path
    assert made.stat().st_mode & 0o600 == 0o600
    assert os.listdir(tree.locks_dir) == [made.name]
