#!/usr/bin/env python3
"""A pass beside nova's own, and beside a bare loop over the same headers: on one and the same tree, in turns.

pass   what the agent makes: `engine.run` in Enforce with its ledger, for a program that goes on living
plan   `engine.judge_now`: the same observation and judgement, and nothing is remembered
nova   nova's real image cache manager, its `update` alone: the database's rows are given, so no query is in its time,
       and it stamps files itself where on a compute node it asks a privileged daemon
loop   lists each instance directory, opens its disk and reads the header: what any program must do

Each has a process of its own that lives on, as an agent and nova-compute do. All bases are in use, so that neither nova
nor a pass removes anything; one base is named by no row, so that nova knows of its use only by reading disks. That both
found the same bases in use is asserted in every turn.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import measuring
from benchmarks.measuring import Document, Spread, Table, Target, fit
from benchmarks.pass_worker import GRACE
from benchmarks.trees import build
from lab.nova_image_cache import NovaImageCache, Row
from lab.nova_tree import NovaTree, image_file_name

LOOP, PLAN, PASS, NOVA = "loop", "plan", "pass", "nova"
SHOWN = {LOOP: "bare loop", PLAN: "plan", PASS: "pass", NOVA: "nova"}
TIMES, MOST_OF_LOOP, MOST_SECONDS = 200.0, 3.0, 1.0
BASES = 20
NOVA_TURNS = {50: 3, 500: 3, 5000: 1}
"""Warm turns of nova by the number of instances; at other sizes it is not asked."""
NOVA_TRACED = 500
"""Instances up to which nova's system calls are counted: strace makes it several times slower."""
STARTED = frozenset({"fork", "vfork", "clone", "clone3", "execve", "execveat"})
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

Measured = dict[str, Any]
"""What one turn of one of them took, as its process tells it."""


class Worker:
    """A process that makes loops, plans and passes over one tree."""

    def __init__(self, place: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.pass_worker", str(place)]

    def __enter__(self) -> Self:
        path = os.pathsep.join((str(measuring.ROOT), str(measuring.ROOT / "operator")))
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=measuring.ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, words: str) -> Measured:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process that makes a {words} has ended"
        answer: Measured = json.loads(line)
        return answer


class Size:
    """One tree, and all that is measured on it."""

    def __init__(self, place: Path, instances: int, bases: int) -> None:
        self.instances = instances
        tree = NovaTree(place / "instances")
        directories = build(tree, instances, bases)
        self.names = sorted(image_file_name(f"image-{number}") for number in range(bases))
        self._rows = rows_of(directories, bases)
        self._tree = tree
        self._place = place
        self.turns: dict[str, list[Measured]] = {}
        self.counted: dict[str, Measured] = {}
        self.calls: dict[str, dict[str, int]] = {}

    def measure(self, turns: int, nova_turns: int, cold_turns: int, *, trace: bool) -> None:
        """Take the turns. Nova begins with the tree in the page cache, and has imported all that it needs."""
        time.sleep(2 * GRACE)
        with contextlib.ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(self._place)) for name in (LOOP, PLAN, PASS)}
            works: dict[str, Callable[[], Measured]] = {
                name: (lambda name=name: workers[name].do(name))  # type: ignore[misc]
                for name in workers
            }
            pids = {name: worker.pid for name, worker in workers.items()}
            if nova_turns:
                nova = stack.enter_context(NovaImageCache(self._tree))
                works[NOVA] = lambda: self._nova(nova)
                pids[NOVA] = nova.pid
            for name in workers:
                works[name]()
            for turn in range(turns):
                self._turn("warm", works, nova=turn < nova_turns, before=lambda: None)
            for turn in range(cold_turns):
                self._turn("cold", works, nova=turn == 0, before=drop_caches)
            self._count(workers, works, pids, trace=trace)

    def _turn(
        self, state: str, works: dict[str, Callable[[], Measured]], *, nova: bool, before: Callable[[], None]
    ) -> None:
        for name, work in works.items():
            if name == NOVA and not nova:
                continue
            before()
            made = work()
            assert name == LOOP or made["active"] == self.names, f"{name} found other bases in use: {made['active']}"
            self.turns.setdefault(f"{state} {name}", []).append(made)

    def _nova(self, nova: NovaImageCache) -> Measured:
        made = nova.update(self._rows)
        assert made.failure is None, made.failure
        assert not made.removed
        assert len(made.touched) == len(self.names) - 1, "nova touched what no row names, or not what rows name"
        assert made.processes == self.instances, f"nova looked at {made.processes} of {self.instances} disks"
        return {
            "active": sorted(made.active),
            "wall": made.wall,
            "cpu": made.cpu,
            "peak_mib": made.peak_mib,
            "processes": made.processes,
        }

    def _count(
        self,
        workers: dict[str, Worker],
        works: dict[str, Callable[[], Measured]],
        pids: dict[str, int],
        *,
        trace: bool,
    ) -> None:
        """What is counted and not timed: the processes that each starts, and its system calls."""
        for name, work in works.items():
            # Peaks are those of the timed turns.
            peak = max(one["peak_mib"] for state, all_ in self.turns.items() if state.endswith(name) for one in all_)
            # nova's are asserted in each of its turns.
            started = self.instances if name == NOVA else workers[name].do(f"{name} counted")["processes"]
            self.counted[name] = {"processes": started, "peak_mib": peak}
            if trace and (name != NOVA or self.instances <= NOVA_TRACED):
                self.calls[name] = traced(pids[name], work)

    def seconds(self, state: str, name: str, what: str = "wall") -> list[float]:
        """The turns of one of them; empty where it was not asked."""
        return [float(one[what]) for one in self.turns.get(f"{state} {name}", [])]

    def median(self, state: str, name: str, what: str = "wall") -> float:
        """The middle one of these."""
        return statistics.median(self.seconds(state, name, what))


