"""Verification: which base to read now, how fast, and what follows from what was read. Writes nothing but the ledger.

A base is read once in quiet, and its digests are kept: there is nothing else to compare with, glance knows only the
image that was not converted yet. Later readings are compared with that. A block that differs is read again, from the
disk, before anyone is alarmed. What was read so far is in the ledger every few seconds, so that whatever ends a reading
costs no more than these; a baseline is kept only of a whole reading of a file that was the same at both ends.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from . import handles, inventory, ledger_file, locks, priority, processes, windows
from .baselines import Baselines, Reading
from .contents import candidates
from .files import DIRECTORY, NotAFile, open_quietly, why
from .integrity import BLOCK, DIGEST, Base, Changed, root
from .names import Name, parse
from .pace import Pace
from .paging import Unreadable
from .settings import Host, Integrity, Policy
from .wholeness import MOST_OFFSETS, Baseline, Finding, Flaw, next_of

Told = Callable[[bytes, int, int, int], None]
"""Told after each block: the file's name, bytes of it that are done, bytes that it has, bytes that were read now."""
Stop = Callable[[], bool]

_SAVE_EVERY = 5.0
"""Seconds of reading that a killed program may lose."""
_MOST_UNREADABLE = 8
"""Places of a file that cannot be read after which the rest is left: each may keep a disk busy for long."""
_LONGEST_IN_RUN = 60.0
_TRY_AGAIN = 60.0
"""Seconds after which a file is asked about again that was not quiet."""


class Outcome(StrEnum):
    """What came of reading one file."""

    WHOLE = "Whole"
    """It is as its baseline."""
    BASELINED = "Baselined"
    """It was read for the first time, and its baseline was kept."""
    CORRUPT = "Corrupt"
    UNREADABLE = "Unreadable"
    PENDING = "Pending"
    """Something may be writing it, so that it has no baseline yet."""
    INTERRUPTED = "Interrupted"
    GONE = "Gone"
    """It is not there any more, or no regular file."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of reading one file."""

    name: bytes
    outcome: Outcome
    message: str = ""
    size: int = 0
    read: int = 0
    """Bytes that were read now: holes are not, nor what was read before an interruption."""
    seconds: float = 0.0
    root: str | None = None
    """`<ALGORITHM>:<size>:<digest>`, for a file that is whole."""
    finding: Finding | None = None
    ends_finding: bool = False
    """It is whole, and had been found wrong before."""

    @property
    def is_news(self) -> bool:
        """Whether something was found wrong that was not known."""
        return self.finding is not None and self.finding.found_at == self.finding.checked_at


def may_verify(policy: Policy, now: float) -> bool:
    """Whether the policy has bases verified at this moment, Unix seconds."""
    return policy.integrity is not None and not policy.suspend and windows.is_open(policy.windows, now)


def within_run(host: Host, policy: Policy, stop: Stop) -> None:
    """Verify what is due, for at most a minute: what a command does that is called again and again.

    Raises OSError, LedgerError, Unobservable.
    """
    setting = policy.integrity
    if setting is None or not may_verify(policy, time.time()):
        return
    ends = time.monotonic() + _LONGEST_IN_RUN

    def over() -> bool:
        return stop() or time.monotonic() >= ends or not may_verify(policy, time.time())

    verifier = Verifier(
        host,
        setting,
        stop=over,
        told=lambda *_: None,
        rate=setting.max_bytes_per_second,
        oldest=setting.interval,
    )
    with priority.idle():
        for _ in verifier.due():
            pass


