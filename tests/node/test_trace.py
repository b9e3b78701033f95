"""What only looks leaves no trace: shown by every call that it makes, and by the time stamps afterwards.

The list of what is allowed is closed. A call on the tree that is not on it fails the test, whatever it does.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.nova_tree import DAY, NovaTree

from .cli import ENFORCE, Basekeeper, Spec

AUDIT: Spec = {"mode": "Audit"}
WANTS: Spec = {"pressure": {"highPercent": 2, "lowPercent": 1}, "maxCacheBytes": 1}
"""Asks for more room than there is on a host's disk: all that may go for it would go."""
READING = frozenset(
    {
        *("openat", "open", "close", "read", "pread64", "readv", "preadv", "lseek", "getdents64", "readlink"),
        *("readlinkat", "stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat"),
        *("faccessat2", "fcntl", "fadvise64", "getcwd", "chdir", "execve", "ioctl", "getxattr", "lgetxattr", "mmap"),
        *("brk", "munmap", "poll", "ppoll", "name_to_handle_at"),
    }
)
WRITING_FLAGS = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE|O_APPEND")
# What a lock asks is no change (GETLK); what it sets is seen by nova and by qemu.
LOCKING = re.compile(r"F_(OFD_)?SETLKW?|F_SETLEASE|F_NOTIFY")
CALL = re.compile(r"^(?:\d+ +)?(?P<name>\w+)\((?P<rest>.*)")
STARTS = frozenset({"execve", "execveat", "fork", "vfork", "clone", "clone3"})
OLD = 1_500_000_000_123_456_789


@dataclass(frozen=True)
class Trace:
    """Every call of a command and its children, with the paths of descriptors."""

    lines: tuple[str, ...]

    def changes(self, root: Path) -> list[str]:
        """The calls that have to do with something under `root` and are no mere look."""
        return [line for line in self.lines if str(root) in line and not self._reads(line)]

    def changes_but_for_locks(self, root: Path) -> list[str]:
        """The same where a reader of a database may lock it against writers."""
        return [line for line in self.changes(root) if "F_SETLK, {l_type=F_RDLCK" not in line and "F_UNLCK" not in line]

    @staticmethod
    def _reads(line: str) -> bool:
        match = CALL.match(line)
        if match is None:
            return "<unfinished" not in line and (
                "resumed>" in line or line.split(" ", 1)[-1].startswith(("+++", "---"))
            )
        name, rest = match["name"], match["rest"]
        if name in {"openat", "open"}:
            return not WRITING_FLAGS.search(rest)
        if name in {"write", "writev", "sendto"}:
            return bool(re.match(r"[12]<", rest))  # it prints paths
        return name in READING and not (name == "fcntl" and LOCKING.search(rest))

    def started(self) -> list[str]:
        """The calls that start a process; threads are none, and neither is the command's own beginning."""
        found = [line for line in self.lines if (match := CALL.match(line)) and match["name"] in STARTS]
        return [line for line in found if "CLONE_THREAD" not in line and " = -1 " not in line][1:]


@pytest.fixture
def keeper(tree: NovaTree, tmp_path: Path) -> Basekeeper:
    if shutil.which("strace") is None:
        pytest.fail("strace is not installed; scripts/setup installs what the tests need", pytrace=False)
    return Basekeeper(tree, tmp_path / "state")


@pytest.fixture
def full(tree: NovaTree, keeper: Basekeeper) -> NovaTree:
    """Bases in use and not, a quarantine, chains, raw disks, links, leftovers and an unknown."""
    tree.add_base("removed-before", age=40 * DAY)
    keeper.run({**ENFORCE, "quarantine": {"retention": "1h"}})
    used = tree.add_base("used", age=9 * DAY)
    tree.add_base("unused", age=30 * DAY)
    tree.add_base("unused", suffix=".part", age=30 * DAY)
    tree.add_swap(8, age=30 * DAY)
    tree.add_overlay("machine", used)
    tree.add_overlay("machine", used, disk="disk.eph0")
    tree.add_overlay("resized_resize", "json:" + json.dumps({"driver": "raw", "file.filename": str(used)}))
    tree.add_flat("flat", used)
    tree.add_overlay("broken", "../_base/nobody-knows", disk="disk.local")
    (tree.instance("snapshots") / "tmp1").mkdir()
    tree.add_overlay("snapshots/tmp1", used, disk="a.delta", declare=False)
    (tree.instances_path / "linked").symlink_to("machine")
    tree.declare("declared-only", "disk", "qcow2")
    tree.register_host("another-host", age=30 * DAY)
    (tree.instance("odd") / "disk").symlink_to("nowhere")
    os.mkfifo(tree.instance("odd") / "disk.fifo")
    return tree


def traced(keeper: Basekeeper, tmp_path: Path, *words: str, spec: Spec | None, expect: int) -> Trace:
    log = tmp_path / "strace.log"
    answer = keeper.ask(*words, spec=spec, under=("strace", "-f", "-y", "-s", "512", "-o", str(log)))
    assert answer.status == expect, answer
    return Trace(tuple(log.read_text(errors="replace").splitlines()))