def rows_of(directories: Sequence[Path], bases: int) -> list[Row]:
    """What nova's database has: every instance, with the image of its base but for the last base's."""
    rows: list[Row] = []
    for number in range(bases):
        for _ in range(len(directories) // bases + (number < len(directories) % bases)):
            image = f"image-{number}" if number < bases - 1 else ""
            rows.append(Row(directories[len(rows)].name, image))
    return rows


def drop_caches() -> None:
    """Drop the page cache, dentries and inodes. Raises OSError where that is not allowed."""
    os.sync()
    DROP_CACHES.write_text("3\n", encoding="ascii")


def can_drop() -> bool:
    """Whether turns can be cold here."""
    try:
        drop_caches()
    except OSError:
        return False
    return True


def can_trace() -> bool:
    """Whether system calls can be counted here."""
    with contextlib.suppress(OSError, AssertionError, subprocess.SubprocessError), contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worker = stack.enter_context(Worker(place))
        stack.enter_context(tracing(worker.pid, place / "calls"))
        return True
    return False


@contextlib.contextmanager
def tracing(pid: int, target: Path) -> Iterator[None]:
    """Let strace count the calls of a process and of all that it starts meanwhile."""
    command = ["strace", "-f", "-c", "--summary-columns=calls,name", "-o", str(target), "-p", str(pid)]
    strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while tracer_of(pid) != strace.pid:
            assert strace.poll() is None, "strace has ended"
            assert time.monotonic() < deadline, "strace does not attach"
            time.sleep(0.01)
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(timeout=30)


def tracer_of(pid: int) -> int:
    """The process that traces another, or 0."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))


def traced(pid: int, work: Callable[[], object]) -> dict[str, int]:
    """How often a process and all that it starts make each system call, while it works."""
    with tempfile.TemporaryDirectory(prefix="basekeeper-bench-") as place:
        target = Path(place) / "calls"
        with tracing(pid, target):
            work()
        words = [line.split() for line in target.read_text(encoding="ascii").splitlines()]
    calls = {name: int(count) for count, name in (two for two in words if len(two) == 2 and two[0].isdigit())}
    calls.pop("total", None)
    assert calls, "strace counted nothing"
    return calls


# --- what is shown --------------------------------------------------------------------------------------------------


def times(size: Size, state: str) -> Table:
    """The times of one tree, each beside the loop's and nova's."""
    names = [name for name in SHOWN if size.seconds(state, name)]
    rows = []
    for name in names:
        wall, cpu = (size.seconds(state, name, what) for what in ("wall", "cpu"))
        against = [f"{statistics.median(wall) / size.median(state, LOOP):.2f}x"]
        for what in ("wall", "cpu"):
            known = NOVA in names
            against.append(f"{size.median(state, NOVA, what) / size.median(state, name, what):.0f}x" if known else "")
        rows.append((SHOWN[name], shown_of(wall), shown_of(cpu), *against))
    columns = ("", "wall", "processor", "wall / loop's", "nova's wall / its", "nova's processor / its")
    return Table(f"{size.instances} instances, {len(size.names)} bases, {state}", columns, rows)


def shown_of(seconds: Sequence[float]) -> str:
    """Seconds, in milliseconds where they are few."""
    spread = Spread.of(seconds)
    return spread.shown("ms", 1e3) if spread.median < 1 else spread.shown()


def counts(sizes: Sequence[Size]) -> Table:
    """Calls, processes and memory."""
    rows: list[tuple[str, ...]] = []
    for size in sizes:
        for name, made in size.counted.items():
            calls = size.calls.get(name)
            total = sum(calls.values()) if calls else 0
            shown = (f"{total}", f"{total / size.instances:.1f}") if calls else ("not counted", "")
            processes = str(made["processes"])
            rows.append((f"{SHOWN[name]}, {size.instances}", *shown, processes, f"{made['peak_mib']:.0f} MiB"))
    columns = ("", "system calls", "of an instance", "processes", "peak memory")
    note = (
        "Counted in a turn of their own, which is not timed. nova's processes are those that it starts itself; each "
        "starts two more programs, whose calls are in its figure and whose memory is not."
    )
    return Table("calls, processes, memory", columns, rows, (note,))


def growth(sizes: Sequence[Size], document: Document) -> Table:
    """A line through the sizes for each of them."""
    rows = []
    fits: dict[str, Any] = {}
    for name, shown in SHOWN.items():
        known = [size for size in sizes if size.seconds("warm", name)]
        if len(known) < 2:
            continue
        line = fit([size.instances for size in known], [size.median("warm", name) for size in known])
        fits[name] = {"each": line.each, "fixed": line.fixed, "exponent": line.exponent, "r_squared": line.r_squared}
        rows.append((
            shown,
            ", ".join(str(size.instances) for size in known),
            f"{line.each * 1e6:.1f} us",
            f"{line.fixed * 1e3:.2f} ms",
            f"{line.exponent:.2f}",
            f"{line.r_squared:.4f}",
        ))  # fmt: skip
    document.figures["fit"] = fits
    columns = ("", "sizes", "an instance", "none", "grows with power", "r squared")
    note = "A straight line through the warm medians; a power below 1 is what a fixed part makes of it."
    return Table("growth with the number of instances", columns, rows, (note,))


def targets(sizes: dict[int, Size], document: Document) -> Iterator[Target]:
    """Those of the issue, as far as their sizes were measured."""
    if (middle := sizes.get(500)) is not None:
        for what, word in (("wall", "wall time"), ("cpu", "processor")):
            less = middle.median("warm", NOVA, what) / middle.median("warm", PASS, what)
            yield Target(
                f"pass, 500 instances, warm: {word}",
                f">= {TIMES:g}x less than nova's",
                f"{less:.0f}x less",
                less >= TIMES,
            )
    if (large := sizes.get(5000)) is not None:
        took, ratio = large.median("warm", PASS), large.median("warm", PASS) / large.median("warm", LOOP)
        yield Target(
            "pass, 5,000 instances, warm", f"<= {MOST_OF_LOOP:g}x the loop", f"{ratio:.2f}x", ratio <= MOST_OF_LOOP
        )
        yield Target("pass, 5,000 instances, warm", f"<= {MOST_SECONDS:g} s", f"{took:.3f} s", took <= MOST_SECONDS)
        started = large.counted[PASS]["processes"] + sum(large.calls.get(PASS, {}).get(call, 0) for call in STARTED)
        yield Target("pass, 5,000 instances", "no process started", f"{started} started", started == 0)
    if (line := document.figures["fit"].get(PASS)) is not None:
        yield Target(
            "pass: growth with instances",
            "linear",
            f"power {line['exponent']:.2f}, r squared {line['r_squared']:.4f}",
            line["exponent"] <= 1.1 and line["r_squared"] >= 0.98,
        )


def main() -> None:
    """Build, measure, tell."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", help="instances of each tree")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--cold-turns", type=int)
    given = parser.parse_args()
    given.sizes = given.sizes or ([10, 20] if given.quick else [50, 500, 1000, 2000, 5000])
    given.turns = given.turns or (1 if given.quick else 9)
    given.cold_turns = given.cold_turns if given.cold_turns is not None else (1 if given.quick else 3)
    document = Document("pass")
    measure(document, given)
    measuring.finish(document, given)


