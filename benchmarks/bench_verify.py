"""Verification beside the digests' own speed, on the same cold file; a sparse image; pacing; page cache; memory.

Each tool reads a file that was pushed out of the page cache before, in turns with the others, so that noise hits all:
verification, the same digest in a bare loop, `sha256sum` and, where they are installed, `xxhsum` and `b3sum`. Of a
sparse image a full read, holes included, is what verification must not cost. Memory is that of a process of its own.
"""

import argparse
import ctypes
import hashlib
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import xxhash

from basekeeper.cache import priority
from basekeeper.cache.names import original_of
from basekeeper.cache.settings import Algorithm, Host, Integrity
from basekeeper.cache.verification import Outcome, Verifier
from benchmarks import measuring
from benchmarks.measuring import ROOT, Document, Spread, Table, Target, timed

MIB, GIB = 1 << 20, 1 << 30
NAME = original_of("an image")
BLOCK = 4 * MIB
SHARE = 0.9
"""Of the digest's own speed."""
PACED_WITHIN = 0.05
FLAT_MIB = 8.0
"""More memory than for a file of a quarter of the size that counts as none."""


def main() -> None:
    """Measure, print, judge."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--size", type=int, help="MiB of the dense file")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--where", type=Path, help="a directory on the disk to measure")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        verify(host_of(given.once))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    given.size = given.size or (32 if given.quick else 1024)
    given.runs = given.runs or (1 if given.quick else 7)
    unit = (MIB if given.quick else GIB) // 4
    document = Document("verify")
    with tempfile.TemporaryDirectory(prefix="basekeeper-bench-", dir=given.where) as place:
        host = host_of(Path(place))
        speed(document, host, given.size * MIB, given.runs)
        sparse(document, host, 80 * unit, 80 * unit * 700 // (20 * 1024), given.runs)
        pacing(document, host, (8 if given.quick else 256) * MIB)
        page_cache(document, host, (30 if given.quick else 300) * MIB)
        memory(document, host, (4 * unit, 16 * unit))
    measuring.finish(document, given)


def host_of(place: Path) -> Host:
    """A cache in which nothing is starting."""
    base = place / "instances" / "_base"
    for directory in (base, place / "instances" / "locks"):
        directory.mkdir(parents=True, exist_ok=True)
    return Host(
        node="bench",
        instances=place / "instances",
        base=base,
        snapshots=place / "snapshots",
        state=place / "state",
        libvirt=None,
        spawn_grace=0.0,
    )


@contextmanager
def base_of(host: Host, size: int, content: int) -> Iterator[Path]:
    """A base of `size` bytes of which `content` are, in 64 pieces; the rest are holes."""
    path = host.base / os.fsdecode(NAME)
    pieces = 64
    with path.open("wb") as stream:
        for piece in range(pieces):
            stream.seek(piece * (size // pieces))
            left = content // pieces
            while left > 0:
                left -= stream.write(os.urandom(min(left, BLOCK)))
        stream.truncate(size)
        os.fsync(stream.fileno())
    try:
        yield path
    finally:
        path.unlink()


def cold(path: Path) -> None:
    """Push a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def verify(host: Host, algorithm: Algorithm = Algorithm.XXH3, rate: int | None = None) -> None:
    """Verify the base as an agent does; it must be whole."""
    verifier = Verifier(
        host,
        Integrity(algorithm=algorithm),
        stop=lambda: False,
        told=lambda *_: None,
        rate=rate,
        oldest=3600.0,
    )
    with priority.idle():
        result = verifier.verify(NAME)
    assert result.outcome in (Outcome.WHOLE, Outcome.BASELINED), result


def bare(path: Path, add: Callable[[memoryview], object]) -> None:
    """Read a file from its beginning to its end, and digest what was read: nothing else."""
    buffer = memoryview(mmap.mmap(-1, BLOCK))
    descriptor = os.open(path, os.O_RDONLY)
    while got := os.readv(descriptor, [buffer]):
        add(buffer[:got])
    os.close(descriptor)


def speed(document: Document, host: Host, size: int, runs: int) -> None:
    """A dense file, unpaced: verification with both digests beside bare loops and other programs."""
    with base_of(host, size, size) as path:
        # Each has a ledger of its own: a new algorithm verifies with both digests once.
        other = replace(host, state=host.state.with_name("other-state"))
        contenders: dict[str, Callable[[], object]] = {
            "verify, XXH3": lambda: verify(host),
            "bare loop, XXH3": lambda: bare(path, xxhash.xxh3_128().update),
            "verify, SHA256": lambda: verify(other, Algorithm.SHA256),
            "bare loop, SHA256": lambda: bare(path, hashlib.sha256().update),
        }
        for tool in (("sha256sum",), ("xxhsum", "-H2"), ("b3sum",)):
            if shutil.which(tool[0]):
                command = [*tool, str(path)]
                contenders[" ".join(tool)] = partial(subprocess.run, command, check=True, capture_output=True)
        verify(host)
        verify(other, Algorithm.SHA256)
        times = turns(contenders, path, runs)
    beside = {f"verify, {digest}": f"bare loop, {digest}" for digest in ("XXH3", "SHA256")}
    ratios = {one: statistics.median(times[other]) / statistics.median(times[one]) for one, other in beside.items()}
    rows = [
        (*row(name, spent, size), f"{ratios[name]:.2f}x" if name in ratios else "") for name, spent in times.items()
    ]
    columns = ("", "time", "speed", "beside its bare loop")
    document.tables.append(Table(f"{size // MIB} MiB, cold, unpaced", columns, rows))
    for name, ratio in ratios.items():
        wanted = f"at least {SHARE} of the digest's own speed"
        document.targets.append(Target(name, wanted, f"{ratio:.2f}", ratio >= SHARE))
    document.figures["speed"] = times


