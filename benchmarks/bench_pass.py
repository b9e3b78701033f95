#!/usr/bin/env python3
"""A pass over 5,000 instances and 20 bases, warm, beside a bare loop over the same headers.

The loop lists each instance directory, opens its disk and reads the header: what any program must do to know what
is in use. Both run in turns in one process, so that noise hits both; the figure to look at is the ratio of medians.
The target is at most 3. Memory is the peak of a process of its own that makes one pass.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

from basekeeper.cache import engine
from basekeeper.cache.settings import Host, Policy
from lab.nova_tree import DAY, NovaTree

HEADER = 4096
TARGET = 3.0


def main() -> None:
    """Build the tree, measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--bases", type=int, default=20)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--one-pass", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_pass:
        one_pass(given.one_pass)
        return
    with tempfile.TemporaryDirectory(prefix="basekeeper-bench-") as place:
        instances = Path(place) / "instances"
        build(NovaTree(instances), given.instances, given.bases)
        host = host_of(instances)
        measure(host, given.runs, given.instances, given.bases)


def build(tree: NovaTree, instances: int, bases: int) -> None:
    """Lay out the tree: real overlays, by copying what qemu-img made once for each base."""
    for number in range(bases):
        base = tree.add_base(f"image-{number}", age=9 * DAY, seed=number + 1)
        template = tree.add_overlay(f"template-{number}", base)
        for _ in range(instances // bases):
            directory = tree.instance(str(uuid.uuid4()))
            shutil.copyfile(template, directory / "disk")
            (directory / "disk.info").write_text(json.dumps({str(directory / "disk"): "qcow2"}))
            (directory / "console.log").write_bytes(b"login: ")
        shutil.rmtree(template.parent)


def host_of(instances: Path) -> Host:
    """The tree as a host without a hypervisor, on which nothing is starting."""
    return Host(
        node="bench",
        instances=instances,
        base=instances / "_base",
        snapshots=instances / "snapshots",
        state=instances.parent / "state",
        libvirt=None,
        spawn_grace=0.0,
    )


def bare_loop(host: Host) -> int:
    """List, open and read the same headers, and nothing else."""
    read = 0
    for name in os.listdir(host.instances):
        directory = os.path.join(host.instances, name)
        if name in ("_base", "locks") or not os.path.isdir(directory):
            continue
        for entry in os.listdir(directory):
            if entry == "disk":
                descriptor = os.open(os.path.join(directory, entry), os.O_RDONLY)
                read += len(os.read(descriptor, HEADER)) > 0
                os.close(descriptor)
    return read


def measure(host: Host, runs: int, instances: int, bases: int) -> None:
    """Take turns, and print what came out."""
    looped: list[float] = []
    passed: list[float] = []
    for run in range(runs + 1):
        loop, made = timed(lambda: bare_loop(host)), timed(lambda: engine.judge_now(host, Policy()))
        if run > 0:  # the first turn warms the page cache
            looped.append(loop)
            passed.append(made)
    ratio = statistics.median(passed) / statistics.median(looped)
    command = [sys.executable, __file__, "--one-pass", str(host.instances)]
    memory = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{instances} instances, {bases} bases, warm; {runs} turns; {machine()}")
    print(f"{'':22}{'median':>10}{'min':>10}{'max':>10}")
    for what, times in (("bare loop", looped), ("pass", passed)):
        print(f"{what:22}{statistics.median(times):>9.3f}s{min(times):>9.3f}s{max(times):>9.3f}s")
    print(f"{'ratio of medians':22}{ratio:>9.2f}x   target: at most {TARGET:g}x")
    print(f"{'memory':22}{memory['before_mib']:>7.1f} MiB before a pass, {memory['peak_mib']:.1f} MiB at its peak")
    figures = {"loop": looped, "pass": passed, "ratio": ratio, **memory, "instances": instances, "bases": bases}
    print(json.dumps(figures))


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def one_pass(instances: Path) -> None:
    """Make one pass and print this process's memory before it and at its peak."""
    before = resident_mib()
    engine.judge_now(host_of(instances), Policy())
    print(json.dumps({"before_mib": before, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def machine() -> str:
    """What this runs on, as far as the figures depend on it."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {model}"


if __name__ == "__main__":
    main()
