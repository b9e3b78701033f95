"""What every benchmark shares: how figures are taken, described, shown, judged against their targets and kept.

A benchmark is a program, `python -m benchmarks.bench_NAME` from the checkout. It takes `--quick` (small sizes, to see
that it works; targets are not judged) and `--json FILE`. It prints tables that a person reads; `make bench` keeps its
document for docs/performance.md.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """What a list of measurements comes to; it has one at least."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def shown(self, unit: str = "s", scale: float = 1.0) -> str:
        """Median and range, as `0.126 s (0.123-0.134)`."""
        median, least, most = (f"{value * scale:.3g}" for value in (self.median, self.least, self.most))
        return f"{median} {unit}" if self.count == 1 else f"{median} {unit} ({least}-{most})"


@dataclass(frozen=True, slots=True)
class Fit:
    """A straight line through measurements at several sizes, and the power of the size by which they grow."""

    each: float
    """What one more costs."""
    fixed: float
    """What none costs."""
    exponent: float
    """1 is linear; from the sizes' logarithms."""
    r_squared: float


def fit(sizes: Sequence[float], values: Sequence[float]) -> Fit:
    """Least squares over at least two sizes; all are positive."""
    line = statistics.linear_regression(sizes, values)
    powers = statistics.linear_regression([_log(size) for size in sizes], [_log(value) for value in values])
    varies = len(sizes) > 2 and max(values) > min(values)  # a flat line and one through two points fit exactly
    r_squared = statistics.correlation(sizes, values) ** 2 if varies else 1.0
    return Fit(line.slope, line.intercept, powers.slope, r_squared)


def _log(value: float) -> float:
    return math.log(max(value, 1e-9))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for people; the first column says what was measured."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A target of DESIGN 10 or of the issue, and what was seen of it."""

    what: str
    wanted: str
    seen: str
    met: bool


@dataclass
class Document:
    """All that one run of a benchmark has to say."""

    benchmark: str
    """Its name, as in bench_NAME.py."""
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Every measurement, for programs."""


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    made.add_argument("--json", type=Path, help="where to write the document")
    return made


def finish(document: Document, given: argparse.Namespace) -> None:
    """Print the tables and the targets; write the document where that is wanted."""
    for table in document.tables:
        show(table)
    if document.targets and not given.quick:
        rows = [(item.what, item.wanted, item.seen, "met" if item.met else "MISSED") for item in document.targets]
        show(Table("targets", ("", "target", "seen", ""), rows))
    if given.json is not None:
        arguments = {name: _word(value) for name, value in vars(given).items() if name not in ("json", "quick")}
        about = {"arguments": arguments, "quick": given.quick, "machine": machine(), "commit": commit(), "at": _today()}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({**about, **asdict(document)}, indent=1) + "\n", encoding="utf-8")


def _word(value: object) -> str:
    """An argument as one would give it."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def show(table: Table) -> None:
    """Print a table."""
    print(f"\n{table.title}")
    widths = [max(len(row[at]) for row in (table.columns, *table.rows)) for at in range(len(table.columns))]
    for row in (table.columns, *table.rows):
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    for note in table.notes:
        print(note)


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def machine() -> dict[str, str]:
    """What this runs on, as far as the figures depend on it; `load` and `stolen` say how undisturbed it was."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[2]:.1f}",
        "stolen": f"{_stolen(since=_AT_START):.1%}",
    }


def _ticks() -> list[int]:
    """The processors' time so far, by what it went to, as proc(5) has it."""
    return [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]


def _stolen(*, since: list[int]) -> float:
    """The share of the processors' time that the hypervisor gave to others."""
    spent = [now - before for now, before in zip(_ticks(), since, strict=True)]
    return spent[7] / max(1, sum(spent))


_AT_START = _ticks()


def commit() -> str:
    """The commit that is measured, with a word if the tree differs from it; `unknown` outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "operator", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, changed" if changed else head


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