class Verifier:
    """Reads bases of one host, one after the other, from one thread."""

    def __init__(
        self, host: Host, setting: Integrity, *, stop: Stop, told: Told, rate: int | None, oldest: float
    ) -> None:
        """`rate` is bytes per second, None: as fast as can be.

        A reading that was interrupted goes on if it began not more than `oldest` seconds ago.
        """
        self._host = host
        self._setting = setting
        self._stop = stop
        self._told = told
        self._pace = Pace(rate, stop)
        self._oldest = oldest
        self._later: dict[str, float] = {}
        """Files that were not quiet, by identity, and when to ask again, as `time.monotonic` counts."""

    def due(self) -> Iterator[Verified]:
        """Verify what is due, until nothing is or `stop` says so. Raises OSError, LedgerError, Unobservable."""
        while not self._stop():
            name, _ = self._next()
            if name is None:
                return
            yield self.verify(name)

    def wait(self) -> float:
        """Seconds until something may be due. Raises OSError, LedgerError, Unobservable."""
        name, wait = self._next()
        return 0.0 if name is not None else wait

    def _next(self) -> tuple[bytes | None, float]:
        asked = time.monotonic()
        self._later = {identity: at for identity, at in self._later.items() if at > asked}
        with ledger_file.writing(self._host.state) as book:  # puts right what a killed program left
            known, readings = book.contents.known(), book.contents.readings()
        bases = [
            item
            for item in candidates(self._host, inventory.scan(self._host).files)
            if item.identity not in self._later
        ]
        under_way = {item.identity for item in readings if item.digests}
        begun = next((item.name for item in bases if item.identity in under_way), None)
        if begun is not None:
            return begun, 0.0
        chosen, wait = next_of(bases, known, self._setting.interval, time.time())
        wait = min([wait, *(at - asked for at in self._later.values())])
        return (None if chosen is None else chosen.name), wait

    def verify(self, name: bytes) -> Verified:
        """Read one file to its end and say what is known of it then. Raises OSError, LedgerError."""
        started = time.monotonic()
        try:
            with Base(bytes(self._host.base) + b"/" + name) as base:
                result = self._open(base, parse(name))
                if result.outcome is Outcome.PENDING:
                    self._later[base.identity] = time.monotonic() + _TRY_AGAIN
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotAFile) or error.errno == errno.ELOOP
            said = "it is not there any more, or no regular file"
            result = Verified(name, Outcome.GONE, said) if gone else self._closed(name, error)
        return replace(result, seconds=time.monotonic() - started)

    def _closed(self, name: bytes, error: OSError) -> Verified:
        """A file that cannot even be opened."""
        directory = open_quietly(bytes(self._host.base), DIRECTORY)
        try:
            identity = handles.of_entry(directory, name)
        except FileNotFoundError:
            return Verified(name, Outcome.GONE, "it is not there any more")
        finally:
            os.close(directory)
        message = f"it cannot be opened: {why(error, bytes(self._host.base) + b'/' + name)}"
        return self._find(identity, name, Flaw.UNREADABLE, message, ())

    def _open(self, base: Base, name: Name) -> Verified:
        with ledger_file.writing(self._host.state) as book:  # puts right what a killed program left
            baseline = book.contents.known().baselines.get(base.identity)
            reading = book.contents.reading(base.identity)
            expected = book.contents.digests(base.identity)
        if baseline is not None and baseline.size != base.size:
            message = f"its size was {baseline.size} bytes and is {base.size}"
            found = self._find(base.identity, name.raw, Flaw.CORRUPT, message, (min(baseline.size, base.size),))
            return replace(found, size=base.size)
        if reading is None or not self._goes_on(reading, base):
            begun = self._begin(base, name, reading, baseline)
            if isinstance(begun, Verified):
                return begun
            reading = begun
        return self._read(base, reading, baseline, expected)

    def _goes_on(self, reading: Reading, base: Base) -> bool:
        """Whether an interrupted reading can go on where it ended."""
        same = reading.size == base.size and reading.algorithm is self._setting.algorithm
        return same and bool(reading.digests) and 0 <= time.time() - reading.began_at < self._oldest

    def _begin(self, base: Base, name: Name, before: Reading | None, baseline: Baseline | None) -> "Reading | Verified":
        now = time.time()
        begun = Reading(
            base.identity, name.raw, self._setting.algorithm, base.size, now, base.modified_at(), quiet=True
        )
        if baseline is not None:
            return begun
        if (noise := self._noise(base, name)) is not None:
            return Verified(name.raw, Outcome.PENDING, noise, base.size)
        age = now - max(base.status.st_mtime, base.status.st_ctime)
        if age >= self._host.spawn_grace:
            return replace(begun, candidate=_candidate(before, begun))
        # Something touches it again and again, as spawns do: then two equal readings show that nothing writes.
        if before is not None and before.size == base.size and now - before.began_at >= self._host.spawn_grace:
            return replace(begun, quiet=False, candidate=_candidate(before, begun))
        if before is None or before.size != base.size:
            with ledger_file.writing(self._host.state) as book:
                book.contents.keep(replace(begun, quiet=False))
                book.commit()
        return Verified(name.raw, Outcome.PENDING, "it was written or touched a moment ago", base.size)

    def _noise(self, base: Base, name: Name) -> str | None:
        """Who may be writing the file at this moment."""
        try:
            if locks.nova_holds(self._host.locks, name.lock_name):
                return "somebody holds nova's lock for its name"
        except OSError as error:
            return f"nova's lock for its name cannot be asked ({error.strerror})"
        inode = base.status.st_dev, base.status.st_ino
        writer = processes.open_files({inode}, to_write=True).get(inode)
        return None if writer is None else f"{writer} has it open for writing"

    def _read(self, base: Base, reading: Reading, baseline: Baseline | None, expected: bytes) -> Verified:
        """Read on from where the reading is, to the end of the file unless it is stopped."""
        saved, read = time.monotonic(), 0
        for block in range(len(reading.digests) // DIGEST, base.blocks):
            if self._stop():
                self._save(reading)
                return Verified(reading.name, Outcome.INTERRUPTED, "the next one goes on here", base.size, read)
            cost = 0 if base.is_hole(block) else base.length(block)
            try:
                reading = self._block(base, reading, block, baseline, expected)
            except Changed:
                return self._give_up(base, reading, read)
            read += cost
            self._told(reading.name, min((block + 1) * BLOCK, base.size), base.size, cost)
            if len(reading.unreadable) >= _MOST_UNREADABLE:
                break
            if cost:
                self._pace.spend(cost)
            if time.monotonic() - saved >= _SAVE_EVERY:
                self._save(reading)
                saved = time.monotonic()
        return replace(self._end(base, reading), read=read)

    def _block(self, base: Base, reading: Reading, block: int, baseline: Baseline | None, expected: bytes) -> Reading:
        """Read one block and, where there is something to compare with, compare it."""
        ours = self._setting.algorithm
        asked = {ours} if baseline is None else {ours, baseline.algorithm}
        damaged = reading.damaged
        try:
            found = base.digests(block, asked)
            if baseline is not None and found[baseline.algorithm] != _of(expected, block):
                found = base.digests_from_disk(block, asked)
                if found[baseline.algorithm] != _of(expected, block):
                    damaged = (*damaged, block)
        except Unreadable as error:
            unreadable = (*reading.unreadable, error.offset)
            return replace(reading, digests=reading.digests + bytes(DIGEST), unreadable=unreadable)
        return replace(reading, digests=reading.digests + found[ours], damaged=damaged)

    def _end(self, base: Base, reading: Reading) -> Verified:
        """What follows from a whole reading."""
        name = parse(reading.name)
        if not base.is_still_there():
            return self._give_up(base, reading, 0)
        with ledger_file.writing(self._host.state) as book:
            contents = book.contents
            contents.end_reading(reading.identity)
            baseline = contents.known().baselines.get(reading.identity)
            if reading.damaged or reading.unreadable:
                finding = contents.found(_finding_of(reading))
                result = _verdict(finding, base.size)
            elif baseline is None:
                quiet = self._noise(base, name) is None
                result = _first_reading(contents, reading, unchanged=quiet and base.modified_at() == reading.mtime_ns)
            else:
                result = self._compared(contents, reading, baseline)
            book.commit()
        return result

    def _compared(self, contents: Baselines, reading: Reading, baseline: Baseline) -> Verified:
        """A reading that differed nowhere from the baseline that there was when it began."""
        if baseline.algorithm is reading.algorithm and contents.digests(reading.identity) != reading.digests:
            # Another program took it meanwhile, of another content.
            return Verified(reading.name, Outcome.PENDING, "its baseline was taken while it was read", reading.size)
        known = reading.identity in contents.known().findings
        contents.found_whole(reading.identity, reading.began_at)
        if baseline.algorithm is not reading.algorithm:
            baseline = replace(_baseline_of(reading), taken_at=baseline.taken_at)
            contents.take(baseline, reading.digests)
        whole = Verified(reading.name, Outcome.WHOLE, "as its baseline", reading.size, root=_text_of(baseline))
        return replace(whole, ends_finding=known)

    def _give_up(self, base: Base, reading: Reading, read: int) -> Verified:
        """The file is not what it was when it was opened: what was read of it says nothing."""
        with ledger_file.writing(self._host.state) as book:
            book.contents.end_reading(reading.identity)
            book.commit()
        return Verified(reading.name, Outcome.PENDING, "it changed while it was read", base.size, read)

    def _find(self, identity: str, name: bytes, flaw: Flaw, message: str, offsets: tuple[int, ...]) -> Verified:
        now = time.time()
        with ledger_file.writing(self._host.state) as book:
            finding = book.contents.found(Finding(identity, name, flaw, message, offsets, now, now))
            book.contents.end_reading(identity)
            book.commit()
        return _verdict(finding, 0)

    def _save(self, reading: Reading) -> None:
        if not reading.digests:
            return
        with ledger_file.writing(self._host.state) as book:
            book.contents.keep(reading)
            book.commit()


def _of(digests: bytes, block: int) -> bytes:
    return digests[block * DIGEST : (block + 1) * DIGEST]


def _candidate(before: Reading | None, begun: Reading) -> bytes | None:
    """The whole reading that the one that begins may be compared with."""
    same = before is not None and (before.size, before.algorithm) == (begun.size, begun.algorithm)
    return before.candidate if before is not None and same else None


def _finding_of(reading: Reading) -> Finding:
    now = time.time()
    if reading.damaged:
        offsets = tuple(block * BLOCK for block in reading.damaged)
        count = "1 block" if len(offsets) == 1 else f"{len(offsets)} blocks"
        message = f"{count} of 4 MiB changed since its baseline, the first at byte {offsets[0]}"
        flaw = Flaw.CORRUPT
    else:
        offsets, flaw = reading.unreadable, Flaw.UNREADABLE
        message = f"it cannot be read at byte {offsets[0]}"
    return Finding(reading.identity, reading.name, flaw, message, offsets[:MOST_OFFSETS], now, now)


def _verdict(finding: Finding, size: int) -> Verified:
    outcome = Outcome.CORRUPT if finding.flaw is Flaw.CORRUPT else Outcome.UNREADABLE
    return Verified(finding.name, outcome, finding.message, size, finding=finding)


def _first_reading(contents: Baselines, reading: Reading, *, unchanged: bool) -> Verified:
    """Keep a baseline of a file if nothing can have written to it while it was read, else remember to read it again."""
    if (reading.quiet and unchanged) or reading.candidate == reading.digests:
        baseline = _baseline_of(reading)
        contents.take(baseline, reading.digests)
        contents.found_whole(reading.identity, reading.began_at)
        return Verified(
            reading.name, Outcome.BASELINED, "read for the first time", reading.size, root=_text_of(baseline)
        )
    seen = replace(reading, began_at=time.time(), digests=b"", candidate=reading.digests)
    contents.keep(seen)
    message = "it was touched while it was read; an equal second reading will show that nothing wrote to it"
    return Verified(reading.name, Outcome.PENDING, message, reading.size)


def _baseline_of(reading: Reading) -> Baseline:
    return Baseline(
        reading.identity,
        reading.name,
        reading.algorithm,
        reading.size,
        root(reading.algorithm, reading.size, reading.digests),
        taken_at=time.time(),
        verified_at=reading.began_at,
    )


def _text_of(baseline: Baseline) -> str:
    return f"{baseline.algorithm}:{baseline.size}:{baseline.root}"
