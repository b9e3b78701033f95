"""Passes that stand still within one system call, under strace, until a test has done something there.

What takes a pass milliseconds takes as long as a test needs: between its last look and its rename, between the list
of a directory and the opening of an entry.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.cli import Answer, Basekeeper, Spec

PATIENCE = 30.0
"""Seconds that a window opens in, and stays open at most."""
SYSCALLS = {"openat": 257, "getdents64": 217}
"""Their numbers on x86-64."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited for {PATIENCE} s in vain"
        time.sleep(0.005)


class Window:
    """One pass of `keeper` under `spec`, to be stopped once; afterwards `answer` is what it said."""

    def __init__(self, keeper: Basekeeper, spec: Spec) -> None:
        if shutil.which("strace") is None:
            pytest.fail("strace is not installed: run scripts/setup test", pytrace=False)
        self._keeper = keeper
        self._spec = spec
        self._answer: Answer | None = None
        self.process = 0

    @property
    def answer(self) -> Answer:
        """What the pass said in the end."""
        assert self._answer is not None, "the window is still open"
        return self._answer

    def verdict(self, name: Path) -> str:
        """What the pass said about a file in the end."""
        return self.answer.verdict(name)

    @contextmanager
    def held_open(self, injection: str, until: Callable[[], bool], *, path: Path | None = None) -> Iterator[None]:
        """Run the pass, enter the block when `until` is so, and let the pass go on after it.

        `injection` is as in strace's `inject=`: a system call, `:delay_enter` or `:delay_exit`, and perhaps which of
        the calls (`:when=2`); with a `path`, of those about it.
        """
        call, _, rest = injection.partition(":")
        where, _, which = rest.partition(":")
        delay = f"inject={call}:{where}={int(PATIENCE * 1e6)}:{which or 'when=1'}"
        # -D: the tracer is a grandchild, so that the pass can go on without it, and its status is its own.
        strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *(("-P", str(path)) if path else ())]
        process = self._keeper.start("run", spec=self._spec, under=[*strace, "-e", f"trace={call}", "-e", delay])
        self.process = process.pid
        try:
            wait_until(lambda: until() or process.poll() is not None)
            assert process.poll() is None, f"the pass ended before the window: {process.communicate()}"
            yield
        finally:
            self.let_go()
            self._answer = self._keeper.end(process)

    def let_go(self) -> None:
        """Let the pass go on, perhaps before the block is over."""
        if tracer := _tracer_of(self.process):
            os.kill(tracer, signal.SIGKILL)  # the kernel sets free what it held

    @contextmanager
    def before_the_rename(self, base: Path | None = None) -> Iterator[None]:
        """The last look at a base (the only one, if not said) is over, and it has its name still."""
        entries = f".basekeeper/quarantine/{base.name if base else ''}*/entry.json"
        with self.held_open("renameat2:delay_enter", lambda: any(self._keeper.tree.base_dir.glob(entries))):
            yield

    @contextmanager
    def after_the_rename(self, base: Path) -> Iterator[None]:
        """The base has lost its name, the look after that has not begun."""
        with self.held_open("renameat2:delay_exit", lambda: not base.exists()):
            yield

    def arguments_of(self, call: str) -> tuple[int, ...] | None:
        """What the pass gave to the system call that it stands in, if it is this one."""
        try:
            words = Path(f"/proc/{self.process}/syscall").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        if words[0] != str(SYSCALLS[call]):
            return None
        return tuple(int(word, 16) for word in words[1:7])

    def opens(self, path: Path, mode: int) -> bool:
        """Whether the pass stands at opening `path` for `mode` (`os.O_RDONLY` and the like)."""
        arguments = self.arguments_of("openat")
        if arguments is None or arguments[2] & os.O_ACCMODE != mode:
            return False
        wanted = bytes(path) + b"\0"
        try:
            memory = os.open(f"/proc/{self.process}/mem", os.O_RDONLY)
        except OSError:
            return False
        try:
            return os.pread(memory, len(wanted), arguments[1]) == wanted
        except OSError:
            return False
        finally:
            os.close(memory)

    def lists(self, path: Path) -> bool:
        """Whether the pass stands at listing a directory."""
        arguments = self.arguments_of("getdents64")
        return arguments is not None and self._descriptor_is(arguments[0], path)

    def has_open(self, path: Path) -> bool:
        """Whether the pass has a file open at this moment."""
        return any(self._descriptor_is(int(fd.name), path) for fd in Path(f"/proc/{self.process}/fd").iterdir())

    def _descriptor_is(self, descriptor: int, path: Path) -> bool:
        try:
            return Path(f"/proc/{self.process}/fd/{descriptor}").readlink() == path
        except OSError:
            return False


def _tracer_of(process: int) -> int | None:
    """The process that traces another, if any."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("TracerPid:")]
    return int(line.split()[1]) or None
