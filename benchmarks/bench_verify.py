#!/usr/bin/env python3
"""Verification beside the digests' own speed, on the same cold file; a sparse image; pacing; what the page cache keeps.

Each tool reads a file that was pushed out of the page cache before, in turns with the others, so that noise hits all.
The figures to look at: the ratio of medians to the same digest in a bare loop (target: at least 0.9), to `sha256sum`
and, where they are installed, `xxhsum` and `b3sum`; the seconds for 20 GiB of which 700 MiB are content (at most 3 on a
machine on which a full read takes 15); the rate that was kept beside the one that was asked for (within 5 %); and pages
in the page cache before and after (equal).
"""

import argparse
import ctypes
import hashlib
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

import xxhash

from basekeeper.cache import priority
from basekeeper.cache.names import original_of
from basekeeper.cache.settings import Algorithm, Host, Integrity
from basekeeper.cache.verification import Outcome, Verifier

MIB, GIB = 1 << 20, 1 << 30
NAME = original_of("an image")
BLOCK = 4 * MIB


def main() -> None:
    """Measure, print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the dense file")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--where", default=None, help="a directory on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="basekeeper-bench-", dir=given.where) as place:
        host = host_of(Path(place))
        figures = {
            "speed": speed(host, given.size * MIB, given.runs),
            "sparse": sparse(host, given.runs),
            "pacing": pacing(host),
            "page_cache": page_cache(host),
        }
    print(json.dumps(figures))


def host_of(place: Path) -> Host:
    """A cache in which nothing is starting."""
    base = place / "instances" / "_base"
    base.mkdir(parents=True)
    (place / "instances" / "locks").mkdir()
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


def speed(host: Host, size: int, runs: int) -> dict[str, float]:
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
    print(f"\n{size // MIB} MiB, cold, unpaced; {runs} turns; {machine()}")
    show(times, size)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    for digest in ("XXH3", "SHA256"):
        ratio = medians[f"bare loop, {digest}"] / medians[f"verify, {digest}"]
        medians[f"ratio, {digest}"] = ratio
        print(f"verification at {ratio:.2f} of the bare loop's speed with {digest}; target: at least 0.9")
    return medians


def sparse(host: Host, runs: int) -> dict[str, float]:
    """20 GiB of which 700 MiB are content: verification beside a full read, holes included."""
    with base_of(host, 20 * GIB, 700 * MIB) as path:
        verify(host)
        contenders: dict[str, Callable[[], object]] = {"verify, XXH3": lambda: verify(host)}
        times = turns(contenders, path, runs)
        times |= turns({"full read and XXH3": lambda: bare(path, xxhash.xxh3_128().update)}, path, min(runs, 3))
    print("\n20 GiB with 700 MiB of content, cold")
    show(times, 20 * GIB)
    return {name: statistics.median(spent) for name, spent in times.items()}


def pacing(host: Host) -> dict[str, float]:
    """The rate that is kept, beside the one that is asked for."""
    print("\npacing")
    kept: dict[str, float] = {}
    with base_of(host, 256 * MIB, 256 * MIB) as path:
        verify(host)
        for rate in (20 * MIB, 50 * MIB, 100 * MIB):
            cold(path)
            spent = timed(lambda rate=rate: verify(host, rate=rate))  # type: ignore[misc]
            kept[f"{rate // MIB} MiB/s"] = share = 256 * MIB / spent / rate
            print(f"asked for {rate / MIB:5.0f} MiB/s, kept {256 / spent:7.2f} MiB/s, {share:.3f} of it")
    return kept


def page_cache(host: Host) -> dict[str, int]:
    """Pages of a file, a third of which somebody reads, in the page cache before and after a verification."""
    size = 300 * MIB
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
    same = sum(one == other for one, other in zip(before, after, strict=True))
    print(f"\npages in the page cache: {sum(before)} before, {sum(after)} after; {len(before) - same} differ")
    return {"before": sum(before), "after": sum(after), "differ": len(before) - same}


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


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def show(times: dict[str, list[float]], size: int) -> None:
    """A table."""
    print(f"{'':22}{'median':>10}{'min':>10}{'max':>10}{'speed':>14}")
    for name, spent in times.items():
        median = statistics.median(spent)
        print(f"{name:22}{median:>9.3f}s{min(spent):>9.3f}s{max(spent):>9.3f}s{size / median / MIB:>8.0f} MiB/s")


def machine() -> str:
    """What this runs on, as far as the figures depend on it."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores, {model}"


if __name__ == "__main__":
    main()
