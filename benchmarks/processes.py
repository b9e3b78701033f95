"""What other processes use, as the kernel counts it: benchmarks look at real agents, libvirtd and qemu from outside."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment."""

    resident_mib: float
    descriptors: int
    threads: int


def held(pid: int) -> Held:
    """What a process holds now."""
    place = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
    resident = int(status["VmRSS"].split()[0]) * 1024 / _MIB
    return Held(resident, len(list((place / "fd").iterdir())), int(status["Threads"]))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond and with threads that have ended."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the processor clock of that process


def waited(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes were ready to run and had no processor."""
    total = 0
    for pid in pids:
        for task in (Path("/proc") / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_text().split()[1])
    return total / 1e9
