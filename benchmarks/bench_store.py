"""What it costs to remove unused bases safely, and what the ledger becomes over 10,000 passes.

Removal: unused bases are quarantined by one real pass and purged by the next, on a real disk, beside the least that is
safe (side-car, rename and unlink, each made durable, and nothing else) and beside nova's way (unlink under its lock,
nothing made durable, nothing to get back). Every turn has files of its own, which nothing has touched before. System
calls are those of a program that does one of them under strace: what one more file adds, by the fit over the sizes.

The ledger: see `ledger_growth`.
"""

import argparse
import fcntl
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from basekeeper.cache import engine
from basekeeper.cache.quarantine import OWN_DIRECTORY
from basekeeper.cache.settings import Host, Limits, Mode, Policy
from benchmarks import ledger_growth, measuring
from benchmarks.measuring import ROOT, Document, Fit, Spread, Table, Target, fit
from benchmarks.trees import build
from lab.nova_tree import DAY, NovaTree, image_file_name

POLICY = Policy(mode=Mode.ENFORCE, limits=Limits(max_files=1_000_000, max_percent=100), retention=0.001)
"""What one pass removes the next one purges."""
SIZE = 64 << 10
INSTANCES, BASES = 20, 2
USED = frozenset(image_file_name(f"image-{number}") for number in range(BASES))
OURS, BARE = f"{OWN_DIRECTORY}/quarantine", ".bare"
LINEAR = 1.15
"""The most that the exponent of a growth may be that still counts as linear, on a machine that is never quite still."""
STRACE_TAKES = 600.0


def main() -> None:
    """Measure, print, judge."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--where", type=Path, help="a directory on the disk to measure")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--passes", type=int, help="of the ledger's growth")
    parser.add_argument("--one-act", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_act:
        ACTS[given.one_act[0]](host_of(Path(given.one_act[1])))
        return
    given.turns = given.turns or (1 if given.quick else 3)
    given.passes = given.passes or (60 if given.quick else 10_000)
    document = Document("store")
    with tempfile.TemporaryDirectory(prefix="basekeeper-bench-", dir=given.where) as place:
        removal(document, Path(place), (5, 10, 20) if given.quick else (100, 300, 1000), given.turns)
        ledger_growth.measure(document, Path(place), given.passes)
    measuring.finish(document, given)


# --- the acts: each takes a host whose `_base` has unused bases, or a quarantine that is due -----------------------


def a_pass(host: Host) -> None:
    """What an agent does."""
    engine.run(host, POLICY, lambda _what, _at, _of: None)


def bare_quarantine(host: Host) -> None:
    """The least that survives a crash at any moment: a durable side-car, a rename, both directories durable."""
    place = host.base / BARE
    place.mkdir()
    for name in unused(host):
        with (place / f"{name}.json").open("xb") as stream:
            stream.write(b'{"name": "' + os.fsencode(name) + b'"}')
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(host.base / name, place / name)
        sync(place)
        sync(host.base)


def bare_purge(host: Host) -> None:
    """The least that is safe: the file, durably, then its side-car."""
    place = host.base / BARE
    for name in sorted(os.listdir(place)):
        if not name.endswith(".json"):
            os.unlink(place / name)
            sync(place)
            os.unlink(place / f"{name}.json")


def as_nova(host: Host) -> None:
    """What nova's manager does for a base that is old enough: unlink it under its lock, for good."""
    for name in unused(host):
        with (host.locks / f"nova-{name}").open("ab") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            os.remove(host.base / name)


def unused(host: Host) -> list[str]:
    """The bases that nothing uses; whoever asks is told for nothing."""
    return sorted(name for name in os.listdir(host.base) if name not in USED and not name.startswith("."))