def measure(document: Document, given: argparse.Namespace) -> None:
    """Take one tree after the other; those that nova is asked about are shown each with tables of their own."""
    cold, trace = can_drop(), can_trace()
    sizes: dict[int, Size] = {}
    for instances in given.sizes:
        nova_turns = 1 if given.quick else NOVA_TURNS.get(instances, 0)
        with tempfile.TemporaryDirectory(prefix="basekeeper-bench-") as place:
            size = sizes[instances] = Size(Path(place), instances, min(BASES, instances))
            size.measure(given.turns, nova_turns, given.cold_turns if cold else 0, trace=trace)
        document.figures[str(instances)] = {"turns": size.turns, "counted": size.counted, "calls": size.calls}
    asked = [size for size in sizes.values() if size.seconds("warm", NOVA)]
    for size in asked:
        document.tables += [times(size, state) for state in ("warm", "cold") if size.seconds(state, LOOP)]
    document.tables += [counts(asked), growth(list(sizes.values()), document)]
    document.targets += targets(sizes, document)
    notes = notes_on(cold=cold, trace=trace)
    document.tables[0] = Table(
        document.tables[0].title, document.tables[0].columns, document.tables[0].rows, tuple(notes)
    )


def notes_on(*, cold: bool, trace: bool) -> Iterator[str]:
    """What a reader must know of all the tables."""
    yield (
        "pass: engine.run in Enforce with a ledger; plan: engine.judge_now; nova: the manager's update alone, without "
        "the queries to its database and the calls of its privileged daemon. No libvirt is asked: see guests."
    )
    if not cold:
        yield "No turn is cold: only root may drop the page cache."
    if not trace:
        yield "No system calls were counted: strace is missing or may not attach."


if __name__ == "__main__":
    main()