def sparse(document: Document, host: Host, size: int, content: int, runs: int) -> None:
    """An image that is mostly holes: verification beside a full read, holes included."""
    with base_of(host, size, content) as path:
        verify(host)
        times = turns({"verify, XXH3": lambda: verify(host)}, path, runs)
        times |= turns({"full read and XXH3": lambda: bare(path, xxhash.xxh3_128().update)}, path, min(runs, 3))
    rows = [row(name, spent, size) for name, spent in times.items()]
    title = f"{size / GIB:.2f} GiB with {content // MIB} MiB of content, cold"
    document.tables.append(Table(title, ("", "time", "speed"), rows))
    ours, full = (statistics.median(spent) for spent in times.values())
    # As 3 seconds for 20 GiB are to the 15 of a full read, where issue and machine are of one kind.
    document.targets.append(
        Target("holes are skipped", "at most 0.2 of a full read", f"{ours / full:.2f}", ours <= 0.2 * full)
    )
    document.figures["sparse"] = times


def pacing(document: Document, host: Host, size: int) -> None:
    """The rate that is kept, beside the one that is asked for."""
    kept: dict[str, float] = {}
    rows = []
    with base_of(host, size, size) as path:
        verify(host)
        for rate in (20 * MIB, 50 * MIB, 100 * MIB):
            cold(path)
            speed_kept = size / timed(partial(verify, host, rate=rate))
            kept[str(rate // MIB)] = speed_kept / rate
            rows.append((f"{rate // MIB} MiB/s", f"{speed_kept / MIB:.2f} MiB/s", f"{speed_kept / rate:.3f}"))
    document.tables.append(Table(f"pacing, {size // MIB} MiB, cold", ("asked for", "kept", "of it"), rows))
    worst = max(abs(share - 1) for share in kept.values())
    target = Target("pacing", f"within {PACED_WITHIN:.0%}", f"{worst:.1%}", worst <= PACED_WITHIN)
    document.targets.append(target)
    document.figures["pacing"] = kept


def page_cache(document: Document, host: Host, size: int) -> None:
    """Pages of a file, a third of which somebody reads, in the page cache before and after a verification."""
    with base_of(host, size, size) as path:
        verify(host)
        cold(path)
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for offset in range(0, size, 9 * MIB):
            os.pread(descriptor, 3 * MIB, offset)
        os.close(descriptor)
        before = resident(path)
        verify(host)
        after = resident(path)
    differ = sum(one != other for one, other in zip(before, after, strict=True))
    rows = [("before a verification", str(sum(before))), ("after it", str(sum(after))), ("differ", str(differ))]
    document.tables.append(Table("pages of a file in the page cache", ("", "pages"), rows))
    document.targets.append(Target("page cache as found", "no page differs", str(differ), differ == 0))
    document.figures["page_cache"] = {"before": sum(before), "after": sum(after), "differ": differ}


def memory(document: Document, host: Host, sizes: Sequence[int]) -> None:
    """The most that a process holds which verifies one file, and one of four times the size."""
    peaks: dict[int, float] = {}
    for size in sizes:
        with base_of(host, size, size // 8):
            command = [sys.executable, "-m", "benchmarks.bench_verify", "--once", str(host.instances.parent)]
            paths = os.pathsep.join((str(ROOT), str(ROOT / "operator")))
            environment = {**os.environ, "PYTHONPATH": paths}
            told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
            peaks[size] = int(told.stdout) / 1024
    rows = [(f"{size / GIB:.3g} GiB, an eighth of it content", f"{peak:.1f} MiB") for size, peak in peaks.items()]
    document.tables.append(Table("memory of a process that verifies one file", ("", "at its peak"), rows))
    more = peaks[sizes[-1]] - peaks[sizes[0]]
    document.targets.append(
        Target("memory is flat", f"at most {FLAT_MIB:g} MiB more", f"{more:.1f} MiB", more <= FLAT_MIB)
    )
    document.figures["memory_mib"] = {str(size): peak for size, peak in peaks.items()}


def resident(path: Path) -> list[int]:
    """For each page of a file whether it is in the page cache, as mincore tells its owner."""
    libc = ctypes.CDLL(None)
    size = path.stat().st_size
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        state = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))
        assert libc.mincore(address, ctypes.c_size_t(size), state) == 0
    return [page & 1 for page in state.raw[: -(-size // mmap.PAGESIZE)]]


def turns(contenders: dict[str, Callable[[], object]], path: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turns, from a cold file each time."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            cold(path)
            times[name].append(timed(work))
    return times


def row(name: str, spent: Sequence[float], size: int) -> tuple[str, str, str]:
    """One contender's."""
    return name, Spread.of(spent).shown(), f"{size / statistics.median(spent) / MIB:.0f} MiB/s"


if __name__ == "__main__":
    main()