def sync(directory: Path) -> None:
    """Make a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


ACTS: dict[str, Callable[[Host], None]] = {
    "pass": a_pass,
    "bare quarantine": bare_quarantine,
    "bare purge": bare_purge,
    "nova": as_nova,
}


@dataclass(frozen=True, slots=True)
class Way:
    """One row of the table."""

    name: str
    act: str
    prepare: str | None
    """The act that is to have been done before."""
    ends_in: str | None
    """The directory in `_base` in which the files lie afterwards; None: in none, they are gone."""
    beside: str | None
    """The row that it is compared with."""


QUARANTINE, PURGE = "quarantine, a pass", "purge, a pass"
BARE_QUARANTINE, BARE_PURGE, NOVA = "quarantine, bare loop", "purge, bare loop", "removal, nova's way"
WAYS = (
    Way(QUARANTINE, "pass", None, OURS, BARE_QUARANTINE),
    Way(BARE_QUARANTINE, "bare quarantine", None, BARE, None),
    Way(PURGE, "pass", "pass", None, BARE_PURGE),
    Way(BARE_PURGE, "bare purge", "bare quarantine", None, None),
    Way(NOVA, "nova", None, None, None),
)


@dataclass
class Costs:
    """Of one way at one size."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    calls: int | None = None
    """System calls of a program that does it once; None: strace could not be had."""
    syncs: int | None = None


# --- measuring -----------------------------------------------------------------------------------------------------


def removal(document: Document, place: Path, sizes: Sequence[int], turns: int) -> None:
    """Every way at every size, in turns."""
    kind = file_system(place)
    if kind in ("tmpfs", "ramfs"):
        raise SystemExit(f"{place} is on {kind}, where fsync costs nothing; give a directory on a disk with --where")
    costs = {(way.name, size): Costs() for way in WAYS for size in sizes}
    for size in sizes:
        for _ in range(turns):
            for way in WAYS:
                with ready(place, way, size) as host:
                    cpu, wall = time.process_time(), time.perf_counter()
                    ACTS[way.act](host)
                    costs[way.name, size].wall.append(time.perf_counter() - wall)
                    costs[way.name, size].cpu.append(time.process_time() - cpu)
                    ended(host, way, size)
    traced = can_trace()
    for (name, size), cost in costs.items() if traced else ():
        way = next(way for way in WAYS if way.name == name)
        with ready(place, way, size) as host:
            cost.calls, cost.syncs = calls_of(way.act, host)
            ended(host, way, size)
    tell(document, costs, sizes, kind)


@contextmanager
def ready(place: Path, way: Way, count: int) -> Iterator[Host]:
    """A small cloud with so many unused bases, prepared for a way, all of it on the disk already."""
    directory = Path(tempfile.mkdtemp(dir=place))
    tree = NovaTree(directory / "instances")
    build(tree, INSTANCES, BASES)
    for number in range(count):
        tree.add_base(f"unused-{number}", size=SIZE, age=9 * DAY, seed=number + 1)
    host = host_of(tree.instances_path)
    try:
        if way.prepare is not None:
            ACTS[way.prepare](host)
        os.sync()
        yield host
    finally:
        shutil.rmtree(directory)


def host_of(instances: Path) -> Host:
    """A host without a hypervisor, on which nothing is starting."""
    return Host(
        node="bench",
        instances=instances,
        base=instances / "_base",
        snapshots=instances / "snapshots",
        state=instances.parent / "state",
        libvirt=None,
        spawn_grace=0.0,
    )


def ended(host: Host, way: Way, count: int) -> None:
    """What was to be measured must have happened: to all unused files, and to no other."""
    there = {place: len(held(host.base / place)) for place in (OURS, BARE)}
    expected = {place: count if place == way.ends_in else 0 for place in there}
    assert there == expected, (way.name, there)
    assert unused(host) == [], way.name
    assert set(os.listdir(host.base)) >= USED, way.name


def held(place: Path) -> list[Path]:
    """The bases that lie somewhere in a quarantine."""
    return [path for path in place.rglob("*") if path.is_file() and not path.name.endswith(".json")]


