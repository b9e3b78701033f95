"""The ledger over 10,000 passes of a small cloud in which files and users come and go: size, rows and time of a pass.

Each pass is a real one, in Enforce, and comes 40 minutes after the one before by every clock that the engine reads, so
that ages, retention and the 30 days for which digests are kept pass as on a node: 10,000 of them are 278 days. With
each pass a base comes; every second gets a user, of whom the twelve youngest stay; now and then a removed file is
needed while another has its name, or is restored by hand and pinned. After each pass what is due is verified.
"""

import os
import shutil
import sqlite3
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

from basekeeper.cache import by_hand, clock, engine, quarantine, verification
from basekeeper.cache.ledger import Ledger
from basekeeper.cache.ledger_file import FILE
from basekeeper.cache.memory import Clock
from basekeeper.cache.settings import Host, Integrity, Mode, Policy
from benchmarks.measuring import Document, Spread, Table, Target
from lab.nova_tree import DAY, NovaTree

INTERVAL = 2400.0
POLICY = Policy(mode=Mode.ENFORCE, integrity=Integrity())
SIZE = 4 << 10
USERS = 12
AGAIN_EVERY, RESTORE_EVERY = 25, 40
AROUND = 20
"""Passes of which a moment's times are the median."""
LEVEL = 1.05
TABLES = ("used", "pin", "compared", "baseline", "finding", "reading", "meta")


class Later:
    """Clocks that go on by as much as they are told to, beside the real ones."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._time, self._read = time.time, clock.read

    def time(self) -> float:
        """Unix seconds."""
        return self._time() + self.ahead

    def read(self) -> Clock:
        """What the engine reads; the wall clock and the uptime go on together."""
        real = self._read()
        return replace(real, wall=self.time(), uptime=real.uptime + self.ahead)

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Have them for the real ones."""
        with mock.patch.object(time, "time", self.time), mock.patch.object(clock, "read", self.read):
            yield


@dataclass
class Samples:
    """Of all passes so far."""

    seconds: list[float] = field(default_factory=list)
    committing: list[float] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    removed: int = 0
    purged: int = 0
    conflicts: int = 0


@dataclass
class Cloud:
    """The bases and users that come and go."""

    tree: NovaTree
    host: Host
    users: deque[str] = field(default_factory=deque)
    made: int = 0

    def go_on(self) -> None:
        """What happens between two passes."""
        self.made += 1
        entries = quarantine.read(self.host.base)[0] if self.made % AGAIN_EVERY == 0 else ()
        name = os.fsdecode(entries[-1].name.raw) if entries else f"{self.made:040x}"
        base = self.tree.add_file(name, size=SIZE, age=0.0, seed=self.made)
        if entries or self.made % 2 == 0:
            instance = f"user-{self.made}"
            self.tree.add_overlay(instance, base)
            self.users.append(instance)
        if len(self.users) > USERS:
            shutil.rmtree(self.host.instances / self.users.popleft())
        if self.made % RESTORE_EVERY == 0 and (lying := quarantine.read(self.host.base)[0]):
            by_hand.restore(self.host, [lying[0].id], DAY)


def measure(document: Document, place: Path, passes: int) -> None:
    """Go through so many passes and say what the ledger has become."""
    tree = NovaTree(place / "growth" / "instances")
    host = Host(
        node="bench",
        instances=tree.instances_path,
        base=tree.base_dir,
        snapshots=tree.instances_path / "snapshots",
        state=place / "growth" / "state",
        libvirt=None,
    )
    cloud, later, seen = Cloud(tree, host), Later(), Samples()
    moments = sorted({max(1, passes * share // 100) for share in (1, 5, 10, 20, 50, 75, 100)})
    rows: dict[int, dict[str, int]] = {}
    with later.everywhere(), committed(seen):
        for number in range(1, passes + 1):
            later.ahead += INTERVAL
            cloud.go_on()
            one_pass(host, seen)
            if number in moments:
                rows[number] = rows_of(host)
    # Else a ledger would be shown that had nothing to forget.
    assert passes < 100 or (seen.removed > passes / 4 and seen.purged > passes / 4), seen
    assert passes < 1000 or seen.conflicts, seen
    tell(document, moments, rows, seen)


def one_pass(host: Host, seen: Samples) -> None:
    """A pass, and what a command does after it."""
    seen.committing.append(0.0)
    seen.commits.append(0)
    started = time.perf_counter()
    report = engine.run(host, POLICY, lambda _what, _at, _of: None)
    seen.seconds.append(time.perf_counter() - started)
    actions = [str(row.action) for row in report.rows if row.action is not None]
    seen.removed += actions.count("Quarantined")
    seen.purged += actions.count("Purged")
    seen.conflicts += sum(str(row.reason) == "Conflict" for row in report.rows)
    counted = seen.committing[-1], seen.commits[-1]
    verification.within_run(host, POLICY, lambda: False)
    seen.committing[-1], seen.commits[-1] = counted  # of the pass alone
    files = host.state.glob(f"{FILE}*")
    seen.sizes.append(sum(path.stat().st_size for path in files))


@contextmanager
def committed(seen: Samples) -> Iterator[None]:
    """Take the time of every commit."""
    commit = Ledger.commit

    def timed(ledger: Ledger) -> None:
        started = time.perf_counter()
        commit(ledger)
        seen.committing[-1] += time.perf_counter() - started
        seen.commits[-1] += 1

    with mock.patch.object(Ledger, "commit", timed):
        yield


def rows_of(host: Host) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(host.state / FILE)) as book:
        return {table: int(book.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES}  # noqa: S608


def tell(document: Document, moments: list[int], rows: dict[int, dict[str, int]], seen: Samples) -> None:
    """The table and the target."""
    shown = []
    for moment in moments:
        around = slice(max(0, moment - AROUND), moment)
        shown.append(
            (
                str(moment),
                f"{seen.sizes[moment - 1] / 1024:.0f} KiB",
                *(str(rows[moment][table]) for table in TABLES),
                Spread.of(seen.seconds[around]).shown("ms", 1000),
                Spread.of(seen.committing[around]).shown("ms", 1000),
                f"{statistics.mean(seen.commits[around]):.1f}",
            )
        )
    columns = ("after so many passes", "ledger", *TABLES, "a pass", "of it in commits", "commits")
    title = f"the ledger: {seen.removed} files removed, {seen.purged} purged, {len(moments)} looks at it"
    document.tables.append(Table(title, columns, shown, (f"times are of the {AROUND} passes before",)))
    middle = moments[-3] if len(moments) > 2 else moments[0]
    ratio = seen.sizes[-1] / seen.sizes[middle - 1]
    what = f"the ledger's size, after {moments[-1]} passes beside {middle}"
    document.targets.append(Target(what, f"levels off: at most {LEVEL}x", f"{ratio:.2f}x", ratio <= LEVEL))
    document.figures["ledger"] = {
        "rows": {str(moment): counts for moment, counts in rows.items()},
        "bytes": {str(moment): seen.sizes[moment - 1] for moment in moments},
        "pass_seconds": seen.seconds,
        "commit_seconds": seen.committing,
        "removed": seen.removed,
        "purged": seen.purged,
    }
