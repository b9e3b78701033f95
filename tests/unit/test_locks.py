"""Locks against real other processes: nova's own lock library, a stand-in for qemu, a second program."""

import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from basekeeper.cache import holders
from basekeeper.cache.evidence import CachedFile, FileType, Inventory
from basekeeper.cache.locks import HeldByAnother, LockError, nova_holds, nova_lock, program_lock, qemu_holds
from basekeeper.cache.names import parse
from basekeeper.cache.processes import open_files
from basekeeper.cache.settings import Host

NAME = b"0123456789abcdef0123456789abcdef01234567"
FASTENERS = """
    import fasteners, sys
    lock = fasteners.InterProcessLock(sys.argv[1])
    assert lock.acquire(blocking=False)
"""
QEMU = """
    import fcntl, os, struct, sys
    fd = os.open(sys.argv[1], os.O_RDONLY)
    for byte in (100, 201, 203):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_RDLCK, 0, byte, 1, 0))
"""
READER = """
    import os, sys
    fd = os.open(sys.argv[1], os.O_RDONLY)
"""
PROGRAM = """
    import pathlib, sys
    from basekeeper.cache.locks import program_lock
    held = program_lock(pathlib.Path(sys.argv[1]))
    held.__enter__()
"""


@contextmanager
def other_process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has done what `script` says until the end of the block."""
    code = textwrap.dedent(script) + "print('ready', flush=True)\nsys.stdin.read()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.communicate()


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return tmp_path / "instances" / "locks"


@pytest.fixture
def lock_file(locks: Path) -> Path:
    locks.mkdir(parents=True)
    return locks / f"nova-{NAME.decode()}"


class TestNova:
    def test_asking_sees_its_lock_and_changes_nothing(self, locks: Path, lock_file: Path) -> None:
        assert not nova_holds(locks, NAME)
        assert not lock_file.exists()
        with other_process(FASTENERS, lock_file):
            assert nova_holds(locks, NAME)
        assert not nova_holds(locks, NAME)

    def test_its_lock_excludes_ours(self, locks: Path, lock_file: Path) -> None:
        started = time.monotonic()
        with (
            other_process(FASTENERS, lock_file),
            pytest.raises(HeldByAnother, match="held by another"),
            nova_lock(locks, NAME, timeout=0.2),
        ):
            pass
        assert time.monotonic() - started >= 0.2

    def test_our_lock_excludes_its(self, locks: Path, lock_file: Path) -> None:
        with nova_lock(locks, NAME):
            # The promise that makes it an OFD lock: opening and closing the file elsewhere loses nothing.
            lock_file.read_bytes()
            with pytest.raises(AssertionError), other_process(FASTENERS, lock_file):
                pass
        with other_process(FASTENERS, lock_file):
            pass
        assert lock_file.exists()

    def test_it_is_waited_for(self, locks: Path, lock_file: Path) -> None:
        with other_process(FASTENERS, lock_file) as process:
            assert process.stdin is not None
            threading.Timer(0.2, process.stdin.close).start()
            with nova_lock(locks, NAME, timeout=10):
                pass
            process.stdin = None

    def test_a_file_that_was_replaced_while_waiting_is_locked_anew(self, locks: Path, lock_file: Path) -> None:
        def replace(process: subprocess.Popen[str]) -> None:
            lock_file.unlink()
            lock_file.touch()
            assert process.stdin is not None
            process.stdin.close()

        with other_process(FASTENERS, lock_file) as process:
            threading.Timer(0.2, replace, (process,)).start()
            with nova_lock(locks, NAME, timeout=10):
                assert nova_holds(locks, NAME)
            process.stdin = None

    @pytest.mark.usefixtures("lock_file")
    def test_names_with_a_slash(self, locks: Path) -> None:
        with nova_lock(locks, b"a/b"):
            assert (locks / "nova-a_b").exists()


class TestMaking:
    def test_the_directory_looks_like_the_instances_path(self, locks: Path) -> None:
        locks.parent.mkdir(mode=0o750)
        with nova_lock(locks, NAME):
            pass
        assert stat.S_IMODE(locks.stat().st_mode) == 0o750
        assert [path.name for path in locks.parent.iterdir()] == ["locks"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
    @pytest.mark.parametrize("nameless", [True, False])
    def test_what_root_makes_belongs_to_nova(
        self, locks: Path, nameless: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not nameless:
            monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
        locks.parent.mkdir()
        os.chown(locks.parent, 4242, 4343)
        with nova_lock(locks, NAME), program_lock(locks.parent / ".basekeeper" / "lock"):
            pass
        made = [locks, *locks.iterdir(), locks.parent / ".basekeeper", locks.parent / ".basekeeper" / "lock"]
        assert [path.name for path in locks.iterdir()] == [f"nova-{NAME.decode()}"]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(4242, 4343)}
        assert stat.S_IMODE(next(locks.iterdir()).stat().st_mode) == 0o644

    @pytest.mark.parametrize("obstacle", ["directory", "symlink", "no parent"])
    def test_what_cannot_be_locked_is_another_error(self, locks: Path, obstacle: str) -> None:
        path = locks / f"nova-{NAME.decode()}"
        if obstacle == "directory":
            path.mkdir(parents=True)
        elif obstacle == "symlink":
            locks.mkdir(parents=True)
            path.symlink_to("/etc/passwd")
        with pytest.raises(LockError, match="could not be taken"), nova_lock(locks, NAME):
            pass


def test_one_program_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".basekeeper" / "lock"
    with other_process(PROGRAM, path), pytest.raises(HeldByAnother, match="another basekeeper"), program_lock(path):
        pass
    with program_lock(path), pytest.raises(HeldByAnother), program_lock(path):
        pass


class TestHolders:
    """The locks on the files of an inventory."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Host:
        (tmp_path / "_base").mkdir()
        (tmp_path / "_base" / NAME.decode()).write_bytes(b"content")
        return Host("n", tmp_path, tmp_path / "_base", tmp_path / "snapshots", tmp_path, None)

    def inventory(self, host: Host) -> Inventory:
        files = []
        for path in host.base.iterdir():
            status = path.lstat()
            files.append(
                CachedFile(
                    parse(os.fsencode(path.name)), FileType.REGULAR, (status.st_dev, status.st_ino), 0, 0, 1, 0.0
                )
            )
        return Inventory(tuple(files))

    def test_qemu(self, host: Host) -> None:
        seen = self.inventory(host)
        path = host.base / NAME.decode()
        assert not holders.look(host, seen).qemu
        with other_process(QEMU, path):
            assert holders.look(host, seen).qemu == {seen.files[0].inode}
            descriptor = os.open(path, os.O_RDONLY)
            assert qemu_holds(descriptor)
            os.close(descriptor)

    def test_nova_also_for_partials(self, host: Host) -> None:
        (host.base / f"{NAME.decode()}.part").touch()
        (host.base / NAME.decode()).unlink()
        host.locks.mkdir()
        with other_process(FASTENERS, host.locks / f"nova-{NAME.decode()}"):
            assert holders.look(host, self.inventory(host)).nova == {NAME}

    def test_a_file_that_cannot_be_asked_holds_itself_alone(self, host: Host) -> None:
        seen = self.inventory(host)
        (host.base / NAME.decode()).unlink()
        (host.base / NAME.decode()).symlink_to("/etc/passwd")
        host.locks.mkdir()
        (host.locks / f"nova-{NAME.decode()}").symlink_to(f"nova-{NAME.decode()}")
        qemu, nova = holders.look(host, seen).unknown
        assert (qemu.path, qemu.only) == (f"_base/{NAME.decode()}", frozenset({NAME}))
        assert (nova.path, nova.only) == (f"locks/nova-{NAME.decode()}", frozenset({NAME}))

    def test_a_file_that_is_gone_is_no_unknown(self, host: Host) -> None:
        seen = self.inventory(host)
        (host.base / NAME.decode()).unlink()
        assert not holders.look(host, seen).unknown

    def test_open_files(self, host: Host) -> None:
        seen = self.inventory(host)
        inode = seen.files[0].inode
        assert holders.candidates(seen, iter([NAME]), set()) == set()
        assert holders.candidates(seen, iter([]), {inode}) == set()
        wanted = holders.candidates(seen, iter([]), set())
        assert open_files(wanted) == {}
        assert open_files(()) == {}
        with other_process(READER, host.base / NAME.decode()) as process, (host.base / NAME.decode()).open():
            assert open_files(wanted)[inode].startswith(f"process {process.pid} (")