def can_trace() -> bool:
    """Whether strace is there and may be used."""
    try:
        return subprocess.run(["strace", "-c", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def calls_of(act: str, host: Host) -> tuple[int, int]:
    """System calls and, of these, fsync and fdatasync of a program that does one act."""
    told = host.instances.parent / "strace"
    program = [sys.executable, "-m", "benchmarks.bench_store", "--one-act", act, str(host.instances)]
    command = ["strace", "-f", "-c", "-o", str(told), *program]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "operator")))
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, timeout=STRACE_TAKES)
    rows = [line.split() for line in told.read_text(encoding="utf-8").splitlines()]
    counted = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and re.fullmatch(r"\d+", row[3])}
    total = counted.pop("total")
    return total, counted.get("fsync", 0) + counted.get("fdatasync", 0)


def tell(document: Document, costs: dict[tuple[str, int], Costs], sizes: Sequence[int], kind: str) -> None:
    """The table, the fits and the targets."""
    rows = []
    for way in WAYS:
        for size in sizes:
            cost = costs[way.name, size]
            ratio = ""
            if way.beside is not None:
                beside = costs[way.beside, size]
                ratio = f"{statistics.median(cost.wall) / statistics.median(beside.wall):.2f}x"
            each = Spread.of(cost.wall).shown("ms", 1000 / size)
            rows.append(
                (way.name, str(size), Spread.of(cost.wall).shown(), each, ratio, Spread.of(cost.cpu).shown("ms", 1000))
            )
    columns = ("", "files", "wall", "a file", "beside its bare loop", "CPU")
    title = f"unused bases of {SIZE >> 10} KiB on {kind}; {INSTANCES} instances beside them"
    document.tables.append(Table(title, columns, rows))
    walls = {way.name: growth(costs, way.name, sizes, lambda cost: statistics.median(cost.wall)) for way in WAYS}
    cpus = {way.name: growth(costs, way.name, sizes, lambda cost: statistics.median(cost.cpu)) for way in WAYS}
    fits = []
    for way in WAYS:
        wall, cpu = walls[way.name], cpus[way.name]
        calls, syncs = "", ""
        if all(costs[way.name, size].calls is not None for size in sizes):
            calls = f"{growth(costs, way.name, sizes, lambda cost: float(cost.calls or 0)).each:.1f}"
            syncs = f"{growth(costs, way.name, sizes, lambda cost: float(cost.syncs or 0)).each:.1f}"
        shape = f"size^{wall.exponent:.2f}, r² {wall.r_squared:.3f}"
        fits.append((way.name, f"{wall.each * 1000:.2f} ms", shape, f"{cpu.each * 1000:.2f} ms", calls, syncs))
    note = () if fits[0][4] else ("strace cannot be had here, so system calls were not counted",)
    columns = ("", "wall", "grows as", "CPU", "system calls", "of these fsync")
    document.tables.append(Table("what one more file costs, by a fit over the sizes", columns, fits, note))
    document.targets += [
        Target(
            f"{name}: linear",
            f"exponent at most {LINEAR}",
            f"{walls[name].exponent:.2f}",
            walls[name].exponent <= LINEAR,
        )
        for name in (QUARANTINE, PURGE)
    ]
    document.figures["removal"] = {
        name: {str(size): vars(costs[name, size]) for size in sizes} for name in (way.name for way in WAYS)
    }


def growth(costs: dict[tuple[str, int], Costs], name: str, sizes: Sequence[int], of: Callable[[Costs], float]) -> Fit:
    """How a cost grows with the number of files."""
    return fit([float(size) for size in sizes], [of(costs[name, size]) for size in sizes])


def file_system(place: Path) -> str:
    """The type of the file system on which a directory lies."""
    found = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=True)
    return found.stdout.strip()


if __name__ == "__main__":
    main()
