"""The part of the ledger that is about contents: baselines, findings, and how far a reading has come."""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, replace

from .settings import Algorithm
from .wholeness import MOST_OFFSETS, Baseline, Finding, Flaw, Known

FORGOTTEN_AFTER = 30 * 86400.0
"""Seconds that a file may be away, on a file system that is not mounted, before its baseline is forgotten."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that is being read, as far as that has come; from it a reading goes on after whatever ended it."""

    identity: str
    name: bytes
    algorithm: Algorithm
    size: int
    began_at: float
    """Unix seconds; of a file that was never quiet yet: when it was first seen."""
    mtime_ns: int
    """When it began."""
    quiet: bool
    """Whether nothing had written to the file for a while when it began."""
    digests: bytes = b""
    """Of the blocks so far, from the first on."""
    damaged: tuple[int, ...] = ()
    """Blocks that differ from the baseline, by number."""
    unreadable: tuple[int, ...] = ()
    """Offsets that could not be read."""
    candidate: bytes | None = None
    """The digests of a whole reading that may have been disturbed; an equal one makes them a baseline."""


class Baselines:
    """The tables of contents in an open ledger; what is told here is written when the ledger is committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def known(self) -> Known:
        """Everything that judgement and reports may know."""
        rows = self._db.execute("SELECT identity, name, algorithm, size, root, taken_at, verified_at FROM baseline")
        baselines = [Baseline(row[0], row[1], Algorithm(row[2]), *row[3:]) for row in rows]
        findings = [_finding(row) for row in self._db.execute("SELECT * FROM finding")]
        return Known({item.identity: item for item in baselines}, {item.identity: item for item in findings})

    def digests(self, identity: str) -> bytes:
        """The digests of a baseline's blocks; empty without one."""
        row = self._db.execute("SELECT digests FROM baseline WHERE identity = ?", (identity,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def take(self, baseline: Baseline, digests: bytes) -> None:
        """Keep a whole file's baseline, in place of one that it had."""
        self._db.execute(
            "INSERT OR REPLACE INTO baseline VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                baseline.identity,
                baseline.name,
                baseline.algorithm.value,
                baseline.size,
                digests,
                baseline.root,
                baseline.taken_at,
                baseline.verified_at,
            ),
        )

    def found_whole(self, identity: str, at: float) -> None:
        """The file is as its baseline: what was found wrong with it is over."""
        self._db.execute("UPDATE baseline SET verified_at = max(verified_at, ?) WHERE identity = ?", (at, identity))
        self._db.execute("DELETE FROM finding WHERE identity = ?", (identity,))

    def found(self, finding: Finding) -> Finding:
        """Remember what is wrong with a file; one that is known keeps the time at which it was first found."""
        known = self.known().findings.get(finding.identity)
        if known is not None and known.flaw is finding.flaw:
            finding = replace(finding, found_at=known.found_at)
        row = (
            finding.identity,
            finding.name,
            finding.flaw.value,
            finding.message,
            json.dumps(finding.offsets[:MOST_OFFSETS]),
            finding.found_at,
            finding.checked_at,
        )
        self._db.execute("INSERT OR REPLACE INTO finding VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return finding

    def readings(self) -> tuple[Reading, ...]:
        """What is being read, the longest under way first."""
        rows = self._db.execute("SELECT * FROM reading ORDER BY began_at, name")
        return tuple(_reading(row) for row in rows)

    def reading(self, identity: str) -> Reading | None:
        """How far a file has been read; None: it is not being read."""
        row = self._db.execute("SELECT * FROM reading WHERE identity = ?", (identity,)).fetchone()
        return None if row is None else _reading(row)

    def keep(self, reading: Reading) -> None:
        """Remember how far a file has been read."""
        self._db.execute(
            "INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                reading.identity,
                reading.name,
                reading.algorithm.value,
                reading.size,
                reading.began_at,
                str(reading.mtime_ns),
                int(reading.quiet),
                reading.digests,
                json.dumps(reading.damaged),
                json.dumps(reading.unreadable),
                reading.candidate,
            ),
        )

    def end_reading(self, identity: str) -> None:
        """The file is not being read any more."""
        self._db.execute("DELETE FROM reading WHERE identity = ?", (identity,))

    def forget(self, but: Collection[str], before: float) -> None:
        """Forget files that are not among `but` and of which nothing was heard since `before`, Unix seconds."""
        for table, heard in (("baseline", "verified_at"), ("finding", "checked_at"), ("reading", "began_at")):
            rows = self._db.execute(f"SELECT identity FROM {table} WHERE {heard} < ?", (before,))  # noqa: S608
            gone = [row for row in rows if row[0] not in but]
            self._db.executemany(f"DELETE FROM {table} WHERE identity = ?", gone)  # noqa: S608


def _finding(row: tuple[str, bytes, str, str, str, float, float]) -> Finding:
    identity, name, flaw, message, offsets, found_at, checked_at = row
    return Finding(identity, name, Flaw(flaw), message, tuple(map(int, json.loads(offsets))), found_at, checked_at)


def _reading(
    row: tuple[str, bytes, str, int, float, str, int, bytes, str, str, bytes | None],
) -> Reading:
    return Reading(
        identity=row[0],
        name=row[1],
        algorithm=Algorithm(row[2]),
        size=row[3],
        began_at=row[4],
        mtime_ns=int(row[5]),
        quiet=bool(row[6]),
        digests=row[7],
        damaged=tuple(map(int, json.loads(row[8]))),
        unreadable=tuple(map(int, json.loads(row[9]))),
        candidate=row[10],
    )