LOOKS = {
    "plan": (("plan",), ENFORCE, 3),
    "plan for want of room": (("plan",), {**ENFORCE, **WANTS}, 3),
    "plan without a policy": (("plan",), None, 3),
    "explain": (("explain", "swap_8"), ENFORCE, 3),
    "hold list": (("hold", "list"), ENFORCE, 3),
    "quarantine list": (("quarantine", "list"), None, 0),
}


@pytest.mark.parametrize(("words", "spec", "expect"), LOOKS.values(), ids=LOOKS)
def test_looking_changes_nothing_in_the_tree_and_nothing_in_the_state(
    full: NovaTree, keeper: Basekeeper, tmp_path: Path, words: tuple[str, ...], spec: Spec | None, expect: int
) -> None:
    before = (stamps(full.instances_path), stamps(keeper.state))

    trace = traced(keeper, tmp_path, *words, spec=spec, expect=expect)

    assert any(str(full.base_dir) in line for line in trace.lines), "the trace does not show the tree at all"
    assert trace.changes(full.instances_path) == []
    assert trace.changes_but_for_locks(keeper.state) == []
    assert (stamps(full.instances_path), stamps(keeper.state)) == before


@pytest.mark.parametrize("spec", [AUDIT, {**AUDIT, **WANTS}], ids=["with room", "for want of room"])
def test_an_audit_pass_with_nothing_to_put_back_changes_nothing_in_the_tree(
    full: NovaTree, keeper: Basekeeper, tmp_path: Path, spec: Spec
) -> None:
    before = stamps(full.instances_path)

    trace = traced(keeper, tmp_path, "run", spec=spec, expect=3)

    assert trace.changes(full.instances_path) == []
    assert trace.changes(keeper.state) != [], "a pass is remembered"
    assert stamps(full.instances_path) == before


def test_what_the_tests_look_for_is_there_when_a_pass_acts(full: NovaTree, keeper: Basekeeper, tmp_path: Path) -> None:
    shutil.rmtree(full.instances_path / "broken")
    trace = traced(keeper, tmp_path, "run", spec=ENFORCE, expect=3)
    called = {match["name"] for line in trace.changes(full.instances_path) if (match := CALL.match(line))}
    assert {"openat", "mkdir", "renameat2", "fcntl", "write", "fsync"} <= called


def test_plan_makes_no_state_directory(tree: NovaTree, keeper: Basekeeper) -> None:
    tree.add_base("unused", age=30 * DAY)
    assert keeper.plan().status == 0
    assert not keeper.state.exists()
    assert not (tree.base_dir / ".basekeeper").exists()


@pytest.mark.parametrize("words", [("plan",), ("explain", "swap_8"), ("hold", "list"), ("run",)], ids=" ".join)
def test_looking_changes_no_access_time(
    full: NovaTree, keeper: Basekeeper, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert os.geteuid() == 0, "only the owner may read without a trace: run this as root"
    check_that_access_times_are_kept(tmp_path)
    paths = list(everything(full.instances_path))  # listing is an access: only once
    for path in paths:
        # Older than the change: the kernel would note any access (relatime).
        os.utime(path, ns=(OLD, path.lstat().st_mtime_ns), follow_symlinks=False)

    keeper.ask(*words, spec=AUDIT)

    # A symbolic link's own stamp is not asked for: the kernel moves it for whoever follows the link.
    assert [path for path in paths if path.lstat().st_atime_ns != OLD and not path.is_symlink()] == []


def test_plan_over_many_instances_starts_no_process(tree: NovaTree, keeper: Basekeeper, tmp_path: Path) -> None:
    bases = [tree.add_base(f"image-{number}", size=4096, age=9 * DAY, seed=number + 1) for number in range(5)]
    for number in range(200):
        tree.add_overlay(f"instance-{number:08x}", bases[number % 5])

    trace = traced(keeper, tmp_path, "plan", spec=ENFORCE, expect=0)

    assert sum("instance-000000c7/disk" in line or '"instance-000000c7"' in line for line in trace.lines) > 0
    assert trace.started() == []


def test_what_starts_a_process_would_be_seen(keeper: Basekeeper, tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    shell = keeper.start("--version", under=("strace", "-f", "-o", str(log), "sh", "-c", "true; env true; true"))
    shell.communicate(timeout=30)
    assert Trace(tuple(log.read_text().splitlines())).started() != []


def everything(root: Path) -> Iterator[Path]:
    yield root
    yield from root.rglob("*")


def stamps(root: Path) -> dict[str, tuple[int, ...]]:
    """All that a stat tells of everything, but for the access times."""
    found: dict[str, tuple[int, ...]] = {}
    for path in everything(root) if root.exists() else ():
        s = path.lstat()
        found[str(path)] = (
            s.st_ino,
            s.st_mode,
            s.st_nlink,
            s.st_uid,
            s.st_gid,
            s.st_size,
            s.st_mtime_ns,
            s.st_ctime_ns,
        )
    return found


def check_that_access_times_are_kept(place: Path) -> None:
    control = place / "control"
    control.write_text("read me")
    os.utime(control, ns=(OLD, control.stat().st_mtime_ns))
    control.read_text()
    if control.stat().st_atime_ns == OLD:
        pytest.fail(f"{place} is mounted noatime, so this shows nothing; give --basetemp elsewhere", pytrace=False)
