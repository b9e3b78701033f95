"""Makes passes for bench_pass.py in a process of its own: a word in, a line of JSON out, for each.

python -m benchmarks.pass_worker PLACE: `loop`, `plan` or `pass` over the tree in PLACE/instances.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basekeeper.cache import engine
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Host, Mode, Policy
from basekeeper.cache.verdicts import USE_REASONS

HEADER = 4096
GRACE = 1.0
"""Seconds: the tree is older, so that nothing in it is held for a spawn, but what would show one is looked at."""
STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})
ENFORCE = Policy(mode=Mode.ENFORCE)


def main() -> None:
    """Serve until standard input ends."""
    host = host_of(Path(sys.argv[1]))
    works: dict[str, Callable[[], list[str]]] = {
        "loop": lambda: bare_loop(host),
        "plan": lambda: used(engine.judge_now(host, ENFORCE)[0]),
        "pass": lambda: used(engine.run(host, ENFORCE, lambda *_: None, resident=True)),
    }
    started_processes = 0

    def count(event: str, _: object) -> None:
        nonlocal started_processes
        started_processes += event in STARTS

    counting = False
    for line in sys.stdin:
        word, *options = line.split()
        if options == ["counted"] and not counting:
            sys.addaudithook(count)  # for the rest of this process's life; it costs time, so nothing is timed then
            counting = True
        before = started_processes
        cpu, started = cpu_seconds(), time.perf_counter()
        bases = works[word]()
        wall, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        say({
            "active": bases,
            "wall": wall,
            "cpu": cpu,
            "peak_mib": peak_mib(),
            "processes": started_processes - before if counting else None,
        })  # fmt: skip


def host_of(place: Path) -> Host:
    """The tree as a host whose libvirt is not asked."""
    instances = place / "instances"
    return Host(
        node="bench",
        instances=instances,
        base=instances / "_base",
        snapshots=instances / "snapshots",
        state=place / "state",
        libvirt=None,
        spawn_grace=GRACE,
    )


def bare_loop(host: Host) -> list[str]:
    """List, open and read the same headers, and nothing else; it learns of no base."""
    for name in os.listdir(host.instances):
        directory = os.path.join(host.instances, name)
        if name in ("_base", "locks") or not os.path.isdir(directory):
            continue
        for entry in os.listdir(directory):
            if entry == "disk":
                descriptor = os.open(os.path.join(directory, entry), os.O_RDONLY)
                assert os.read(descriptor, HEADER)
                os.close(descriptor)
    return []


def used(report: Report) -> list[str]:
    """Names of the bases that are kept for being used."""
    return sorted(row.name for row in report.rows if row.reason in USE_REASONS)


def cpu_seconds() -> float:
    """What this process and all that it waited for have used."""
    spent = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def peak_mib() -> float:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def say(answer: dict[str, Any]) -> None:
    """Write a line of JSON to standard output."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
